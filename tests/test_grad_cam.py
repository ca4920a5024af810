"""Grad-CAM and Grad-CAM++ against captum, the package grad-cam and identities that need no library."""

import copy

import pytest
import torch
import torchvision
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from common.grad_cam import activations_and_gradients, grad_cam, grad_cam_plus_plus, heat_maps
from common.model import resnet18, under_10k, under_20k

METHODS = [grad_cam, grad_cam_plus_plus]


class FullyConnected(nn.Module):
    """A network with a fully connected head; `inplace` says how it treats the maps after its convolution."""

    def __init__(self, inplace=False):
        super().__init__()
        self.inplace = inplace
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace)
        self.head = nn.Linear(6 * 7 * 7, 10)

    def forward(self, images):
        maps = self.conv(images)
        if self.inplace:
            maps += 0.1
        else:
            maps = maps + 0.1
        return self.head(nn.functional.max_pool2d(self.relu(maps), 4).flatten(1))


def resnet():
    return torchvision.models.resnet18(num_classes=10)


CASES = {
    "session 6": (under_10k, lambda model: model[9][2], 1),
    "session 7": (under_20k, lambda model: model[8], 1),
    "session 10": (lambda: resnet18(8), lambda model: model[8], 3),
    "session 10, in a block": (lambda: resnet18(8), lambda model: model[6].path, 3),
    "fully connected": (FullyConnected, lambda model: model.conv, 1),
    "resnet": (resnet, lambda model: model.layer3, 3),
}


@pytest.fixture(params=CASES, ids=str)
def case(request):
    """Model, layer, eight images and a class for each, in float64."""
    build, layer, channels = CASES[request.param]
    torch.manual_seed(0)
    model = build().double().eval()
    images = torch.rand(8, channels, 28, 28, dtype=torch.double)
    return model, layer(model), images, torch.arange(8)


def test_grad_cam_matches_captum(case):
    model, layer, images, classes = case
    expected = LayerGradCam(model, layer).attribute(images, classes, relu_attributions=True)[:, 0].detach()
    torch.testing.assert_close(grad_cam(model, layer, images, classes), expected, rtol=1e-5, atol=1e-12)
    assert expected.max() > 0


def test_grad_cam_plus_plus_matches_the_package(case):
    """The package adds 1e-6 to a denominator of squared gradients, which does not matter if these are large."""
    model, layer, images, classes = case

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, images):
            return 1e6 * self.model(images)

    scaled = Scaled().eval()
    targets = [ClassifierOutputTarget(int(label)) for label in classes]
    with GradCAMPlusPlus(scaled, [layer]) as package:
        expected = torch.from_numpy(package(images.clone(), targets).copy()).double()
    maps = grad_cam_plus_plus(scaled, layer, images, classes)
    ours = heat_maps(maps, images.shape[2:])
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-3)  # the package enlarges with OpenCV in float32
    assert expected.std() > 0.05


@pytest.mark.parametrize("method", METHODS)
def test_in_place_operations_after_the_layer_change_nothing(method):
    model = FullyConnected()
    twin = FullyConnected(inplace=True)
    twin.load_state_dict(model.state_dict())
    images = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(method(twin, twin.conv, images), method(model, model.conv, images))


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_equals_its_images_one_by_one(case, method):
    model, layer, images, classes = case
    one_by_one = [method(model, layer, image[None], label[None]) for image, label in zip(images, classes, strict=True)]
    torch.testing.assert_close(method(model, layer, images, classes), torch.cat(one_by_one))


def test_with_average_pooling_and_a_linear_head_grad_cam_is_cam():
    """Zhou et al. 2016: the class's row of the head weighs the maps; the gradient of the mean divides it by H W."""
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU())
    head = nn.Linear(5, 4)
    model = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).double()
    images, classes = torch.rand(6, 1, 12, 12, dtype=torch.double), torch.tensor([0, 1, 2, 3, 0, 1])
    cam = torch.einsum("nk,nkhw->nhw", head.weight[classes], features(images)).relu() / (10 * 10)
    torch.testing.assert_close(grad_cam(model, features, images, classes), cam)


def test_grad_cam_plus_plus_is_its_formula():
    """The textbook form, with its squares and cubes, if these do not vanish."""
    torch.manual_seed(0)
    model = under_10k().double().eval()
    images, classes = torch.rand(4, 1, 28, 28, dtype=torch.double), torch.arange(4)
    a, g = activations_and_gradients(model, model[9], images, classes)
    alpha = g**2 / (2 * g**2 + a.sum(dim=(2, 3), keepdim=True) * g**3)
    alpha[g == 0] = 0
    weights = (alpha * g.clamp(min=0)).sum(dim=(2, 3), keepdim=True)
    expected = (weights * a).sum(dim=1).clamp(min=0)
    torch.testing.assert_close(grad_cam_plus_plus(model, model[9], images, classes), expected)


@pytest.mark.parametrize("method", METHODS)
def test_float32_is_close_to_float64(case, method):
    model, layer, images, classes = case
    exact = method(model, layer, images, classes)
    names = {module: name for name, module in model.named_modules()}
    single = copy.deepcopy(model).float()
    rounded = method(single, single.get_submodule(names[layer]), images.float(), classes)
    torch.testing.assert_close(rounded.double(), exact, rtol=1e-3, atol=1e-5 * float(exact.max()))


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_was(method):
    model = under_10k(dropout=0.5).train()
    model[0].eval()  # one part in another mode
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    model[0][0].weight.grad = torch.ones_like(model[0][0].weight)
    with torch.inference_mode(False), torch.no_grad():
        maps = method(model, model[9], torch.rand(3, 1, 28, 28))
    assert not maps.requires_grad
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model[0][0].weight.grad, torch.ones_like(model[0][0].weight))
    assert all(parameter.grad is None for parameter in list(model.parameters())[1:])
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())


def test_hooks_and_modes_are_restored_after_an_error():
    model = under_10k().train()
    with pytest.raises(RuntimeError):
        grad_cam(model, model[9], torch.rand(1, 3, 28, 28))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


class Unused(nn.Module):
    """A network with a layer that never runs."""

    def __init__(self):
        super().__init__()
        self.network, self.unused = under_10k(), nn.Conv2d(1, 1, 3)

    def forward(self, images):
        return self.network(images)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("build", "layer", "message"),
    [
        (torchvision.models.resnet18, lambda model: model.layer4[1].relu, "ReLU runs 2 times for an image: choose"),
        (Unused, lambda model: model.unused, "Conv2d runs 0 times for an image: choose"),
        (FullyConnected, lambda model: model.head, r"Linear gives \[4, 10\], not maps"),
    ],
)
def test_a_layer_must_run_once_and_give_maps(method, build, layer, message):
    """A layer that runs twice would give maps of one pass with gradients of the other."""
    model = build()
    channels = next(model.parameters()).shape[1]
    with pytest.raises(ValueError, match=message):
        method(model, layer(model), torch.rand(4, channels, 28, 28))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (torch.arange(3), r"There are 4 images and classes \[3\]: give one for each"),
        (torch.arange(5), r"There are 4 images and classes \[5\]: give one for each"),
        (torch.tensor(3), r"There are 4 images and classes \[\]: give one for each"),
        (torch.tensor([0, 1, 2, 10]), r"scores for the classes 0 to 9, not for \[0, 1, 2, 10\]"),
        (torch.tensor([0, 1, 2, -1]), r"scores for the classes 0 to 9, not for \[0, 1, 2, -1\]"),
    ],
)
def test_each_image_needs_a_class_that_the_model_knows(method, classes, message):
    model = under_10k()
    with pytest.raises(ValueError, match=message):
        method(model, model[9], torch.rand(4, 1, 28, 28), classes)


@pytest.mark.parametrize("method", METHODS)
def test_25_images_take_one_forward_and_one_backward_pass(method, monkeypatch):
    model = under_10k()
    passes = []
    model.register_forward_hook(lambda *_: passes.append("forward"))
    real = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *arguments: passes.append("backward") or real(*arguments))
    method(model, model[9], torch.rand(25, 1, 28, 28))
    assert passes == ["forward", "backward"]


def test_by_default_the_predicted_class_is_explained():
    model = under_10k().eval()
    images = torch.rand(5, 1, 28, 28)
    predicted = model(images).argmax(dim=1)
    torch.testing.assert_close(grad_cam(model, model[9], images), grad_cam(model, model[9], images, predicted))


def test_heat_maps_reach_from_0_to_1_and_a_constant_map_is_0():
    maps = heat_maps(torch.stack([torch.rand(4, 4), torch.full((4, 4), 3.0)]), (28, 20))
    assert maps.shape == (2, 28, 20)
    assert (maps[0].min(), maps[0].max()) == (0, 1)
    assert maps[1].count_nonzero() == 0
