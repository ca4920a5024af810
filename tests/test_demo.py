"""The demo: its description of the networks, and the page itself in a real browser, compared with PyTorch."""

import base64
import copy
import json
import re

import numpy as np
import pytest
import torch
from conftest import ROOT, served
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from common import data, grad_cam, model, utils
from course import demo
from course.describe import describe

DEMO = ROOT / "docs" / "demo"
IMAGES = json.loads((DEMO / "images.json").read_text())
NETWORKS = json.loads((DEMO / "networks.json").read_text())["networks"]
COMMITTED = [entry["id"] for entry in NETWORKS if entry["weights"]]
# Lines as a hand draws them for each digit, in fractions of the pad's width and height.
STROKES = {int(digit): lines for digit, lines in json.loads((ROOT / "tests" / "strokes.json").read_text()).items()}
in_browser = pytest.mark.browser


# ---------------------------------------------------------------------------------------------------------------
# The description of the networks, without a browser


def test_networks_json_is_what_the_course_writes_today():
    written = (DEMO / "networks.json").read_text(encoding="utf-8")
    assert written == demo.networks_json(), "networks.json is old: run `course demo`."


def test_images_json_knows_the_statistics_of_the_digits(digits):
    known = IMAGES["digits"]
    assert known["mean"] == list(digits.mean)
    assert known["std"] == list(digits.std)
    assert known["classes"] == list(digits.classes)
    first = digits.test.images[(digits.test.labels == 0).nonzero()[0, 0], 0]
    assert torch.equal(sprite("digits")[0, 0], first)


def test_every_session_with_weights_is_in_the_demo():
    with_weights = {path.parent.name for path in (ROOT / "sessions").glob("*/weights.safetensors")}
    known = {path.parent.name for path in (ROOT / "sessions").glob("*/results.json") if known_data_set(path)}
    assert {entry["session"] for entry in NETWORKS if entry["weights"]} == with_weights & known


def known_data_set(path):
    return json.loads(path.read_text())[0]["dataset"]["name"] in IMAGES


@pytest.mark.parametrize(
    ("network", "size"), [(model.under_20k(), 28), (model.fully_connected_head(), 28), (model.resnet18(4), 32)]
)
def test_described_receptive_fields_match_gradients(network, size):
    layers = [layer for layer in described(network, size)["layers"] if layer["field"]]
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 0.1)  # so that every pixel of a field counts
    for layer in [layer for layer in layers if layer["kind"] in ("conv", "max_pool", "avg_pool")]:
        place = layer["shape"][1] // 2
        image = torch.ones(1, layers_in(network), size, size, requires_grad=True)
        kept = []
        hook = network.get_submodule(layer["name"]).register_forward_hook(lambda *given: kept.append(given[2]))  # noqa: B023
        network.eval()(image)
        hook.remove()
        # Max pooling hands a gradient to one pixel only: its size is checked with the formula below.
        if not any(isinstance(module, nn.MaxPool2d) for module in network.modules()):
            (gradient,) = torch.autograd.grad(kept[0][0, 0, place, place], image)
            columns = gradient[0, 0].abs().sum(dim=0).nonzero().flatten()
            start = layer["field"]["start"] + place * layer["field"]["jump"]
            assert columns.min() == max(start, 0), layer["name"]
            assert columns.max() == min(start + layer["field"]["size"], size) - 1, layer["name"]
    chain = [layer for layer in layers if layer["kind"] in ("conv", "max_pool") and "shortcut" not in layer["name"]]
    expected = [row["field"] for row in utils.receptive_field(network, (layers_in(network), size, size))]
    assert [layer["field"]["size"] for layer in chain] == expected[: len(chain)]


def described(network, size):
    return describe(network, torch.zeros(1, layers_in(network), size, size))


def layers_in(network):
    return next(module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Sigmoid(), "the layer 1 \\(Sigmoid\\)"),
        (nn.Conv2d(2, 2, 3, groups=2), "groups 2 of Conv2d"),
        (nn.Conv2d(2, 2, 3, dilation=2), "dilation \\(2, 2\\) of Conv2d"),
        (nn.MaxPool2d(2, ceil_mode=True), "ceil_mode True of MaxPool2d"),
        (nn.AvgPool2d(2, padding=1), "padding 1 of AvgPool2d"),
    ],
)
def test_a_layer_that_the_demo_cannot_compute_is_refused(layer, message):
    with pytest.raises(ValueError, match=f"cannot compute {message}"):
        describe(nn.Sequential(nn.Conv2d(1, 2, 3), layer), torch.zeros(1, 1, 8, 8))


def test_the_page_takes_less_than_200_kilobytes_and_loads_nothing_from_elsewhere():
    files = [path for path in DEMO.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 200_000
    for path in files:
        if path.suffix in (".js", ".css", ".html"):
            found = re.findall(r"(?:src|import|from|url|fetch|href)[\s=(]+[\"'](https?:[^\"']+)", path.read_text())
            assert not found, path.name


# ---------------------------------------------------------------------------------------------------------------
# The page in a browser


class Page:
    """The demo, open in a browser."""

    def __init__(self, browser, address):
        self.browser, self.address = browser, address

    def open(self, query=""):
        self.browser.get(f"{self.address}/docs/demo/index.html{query}")
        self.wait("return document.body.classList.contains('ready')")
        self.settle()

    def wait(self, script):
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, 30, poll_frequency=0.05).until(lambda browser: browser.execute_script(script))

    def settle(self):
        """Wait until the page has classified and shown the drawing."""
        self.run("await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));")

    def run(self, script, *given):
        """The result of an async function with this body; `given` are its arguments."""
        script = f"""
            const given = [...arguments], done = given.pop(), run = async () => {{ {script} }};
            run().then((value) => done({{ value }}), (error) => done({{ error: String(error) }}));"""
        done = self.browser.execute_async_script(script, *given)
        assert "error" not in done, done["error"]
        return done.get("value")

    def compute(self, function, *given):
        """The result of a function of tests/demo.js."""
        return self.run(f"return (await import('/tests/demo.js')).{function}(...given)", *given)

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def answer(self, card="first"):
        self.settle()
        return self.find(f"#card-{card} .answer").text

    def draw(self, strokes, kind="mouse"):
        """Draw lines on the pad with a pointer of this kind; points are fractions of its width and height."""
        from selenium.webdriver.common.actions.action_builder import ActionBuilder
        from selenium.webdriver.common.actions.pointer_input import PointerInput

        pad = self.find("#pad")
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", pad)
        actions = ActionBuilder(self.browser, mouse=PointerInput(kind, kind), duration=0)
        pointer, half = actions.pointer_action, pad.size["width"] / 2
        for first, *points in strokes:
            pointer.move_to(pad, *offset(first, half)).pointer_down()
            for point in points:
                pointer.move_to(pad, *offset(point, half))
            pointer.pointer_up()
        actions.perform()
        self.settle()


def offset(point, half):
    """A point as its distance in pixels from the pad's middle, as Selenium wants it."""
    return [round((part * 2 - 1) * half) for part in point]


@pytest.fixture(scope="module")
def address():
    with served(ROOT) as where:
        yield where


@pytest.fixture
def page(browser, address):
    """The page; after the test the console must be empty, with no request to another site."""
    browser.get_log("browser"), browser.get_log("performance")
    browser.set_script_timeout(120)
    opened = Page(browser, address)
    yield opened
    for name, given in (
        ("setEmulatedMedia", {"features": []}),
        ("clearDeviceMetricsOverride", {}),
        ("setTouchEmulationEnabled", {"enabled": False}),
    ):
        browser.execute_cdp_cmd(f"Emulation.{name}", given)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
    assert asked, "the log of requests is empty, so it shows nothing"
    assert [url for url in asked if not url.startswith((address, "data:"))] == []


def sprite(name):
    """The test images in a PNG of the demo, uint8 (N, C, H, W)."""
    pixels = torch.from_numpy(np.array(Image.open(DEMO / f"{name}.png")))
    pixels = pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)  # (C, H, N * W)
    return torch.stack(pixels.split(pixels.shape[1], dim=2))


@pytest.fixture(scope="module")
def trained():
    """The description of each network that has weights, and the network with them, in evaluation mode."""
    found = {}
    for entry, network in demo.networks(IMAGES):
        if entry["weights"]:
            tensors, prefix = load_file(ROOT / entry["weights"]), entry["prefix"]
            own = {name: tensors[prefix + name] for name in network.state_dict()}
            network.load_state_dict(own)
            found[entry["id"]] = entry, network.eval()
    return found


def inputs_of(entry, count=20):
    """The first test images as a network gets them, and the digits 0, 1, … if it adds one."""
    images = sprite(IMAGES[entry["dataset"]]["file"].removesuffix(".png"))[:count]
    mean, std = (torch.tensor(IMAGES[entry["dataset"]][name])[:, None, None] for name in ("mean", "std"))
    images = (images.float() / 255 - mean) / std
    return (images, torch.arange(len(images)).float()[:, None] % 10) if len(entry["inputs"]) > 1 else (images,)


def decode(text):
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), dtype="<f4").copy())


def maps_of(network, inputs):
    """The output of every module without children, by name, computed by PyTorch.

    In float64, whose rounding is far below what is tested: float32 would round differently on every processor.
    """
    network = copy.deepcopy(network).double()
    maps = {}
    for name, module in network.named_modules():
        if not list(module.children()):
            keep = lambda module, given, output, name=name: maps.update({name: output.clone()})  # noqa: E731
            module.register_forward_hook(keep)
    with torch.no_grad():
        logits = network(*(part.double() for part in inputs))
    return maps, logits


@in_browser
@pytest.mark.parametrize("name", COMMITTED)
def test_logits_and_all_maps_match_pytorch(page, trained, name):
    entry, network = trained[name]
    inputs = inputs_of(entry)
    expected, logits = maps_of(network, inputs)
    page.open()
    for number in range(20):
        given = [part[number].flatten().tolist() for part in inputs]
        found = page.compute("mapsOf", name, given)
        compare_maps(entry["layers"], found, {layer: maps[number] for layer, maps in expected.items()}, logits[number])


def compare_maps(layers, found, expected, logits):
    """Compare the maps of all layers, as the browser sent them, with PyTorch's for the same image."""
    sizes = [torch.Size(layer["shape"]).numel() for layer in layers]
    found = dict(zip([layer["name"] for layer in layers], decode(found).split(sizes), strict=True))
    assert (found[layers[-1]["name"]] - logits).abs().max() < 1e-4
    compared = [layer for layer in found if layer in expected]
    assert (
        len(compared) > len(found) * 0.8
    )  # all but residual adds and concatenations; the ReLU behind them is compared
    for layer in compared:
        assert (found[layer] - expected[layer].flatten()).abs().max() < 1e-3, layer


@in_browser
def test_a_residual_network_runs_with_float16_weights(page, tmp_path):
    torch.manual_seed(0)
    network = model.resnet18(width=8)
    network(torch.randn(64, 3, 32, 32))  # batch norm gets statistics
    network.half().float().eval()
    save_file({name: tensor.half() for name, tensor in network.state_dict().items()}, tmp_path / "half.safetensors")
    text = base64.b64encode((tmp_path / "half.safetensors").read_bytes()).decode()
    entry = describe(network, torch.zeros(1, 3, 32, 32))
    images = sprite("cifar10")[:20].float() / 255
    expected, logits = maps_of(network, [images])
    page.open()
    for number, image in enumerate(images):
        found = page.compute("mapsOfOther", entry, text, [image.flatten().tolist()])
        compare_maps(entry["layers"], found, {layer: maps[number] for layer, maps in expected.items()}, logits[number])


class WithDigit(nn.Module):
    """A network with a fixed second input, so that it takes images only."""

    def __init__(self, network, digit):
        super().__init__()
        self.network, self.digit = network, digit

    def forward(self, images):
        return self.network(images, self.digit)


@in_browser
@pytest.mark.parametrize("name", COMMITTED)
def test_heat_maps_match_the_course(page, trained, name):
    entry, network = trained[name]
    page.open()
    inputs = inputs_of(entry, 4)
    layer = network.get_submodule(entry["heat"]["layer"])
    labels = torch.arange(len(entry["outputs"][0]["classes"]))
    for number in range(4):
        whole = WithDigit(network, inputs[1][number : number + 1].repeat(len(labels), 1)) if inputs[1:] else network
        images = inputs[0][number].repeat(len(labels), 1, 1, 1)
        activations, gradients = grad_cam.activations_and_gradients(whole, layer, images, labels)
        if entry["heat"]["exact"]:
            expected = (gradients.sum(dim=(2, 3), keepdim=True) * activations).sum(dim=1)
        else:
            expected = grad_cam.grad_cam(whole, layer, images, labels)
        given = [part[number].flatten().tolist() for part in inputs]
        found = decode(page.compute("heatMapsOf", name, given, len(labels))).view(expected.shape)
        scale = max(1.0, float(expected.abs().max()))
        assert (found - expected).abs().max() / scale < 1e-4, f"image {number}"


@in_browser
@pytest.mark.parametrize("name", COMMITTED)
def test_the_numbers_of_an_explanation_add_up_to_the_pixel(page, trained, name):
    entry, _ = trained[name]
    page.open()
    given = [part[0].flatten().tolist() for part in inputs_of(entry, 1)]
    assert page.compute("wrongExplanations", name, given) == []


@in_browser
def test_session_6_is_as_accurate_on_all_test_digits_as_in_pytorch(page, trained, digits):
    entry, network = trained["s06_under_10k"]
    images = digits.test.images
    with torch.no_grad():
        expected = network(data.normalise(digits, images)).argmax(dim=1)
    page.open()
    text = base64.b64encode(images.numpy().tobytes()).decode()
    found = torch.tensor(page.compute("answers", entry["id"], text, digits.mean, digits.std))
    assert len(found) == 360
    right = (found == digits.test.labels).sum()
    assert right == (expected == digits.test.labels).sum() and torch.equal(found, expected)
    assert right > 180, "the network of MNIST should read most of these digits"


@in_browser
def test_an_enlarged_mnist_digit_is_prepared_back_to_itself(page):
    """The preparation undoes an enlargement, because it makes images like MNIST's."""
    images = sprite("mnist")[:, 0]
    page.open()
    for image in images:
        found = torch.tensor(page.compute("preparedAgain", image.tolist())).view(28, 28)
        assert (found - image / 255).abs().mean() < 0.002


@in_browser
@pytest.mark.parametrize("kind", ["mouse", "touch", "pen"])
def test_drawn_digits_are_read(page, kind):
    page.browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": kind == "touch"})
    page.open()
    read = {}
    for digit, strokes in STROKES.items():
        page.find("#clear").click()
        page.draw(strokes, kind)
        read[digit] = page.answer().split()[0]
    assert read == {digit: str(digit) for digit in STROKES}


@in_browser
def test_drawing_scales_and_centres_and_can_be_undone(page):
    page.open()
    page.find("#clear").click()
    assert page.answer() == "Draw something."
    small = [[(0.1 + 0.25 * x, 0.08 + 0.25 * y) for x, y in stroke] for stroke in STROKES[3]]  # in the corner
    page.draw(small)
    assert page.answer().startswith("3 ")
    page.draw([[(0.9, 0.9), (0.92, 0.92)]])
    page.find("#undo").click()
    assert page.answer().startswith("3 ")
    page.find("#undo").click()
    assert page.answer() == "Draw something."


@in_browser
def test_a_digit_can_be_drawn_by_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    page.open()
    pad = page.find("#pad")
    pad.send_keys(Keys.DELETE)
    pad.send_keys(Keys.ARROW_UP * 10, Keys.SPACE, Keys.ARROW_DOWN * 20, Keys.SPACE)
    assert page.answer().startswith("1 ")
    pad.send_keys(Keys.DELETE)
    assert page.answer() == "Draw something."


@in_browser
def test_everything_can_be_reached_with_the_tab_key(page):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    page.open()
    reached = set()
    for _ in range(60):
        ActionChains(page.browser).send_keys(Keys.TAB).perform()
        reached.add(
            page.run("const { id, className, tagName } = document.activeElement; return id || className || tagName;")
        )
    assert {"first", "second", "file", "pad", "clear", "undo", "set", "CANVAS"} <= reached
    assert any("best" in name for name in reached)  # a class in the list of probabilities


@in_browser
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_a_phone_in_light_and_dark(page, dark):
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    page.open("?network=s02_digit_sum&beside=s05_grad_cam")
    page.find("#clear").click()
    page.draw(STROKES[7])
    before = page.answer()
    for width in (390, 1280, 320):
        size = {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": width < 500}
        page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        page.settle()
        assert page.run("return document.documentElement.scrollWidth") <= width
        assert page.answer() == before
    page.draw([[(0.3, 0.5), (0.7, 0.5)]])  # a seven with a bar, as in Europe
    assert page.answer().startswith("7 + 5 = 12")
    background = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", background))) < 60) == dark


@in_browser
def test_two_networks_judge_the_same_drawing(page):
    page.open("?network=s04_three_iterations&beside=s07_under_20k")
    page.find("#clear").click()
    page.draw(STROKES[2])
    assert [page.answer(card).split()[0] for card in ("first", "second")] == ["2", "2"]
    page.find("#samples button:nth-child(1)").click()
    assert [page.answer(card).split()[0] for card in ("first", "second")] == ["0", "0"]
    page.open("?network=s05_grad_cam&beside=s07_under_20k")
    page.find("#samples button:nth-child(3)").click()
    assert [page.answer(card).split()[0] for card in ("first", "second")] == ["one", "1"]


@in_browser
def test_of_two_choices_the_later_one_is_shown(page):
    """The first takes longer to load."""
    page.open()
    page.run("""
        const list = document.getElementById("first");
        for (const network of ["s10_resnet_lr_finder", "s07_under_20k"]) {
            list.value = network;
            list.dispatchEvent(new Event("change"));
        }""")
    page.wait("return document.querySelector('#card-first h2').textContent.startsWith('Session 7')")
    page.run("await new Promise((done) => setTimeout(done, 1000));")
    assert page.find("#card-first h2").text.startswith("Session 7")
    assert page.answer().startswith("3 ")


@in_browser
def test_session_2_adds_a_number(page):
    from selenium.webdriver.common.keys import Keys

    page.open("?network=s02_digit_sum")
    page.find("#clear").click()
    page.draw(STROKES[7])
    assert page.answer().startswith("7 + 5 = 12 ")
    page.find("#digit").send_keys(Keys.ARROW_RIGHT * 4)
    assert page.answer().startswith("7 + 9 = 16 ")


@in_browser
def test_pointing_at_a_class_shows_where_the_network_looks_for_it(page):
    page.open()
    before = page.find("#card-first .look figcaption").text
    three, eight = page.browser.find_elements("css selector", "#card-first .bars button")[3:9:5]
    eight.click()
    page.settle()
    assert "“8”" in page.find("#card-first .look figcaption").text != before
    eight.click()
    page.run("document.activeElement.blur()")
    three.click()
    assert "“3”" in page.find("#card-first .look figcaption").text


@in_browser
def test_pointing_at_a_number_of_a_map_explains_it(page):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    page.open()
    canvas = page.browser.find_elements("css selector", "#rows canvas")[3]  # the third convolution
    page.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    left, top = (-canvas.size[side] // 2 + 40 for side in ("width", "height"))
    ActionChains(page.browser).move_to_element_with_offset(canvas, left, top).perform()
    text = page.find("#panel").text
    assert re.search("It sees 7 . 7 pixels of the image.", text) and "Patch" in text and "batch norm" in text
    shown = page.find("#panel h3").text
    ActionChains(page.browser).click().perform()  # it holds
    ActionChains(page.browser).move_by_offset(30, 20).perform()
    assert page.find("#panel h3").text == shown
    canvas.send_keys(Keys.ARROW_RIGHT)
    moved = page.find("#panel h3").text
    column = re.compile(r"column (\d+)")
    assert int(column.search(moved)[1]) == int(column.search(shown)[1]) + 1
    canvas.send_keys(Keys.ESCAPE)
    assert "open" not in page.find("#panel").get_attribute("class").split()


# ---------------------------------------------------------------------------------------------------------------
# A reader's own weights


def drop(page, path):
    """Drop a file on the page."""
    script = """
        const dataTransfer = new DataTransfer();
        const bytes = Uint8Array.from(atob(given[0]), (letter) => letter.charCodeAt(0));
        dataTransfer.items.add(new File([bytes], given[1]));
        for (const kind of ["dragover", "drop"])
            document.body.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
    """
    page.run(script, base64.b64encode(path.read_bytes()).decode(), path.name)
    page.wait("return document.getElementById('message').textContent !== ''")
    return page.find("#message").text


def choose_file(page, path):
    page.find("#file").send_keys(str(path))
    page.wait("return document.getElementById('message').textContent !== ''")
    return page.find("#message").text


@in_browser
@pytest.mark.parametrize("put", [drop, choose_file])
def test_a_readers_own_weights_run_on_the_page(page, tmp_path, put):
    torch.manual_seed(1)
    network = model.under_20k().eval()
    nn.init.constant_(network[9][0].weight[6], 1)  # it says 6 to everything
    path = tmp_path / "mine.safetensors"
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file({**tensors, "another network/0.0.weight": torch.zeros(2, 1, 3, 3)}, path)  # as in session 4
    page.open()
    assert put(page, path) == "mine.safetensors: these weights run now. Images are normalised as for MNIST."
    assert page.answer().startswith("6 ")
    assert page.answer("second").startswith("3 ")  # the network that was there stands beside it
    assert page.find("#card-first h2").text == "Session 7, your mine.safetensors"


@in_browser
def test_a_second_file_of_the_same_name_is_another_network(page, tmp_path):
    page.open()
    for digit in (6, 1):
        network = model.under_20k().eval()
        nn.init.constant_(network[9][0].weight[digit], 1)  # it says this digit to everything
        save_file(
            {name: tensor.contiguous() for name, tensor in network.state_dict().items()}, tmp_path / "my.safetensors"
        )
        page.run("document.getElementById('message').textContent = ''")
        choose_file(page, tmp_path / "my.safetensors")
    assert [page.answer(card).split()[0] for card in ("first", "second")] == ["1", "6"]
    page.run("for (const id of ['second', 'first']) document.getElementById(id).dispatchEvent(new Event('change'))")
    assert [page.answer(card).split()[0] for card in ("first", "second")] == ["1", "6"]


@in_browser
def test_float16_is_read_as_pytorch_rounds_it(page, tmp_path):
    values = torch.tensor([0.0, -0.0, 1.0, -2.5, 65504.0, 6e-8, 1 / 3, 3e-5, -1e-7])
    page.open()
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        save_file({"some": values.to(dtype)}, tmp_path / "some.safetensors")
        text = base64.b64encode((tmp_path / "some.safetensors").read_bytes()).decode()
        found = page.compute("readSome", text)
        assert torch.equal(torch.tensor(found), values.to(dtype).float())


@in_browser
def test_a_regression_of_session_2_is_read_in_two_ways(page, tmp_path):
    network = model.DigitSum(sums=1)
    nn.init.zeros_(network.sum.weight), nn.init.constant_(network.sum.bias, 10.9)
    path = tmp_path / "regression.safetensors"
    save_file(network.state_dict(), path)
    page.open()
    assert choose_file(page, path).startswith("regression.safetensors: these weights run now.")
    assert page.answer().endswith("11 round(10.900); int() reads 10")


def damaged(tmp_path):
    """Files that no network of the course can run, each with the words expected in the answer."""
    good = (ROOT / "sessions/s06_under_10k/weights.safetensors").read_bytes()
    tensors = load_file(ROOT / "sessions/s06_under_10k/weights.safetensors")
    wider = {**tensors, "12.0.weight": torch.zeros(10, 17, 1, 1)}
    missing = {name: tensor for name, tensor in tensors.items() if name != "0.0.weight"}
    endless = {**tensors, "0.0.weight": tensors["0.0.weight"] * float("nan")}
    flat = b'{"a": {"dtype": "F32", "shape": 4, "data_offsets": [0, 16]}}'
    contents = {
        "empty": (b"", "This is not a .safetensors file."),
        "picture": ((DEMO / "mnist.png").read_bytes(), "This is not a .safetensors file."),
        "text": (b"these are no weights at all", "This is not a .safetensors file."),
        "list": ((2).to_bytes(8, "little") + b"[]", "It fits none of the course's networks"),
        "flat": (len(flat).to_bytes(8, "little") + flat + bytes(16), "This is not a .safetensors file."),
        "null": ((4).to_bytes(8, "little") + b"null", "This is not a .safetensors file."),
        "odd": ((9).to_bytes(8, "little") + b'{"a": 12}', "This is not a .safetensors file."),
        "cut": (good[:-1000], "cut off or damaged"),
        "wider": (wider, "12.0.weight is 10\u00d717\u00d71\u00d71; this network has"),
        "missing": (missing, "has no tensor 0.0.weight"),
        "more": ({**tensors, "extra": torch.zeros(2)}, "a tensor extra, which this network does not have"),
        "endless": (endless, "0.0.weight holds numbers that are not finite"),
    }
    for name, (content, words) in contents.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content) if isinstance(content, bytes) else save_file(content, path)
        yield path, words


@in_browser
def test_a_malformed_file_is_refused_with_a_sentence(page, tmp_path):
    page.open()
    before = page.answer()
    for number, (path, words) in enumerate(damaged(tmp_path)):
        said = (choose_file, drop)[number % 2](page, path)
        assert said.startswith(f"{path.name} was refused. ") and words in said and said.endswith(".")
        assert page.answer() == before
        page.run("document.getElementById('message').textContent = ''")
