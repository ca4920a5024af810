"""What a diagram says is what the networks do."""

import re

import pytest
import torch
from torch import nn

from common import diagrams, model, report, train, utils
from common.train import History


def test_sizes_after_padding_and_stride_match_a_convolution():
    _, text = diagrams.kernel_slides()
    said = re.findall(r"padding (\d) and stride (\d) an image of 5 x 5 becomes (\d) x", text)
    assert len(said) == 3
    for padding, stride, size in said:
        convolution = nn.Conv2d(1, 1, 3, int(stride), int(padding))
        assert convolution(torch.zeros(1, 1, 5, 5)).shape[-1] == int(size)


def test_the_number_at_one_place_is_the_largest_of_the_map():
    generator = torch.Generator().manual_seed(0)
    image, weight = torch.randn(8, 8, generator=generator), torch.randn(3, 3, generator=generator)
    _, text = diagrams.one_place(image, weight)
    expected = nn.functional.conv2d(image[None, None], weight[None, None]).max()
    assert f"add up to {expected:.2f}" in text


def test_receptive_fields_match_the_table_and_grow():
    layers = utils.receptive_field(model.under_10k(), (1, 28, 28))
    _, text = diagrams.receptive_fields(torch.zeros(28, 28, dtype=torch.uint8), layers)
    drawn = [int(field) for field in re.findall(r"layer \d+ (\d+)", text)]
    assert drawn == sorted({layer["field"] for layer in layers})


def test_a_kernel_of_three_channels_has_as_many_weights_as_a_convolution():
    _, text = diagrams.kernel_of_three()
    assert f"{nn.Conv2d(3, 1, 3, bias=False).weight.numel()} in all" in text


def test_shapes_are_those_of_the_outputs():
    network = model.first_convnet().eval()
    _, text = diagrams.shapes(network, (1, 28, 28))
    x, expected = torch.zeros(1, 1, 28, 28), ["1 x 28 x 28"]
    for layer in network[:-2]:
        x = layer(x)
        expected.append(" x ".join(map(str, x.shape[1:])))
    assert re.findall(r"\d+ x \d+ x \d+", text) == expected
    assert "fully connected layer 10 numbers" in text


def test_the_means_of_maps_are_those_of_average_pooling():
    maps = torch.rand(4, 3, 3, generator=torch.Generator().manual_seed(0))
    _, text = diagrams.averages(maps, [0, 2])
    means = nn.AvgPool2d(3)(maps).flatten()
    assert f"map 1 {means[0]:.2f}, map 3 {means[2]:.2f}" in text


def test_the_drawn_learning_rate_is_that_of_one_cycle():
    figure, text = diagrams.learning_rate(*train.one_cycle(nn.Linear(1, 1), range(10), 0.1, epochs=5), epochs=5)
    rates = figure.axes[0].lines[0].get_ydata()
    assert len(rates) == 50 and max(rates) == pytest.approx(0.1) and rates[-1] < 1e-5
    assert "its peak, 0.1, after 0.9 epochs" in text  # before step 10 of 50, the last of the first fifth


def test_heads_are_described_with_their_parameters():
    dense, pooled = model.skeleton()[6:], model.global_average_pooling()[6:]
    _, text = diagrams.heads(dense, pooled)
    assert f"{utils.count_parameters(dense):,} parameters" in text
    assert f"{utils.count_parameters(pooled):,} parameters" in text


def test_a_shortcut_is_described_with_its_convolution_if_it_has_one():
    blocks = {"same": model.ResidualBlock(4, 4), "half": model.ResidualBlock(4, 8, stride=2)}
    _, text = diagrams.residual_blocks(blocks)
    assert "same: x goes through 3 × 3 conv 4 maps" in text
    assert "x on as it is" in text
    assert "x on 1 × 1 conv 8 maps stride 2, batch norm" in text


def test_the_next_step_follows_from_the_run_and_the_layers():
    def advice(network, test_accuracy, train_accuracy):
        history = History([{"test_accuracy": test_accuracy}])
        return report.next_step(network, history, 0.99, train_accuracy, 10_000)

    assert "train longer" in advice(model.skeleton(), 0.9, 0.9)
    assert "batch norm and dropout" in advice(model.skeleton(), 0.99, 0.9999)
    assert "global average pooling" in advice(model.batch_norm_and_dropout(), 0.99, 0.9999)
    assert "Change the images" in advice(model.global_average_pooling(), 0.99, 0.9999)
    assert "smaller network" in advice(model.global_average_pooling(), 0.995, 0.995)
