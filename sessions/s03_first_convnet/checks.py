"""Checks for the exercises of session 3: each says in one line what is right, or what to look at again."""

import torch
import torch.nn.functional as F

from common.checking import call, numbers, require, tensor

# The networks of exercise 1: kernel, stride and padding of each layer.
CONV, POOL, STRIDED, LAST = (5, 1, 0), (2, 2, 0), (3, 2, 1), (3, 1, 0)
NETWORKS = {"early": [CONV, POOL, STRIDED, LAST], "late": [CONV, STRIDED, LAST, POOL]}


def sizes(early_sizes, early_fields, late_sizes, late_fields):
    """Exercise 1: width and receptive field of each layer, four numbers each."""
    answers = {"early": (early_sizes, early_fields), "late": (late_sizes, late_fields)}
    for network, (widths, fields) in answers.items():
        _check_widths(network, numbers(f"{network}_sizes", widths, 4))
        _check_fields(network, numbers(f"{network}_fields", fields, 4))
    print("Right. The early pool lets the layers behind it see more, and compute at a quarter of the places.")


def _check_widths(network, widths):
    before = 28
    for position, ((kernel, stride, padding), width) in enumerate(zip(NETWORKS[network], widths, strict=True), start=1):
        where = f"size of layer {position} of `{network}`"
        right = (before + 2 * padding - kernel) // stride + 1
        hint = "lay the kernel on the first pixels and count how often it can move on by its stride"
        if padding and width == (before - kernel) // stride + 1:
            hint = "padding adds pixels on both sides of the image"
        require(width == right, f"the {where} is {width:g}: {hint}.")
        before = right


def _check_fields(network, fields):
    field, jump = 1, 1
    for position, ((kernel, stride, _), answer) in enumerate(zip(NETWORKS[network], fields, strict=True), start=1):
        right = field + (kernel - 1) * jump
        hint = "a layer adds (kernel - 1) times the distance, in pixels of the image, between neighbours of its input"
        if answer == field + kernel - 1:
            hint = "neighbours of its input lie further apart than one pixel, because a layer before it strides"
        elif answer == field + (kernel - 1) * jump * stride:
            hint = "a layer's own stride widens only the fields behind it"
        if network == "late" and fields[1:] == _fields("early")[1:]:
            hint = "these are the numbers of `early`, but in `late` the pool comes last"
        require(answer == right, f"the field of layer {position} of `{network}` is {answer:g}: {hint}.")
        field, jump = right, jump * stride


def _fields(network):
    fields, jump = [1], 1
    for kernel, stride, _ in NETWORKS[network]:
        fields.append(fields[-1] + (kernel - 1) * jump)
        jump *= stride
    return fields[1:]


def convolution(convolve):
    """Exercise 2: a function that does what nn.Conv2d does, by one matrix product."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 7, 9, generator=generator)
    weight = torch.randn(4, 3, 3, 3, generator=generator)
    right = F.conv2d(images, weight)
    maps = call("convolve", convolve, images, weight)
    if isinstance(maps, torch.Tensor) and maps.shape == right.permute(0, 2, 3, 1).shape:
        require(False, "the kernels are the last dimension of your maps: bring them behind N, where channels stand.")
    maps = tensor("convolve(images, weight)", maps, right.shape)
    flipped = torch.allclose(maps, F.conv2d(images, weight.flip(2, 3)), atol=1e-4)
    require(
        not flipped,
        "your kernels are turned upside down and left to right. That is the convolution of mathematics; "
        "nn.Conv2d lays its kernels on the image as they are.",
    )
    close = torch.allclose(maps, right, atol=1e-4)
    require(
        close,
        "the shape is right and the numbers are not: channel, row and column of a patch must be flattened "
        "in the same order on both sides of the product.",
    )
    wide = torch.randn(5, 3, 2, 4, generator=generator)
    try:
        right = F.conv2d(images, wide)
        fits = torch.allclose(tensor("maps", convolve(images, wide), right.shape), right, atol=1e-4)
    except Exception:
        fits = False
    require(fits, "right for kernels of 3 x 3. Try it with a kernel that is not square.")
    print("Right: the same numbers as nn.Conv2d. On most processors its own convolution is such a product, too.")
