"""The networks: shapes, budgets and receptive fields, against torchsummary and against gradients."""

import re

import pytest
import torch
import torchvision

from common import model, utils

NETWORKS = [
    (model.first_convnet, 27_834),
    (model.skeleton, 31_530),
    (model.batch_norm_and_dropout, 31_682),
    (model.global_average_pooling, 9_998),
    (model.under_10k, 9_404),
    (model.under_20k, 19_088),
    (model.under_a_minute, 9_074),
]


@pytest.mark.parametrize(("build", "parameters"), NETWORKS)
def test_budget_and_shape(build, parameters):
    network = build()
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert utils.count_parameters(network) == parameters
    assert network(torch.rand(3, 1, 28, 28)).shape == (3, 10)


@pytest.mark.parametrize(("build", "parameters"), NETWORKS)
def test_summary_matches_torchsummary_and_leaves_the_model_alone(build, parameters):
    network = build()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator = torch.get_rng_state()
    table = utils.summary(network, (1, 28, 28))
    assert re.search(rf"Total params: {parameters:,}\b", table)
    assert network.training
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("build", [build for build, _ in NETWORKS])
def test_receptive_field_matches_gradients(build):
    """The pixels that the middle of each convolution's output depends on, in a network on a large image."""
    network = build().double().eval()
    size = 99
    for layer, row in zip(convolutions_and_pools(network), utils.receptive_field(network, (1, 28, 28)), strict=True):
        image = torch.rand(1, 1, size, size, dtype=torch.double, requires_grad=True)
        output = run_until(network, layer, image)
        middle = output.shape[-1] // 2
        (gradient,) = torch.autograd.grad(output[0, :, middle, middle].sum(), image)
        seen = gradient[0, 0].nonzero()
        assert (seen.max(dim=0).values - seen.min(dim=0).values + 1).tolist() == [row["field"]] * 2, row


def convolutions_and_pools(network):
    kinds = torch.nn.Conv2d, torch.nn.MaxPool2d, torch.nn.AvgPool2d
    return [layer for layer in network.modules() if isinstance(layer, kinds)]


def run_until(network, last, image):
    """The output of layer `last`, without ReLU and max-pooling, which pass on only part of the gradients."""
    for layer in [module for module in network.modules() if not list(module.children())]:
        if isinstance(layer, torch.nn.Flatten):
            break
        if isinstance(layer, torch.nn.MaxPool2d):
            image = torch.nn.functional.avg_pool2d(image, layer.kernel_size)
        elif not isinstance(layer, torch.nn.ReLU):
            image = layer(image)
        if layer is last:
            return image
    raise AssertionError("layer not found")


def test_the_last_layer_sees_the_whole_image():
    assert utils.receptive_field(model.under_10k(), (1, 28, 28))[-1]["field"] >= 28


def test_dropout_is_where_the_session_says():
    def dropouts(build):
        blocks = [layer for layer in build(dropout=0.1) if isinstance(layer, model.ConvBlock)]
        return [any(isinstance(part, torch.nn.Dropout) for part in block) for block in blocks]

    assert dropouts(model.under_10k) == [True] * 4 + [False] * 2 + [True] * 2 + [False] * 3
    assert dropouts(model.under_20k) == [True] * 6 + [False] * 2


@pytest.mark.parametrize(("options", "parameters"), [({}, 57_429), ({"sums": 1}, 56_259), ({"hidden": False}, 46_549)])
def test_two_inputs_and_two_outputs(options, parameters):
    network = model.DigitSum(**options).eval()
    assert utils.count_parameters(network) == parameters
    images, digits = torch.rand(3, 1, 28, 28), torch.tensor([[0.0], [5.0], [9.0]])
    outputs = network(images, digits)
    assert outputs.shape == (3, 10 + options.get("sums", 19))
    assert not torch.equal(outputs, network(images, digits.flip(0)))
    table = utils.summary(network, (1, 28, 28), (1,))
    assert f"Total params: {parameters:,}" in table
    assert re.search(r"Linear-18 +\[-1, 128\] +256", table), "the path of the digit"


def test_without_the_hidden_layer_image_and_digit_can_only_be_added():
    """What another image changes in the outputs does not depend on the digit; with the hidden layer it does."""
    images, digits = torch.rand(2, 1, 28, 28), torch.tensor([[1.0], [9.0]])
    for hidden in (False, True):
        network = model.DigitSum(hidden=hidden).eval()
        low, high = (network(images, digit.repeat(2, 1)) for digit in digits)
        added = torch.allclose(low[0] - low[1], high[0] - high[1], atol=1e-6)
        assert added != hidden


# ---------------------------------------------------------------------------------------------------------------
# ResNet-18


@pytest.mark.parametrize(("width", "parameters"), [(64, 11_173_962), (32, 2_797_610), (16, 701_466)])
def test_resnet_budget_and_shape(width, parameters):
    network = model.resnet18(width)
    assert utils.count_parameters(network) == parameters
    assert re.search(rf"Total params: {parameters:,}\b", utils.summary(network, (3, 32, 32)))
    images = torch.rand(2, 3, 32, 32)
    shapes = [(images := layer(images)).shape[1:] for layer in network]
    blocks = [(width, 32), (width, 32), (width, 32), (2, 16), (2, 16), (4, 8), (4, 8), (8, 4), (8, 4)]
    expected = [(maps, size, size) if maps == width else (maps * width, size, size) for maps, size in blocks]
    assert shapes == [*expected, (8 * width, 1, 1), (8 * width,), (10,)]


def test_the_blocks_match_torchvision():
    """Its weights in our blocks give the same outputs and gradients; only its first layers are for large images."""
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=10).double()
    ours = model.resnet18().double()
    stages = [theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4]
    for number, stage in enumerate(stages):
        for block, their_block in zip(ours[1 + 2 * number : 3 + 2 * number], stage, strict=True):
            copy_block(block, their_block)
    ours[-1].load_state_dict(theirs.fc.state_dict())
    for training in (True, False):  # in evaluation with the running statistics that training left behind
        ours.train(training), theirs.train(training)
        images = torch.randn(4, 64, 16, 16, dtype=torch.double)
        results = []
        for layers in (ours[1:], torch.nn.Sequential(*stages, theirs.avgpool, torch.nn.Flatten(), theirs.fc)):
            inputs = images.clone().requires_grad_()
            outputs = layers(inputs)
            (gradient,) = torch.autograd.grad(outputs.square().sum(), inputs)
            results.append((outputs, gradient))
        torch.testing.assert_close(*results)
    maps = torch.randn(2, 64, 16, 16, dtype=torch.double)
    for number, stage in enumerate(stages):
        expected = stage(maps)
        maps = ours[1 + 2 * number : 3 + 2 * number](maps)
        torch.testing.assert_close(maps, expected)


def copy_block(block, theirs):
    """Give one of our blocks the weights of one of torchvision's."""
    pairs = [(block.path[0], theirs.conv1, theirs.bn1), (block.path[1], theirs.conv2, theirs.bn2)]
    if theirs.downsample:
        pairs.append((block.shortcut, *theirs.downsample))
    for ours, conv, norm in pairs:
        ours[0].load_state_dict(conv.state_dict())
        ours[1].load_state_dict(norm.state_dict())


def test_resnet_receptive_field_matches_gradients():
    """The pixels that a point after each block depends on, without ReLU, which passes on only part of the gradients."""
    network = model.resnet18(2, channels=1).double().eval()
    for module in network.modules():
        if isinstance(module, model.ResidualBlock):
            module.relu = torch.nn.Identity()
        if isinstance(module, model.ConvBlock):
            del module[2:]
    fields = [row["field"] for row in utils.receptive_field(network, (1, 32, 32))]
    assert fields[-1] == 109
    for blocks in range(9):  # behind the first layer, behind the first block, …
        image = torch.rand(1, 1, 321, 321, dtype=torch.double, requires_grad=True)
        output = network[: blocks + 1](image)
        middle = output.shape[-1] // 2
        (gradient,) = torch.autograd.grad(output[0, :, middle, middle].sum(), image)
        seen = gradient[0, 0].nonzero()
        assert (seen.max(dim=0).values - seen.min(dim=0).values + 1).tolist() == [fields[2 * blocks]] * 2
