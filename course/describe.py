"""Describes a network for the demo: its layers in order, and what a program without PyTorch needs to compute them."""

import operator

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from common.utils import side

# The kinds of layer that docs/demo/forward.js computes. Layers that do nothing in evaluation are left out.
KINDS = {
    nn.Conv2d: "conv",
    nn.BatchNorm2d: "batch_norm",
    nn.BatchNorm1d: "batch_norm",
    nn.ReLU: "relu",
    nn.MaxPool2d: "max_pool",
    nn.AvgPool2d: "avg_pool",
    nn.AdaptiveAvgPool2d: "avg_pool",
    nn.Flatten: "flatten",
    nn.Linear: "linear",
    operator.add: "add",
    torch.cat: "cat",
}
LEFT_OUT = nn.Dropout, nn.Identity
PIXEL = {"size": 1, "jump": 1, "start": 0}  # what a pixel of the image itself sees


def describe(network, *inputs):
    """The layers of a network, its inputs, its tensors and where its heat map is taken, as plain lists and dicts.

    `inputs` are example inputs (1, …). A layer has a `name`, with which the names of its tensors begin, a `kind`, the
    names of its `inputs`, the `shape` of its output without the batch, and what its kind needs. The `field` of its
    outputs is `size` pixels wide, `jump` pixels from one output to the next, the first one from pixel `start` on; it is
    None if an output sees the whole image. Raises ValueError for a layer that is not in KINDS.
    """
    traced = fx.symbolic_trace(network.eval())
    ShapeProp(traced).propagate(*inputs)
    modules = dict(traced.named_modules())
    names, found, layers = {}, {}, []  # names: what the output of each node is called
    for node in traced.graph.nodes:
        shape = list(node.meta["tensor_meta"].shape[1:])
        if node.op == "placeholder":
            names[node] = node.name.removesuffix("_1")  # tracing adds it if Python has a function of that name
            found[names[node]] = {"shape": shape, "field": PIXEL if len(shape) == 3 else None}
        elif node.op == "output":
            break
        else:
            module = modules.get(node.target)
            sources = [names[source] for source in node.all_input_nodes]
            if isinstance(module, LEFT_OUT):
                names[node] = sources[0]
                continue
            kind = KINDS.get(node.target if module is None else type(module))
            if kind is None:
                raise ValueError(f"The demo cannot compute the layer {node.target} ({type(module).__name__}).")
            names[node] = node.name if module is None else node.target
            layer = {"name": names[node], "kind": kind, "inputs": sources, "shape": shape}
            before = [found[source] for source in sources]
            layer |= options(kind, module, before[0]["shape"])
            layer["field"] = field(layer, [source["field"] for source in before])
            found[names[node]] = layer
            layers.append(layer)
    tensors = {name: list(tensor.shape) for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    shapes = {names[node]: found[names[node]]["shape"] for node in traced.graph.find_nodes(op="placeholder")}
    return {"inputs": shapes, "layers": layers, "tensors": tensors, "heat": heat(layers)}


# What else a layer can have, and the only values with which the demo can compute it
PLAIN = {
    "conv": {"groups": 1, "dilation": (1, 1)},
    "max_pool": {"padding": 0, "dilation": 1, "ceil_mode": False},
    "avg_pool": {"padding": 0, "ceil_mode": False},
}


def options(kind, module, shape):
    """What a layer of this kind needs besides its tensors; `shape` (C, H, W) is that of its input."""
    if kind == "batch_norm":
        return {"eps": module.eps}
    if isinstance(module, nn.AdaptiveAvgPool2d):  # to 1 x 1: an average over the whole map
        return {"kernel": shape[1], "stride": shape[1], "padding": 0}
    for name, value in PLAIN.get(kind, {}).items():
        if getattr(module, name) != value:
            raise ValueError(f"The demo cannot compute {name} {getattr(module, name)} of {type(module).__name__}.")
    if kind in PLAIN:
        return {
            name.removesuffix("_size"): side(getattr(module, name)) for name in ("kernel_size", "stride", "padding")
        }
    return {}


def field(layer, before):
    """The receptive field of a layer's outputs, from those of its inputs; of several, the widest counts."""
    if layer["kind"] in ("flatten", "linear", "cat") or None in before:
        return None
    widest = max(before, key=lambda one: one["size"])
    if "kernel" not in layer:
        return widest
    jump = widest["jump"]
    return {
        "size": widest["size"] + (layer["kernel"] - 1) * jump,
        "jump": jump * layer["stride"],
        "start": widest["start"] - layer["padding"] * jump,
    }


def heat(layers):
    """The layer whose maps are weighted for a heat map, and whether the map adds up to the score exactly.

    It is the last one that still has places. For a max-pool its finer input is taken instead, as in session 5. The map
    is exact, a class activation map (Zhou et al. 2016), if the mean of the maps and a linear layer follow.
    """
    last = max(number for number, layer in enumerate(layers) if len(layer["shape"]) == 3 and layer["shape"][1] > 1)
    kinds = [layer["kind"] for layer in layers[last + 1 :]]
    exact = kinds[0] == "avg_pool" and set(kinds[1:]) <= {"conv", "flatten", "linear"}
    taken = layers[last]["inputs"][0] if layers[last]["kind"] == "max_pool" else layers[last]["name"]
    return {"layer": taken, "exact": exact}
