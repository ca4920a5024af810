"""Grad-CAM and Grad-CAM++: which part of an image speaks for a class."""

import torch
import torch.nn.functional as F

from common.utils import modes_kept


def grad_cam(model, layer, images, classes=None):
    """Grad-CAM (Selvaraju et al. 2017) of a whole batch, with one forward and one backward pass.

    `layer` is a module of `model` whose output (N, K, h, w) are the activations; `images` (N, C, H, W) lie on the
    model's device; `classes` (N,) are the classes to explain, by default those that the model predicts. Returns the
    maps (N, h, w), zero or larger. The model's mode and gradients stay as they are.

    Raises ValueError for a layer that does not run just once and give maps, and for classes that are not one for each
    image, from those that the model has scores for.
    """
    activations, gradients = activations_and_gradients(model, layer, images, classes)
    weights = gradients.mean(dim=(2, 3), keepdim=True)  # w_k = mean over the image of dS/dA_k
    return (weights * activations).sum(dim=1).relu()


def grad_cam_plus_plus(model, layer, images, classes=None):
    """Grad-CAM++ (Chattopadhay et al. 2018); arguments and result as in `grad_cam`.

    alpha = g^2 / (2 g^2 + sum(A) g^3) is computed as 1 / (2 + sum(A) g), which does not lose small gradients; where g
    is not positive it is 0, as ReLU(g) is.
    """
    activations, gradients = activations_and_gradients(model, layer, images, classes)
    total = activations.sum(dim=(2, 3), keepdim=True)
    alpha = torch.where(gradients > 0, 1 / (2 + total * gradients), 0)
    weights = (alpha * gradients).sum(dim=(2, 3), keepdim=True)  # w_k = sum of alpha ReLU(g)
    return (weights * activations).sum(dim=1).relu()


def heat_maps(maps, size):
    """Enlarge maps (N, h, w) to `size` (H, W) bilinearly and stretch each to 0 … 1; a constant map becomes 0."""
    constant = maps.amin(dim=(1, 2), keepdim=True) == maps.amax(dim=(1, 2), keepdim=True)
    maps = F.interpolate(maps[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return torch.where(constant, 0, (maps - low) / (high - low))


def activations_and_gradients(model, layer, images, classes=None):
    """The output of `layer` (N, K, h, w) and the gradients of the classes' scores before softmax by it."""
    kept = []

    def keep(module, inputs, output):
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()  # later layers may change their input in place; the kept activations must not change

    hook = layer.register_forward_hook(keep)
    try:
        with modes_kept(model), torch.enable_grad():
            model.eval()
            logits = model(images)
    finally:
        hook.remove()
    if len(kept) != 1:  # after several passes, which maps are meant?
        raise ValueError(
            f"The layer {type(layer).__name__} runs {len(kept)} times for an image: choose one that runs once."
        )
    if kept[0].dim() != 4:
        raise ValueError(f"The layer {type(layer).__name__} gives {list(kept[0].shape)}, not maps (N, K, h, w).")
    if classes is None:
        classes = logits.argmax(dim=1)
    if classes.shape != logits.shape[:1]:
        raise ValueError(f"There are {len(images)} images and classes {list(classes.shape)}: give one for each image.")
    if not 0 <= classes.min() <= classes.max() < logits.shape[1]:
        raise ValueError(
            f"The model has scores for the classes 0 to {logits.shape[1] - 1}, not for {classes.tolist()}."
        )
    with torch.enable_grad():
        scores = logits.gather(1, classes[:, None]).sum()  # no image influences the score of another
    (gradients,) = torch.autograd.grad(scores, kept[0])
    return kept[0].detach(), gradients
