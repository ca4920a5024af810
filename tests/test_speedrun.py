"""Session 11's parts: whitening filters, several views of an image, and where the time of a step goes."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from common import data, model, plots, speedrun, train, utils


def pictures(count=200):
    """Images (N, 3, 32, 32) whose neighbouring pixels are alike, as in photographs."""
    small = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return F.interpolate(small, size=(32, 32), mode="bilinear")


def test_answers_of_whitening_filters_have_equal_variance_and_tell_different_things():
    images = pictures()
    images += 0.3 * torch.randn(
        images.shape, generator=torch.Generator().manual_seed(1)
    )  # so that no direction is flat
    answers = F.conv2d(images, speedrun.whitening(images)[:12]).transpose(0, 1).flatten(1)
    assert torch.allclose(torch.cov(answers), torch.eye(12), atol=0.02)


def test_whitening_filters_are_the_principal_components_of_the_patches():
    images = pictures()
    images += 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    patches = F.unfold(images, 2).transpose(1, 2).flatten(0, 1)
    found = speedrun.whitening(images)[:12].flatten(1)
    expected = torch.from_numpy(PCA().fit(patches.numpy()).components_)
    likeness = F.normalize(found) @ F.normalize(expected).T
    assert torch.allclose(likeness.abs().amax(dim=1), torch.ones(12), atol=0.01)  # but for order and sign


def test_each_whitening_filter_has_its_opposite():
    filters = speedrun.whitening(pictures())
    assert filters.shape == (24, 3, 2, 2)
    assert torch.equal(filters[:12], -filters[12:])


def test_whitening_copes_with_directions_in_which_nothing_varies():
    assert speedrun.whitening(torch.zeros(4, 1, 28, 28)).isfinite().all()


def test_filters_are_grey_where_they_are_zero_and_bright_where_they_are_positive():
    filters = torch.zeros(2, 3, 2, 2)
    filters[0, :, 0, 0], filters[0, :, 1, 1] = 0.1, -0.1
    filters[1, 0] = 3.0
    figure, alt = plots.color_filters(filters)
    first, second = (image.get_array() for image in figure.axes[0].images)
    assert (first[0, 0] == 1).all() and (first[1, 1] == 0).all() and (first[0, 1] == 0.5).all()
    assert (second == [1, 0.5, 0.5]).all()  # red
    assert "2 filters" in alt


def test_the_first_layer_of_the_hour_fits_the_filters():
    for channels in (1, 3):
        first = model.under_an_hour(channels=channels)[0]
        assert first.weight.shape == speedrun.whitening(torch.rand(8, channels, 32, 32)).shape


def test_views_answer_with_the_mean_over_shifted_and_mirrored_images():
    images = pictures(4)
    network = model.under_an_hour().eval()
    views = model.Views(network).eval()
    expected = []
    for shift in (-1, 0, 1):
        rows = (torch.arange(32) + shift).abs()  # -1 is the mirror image of 1
        rows[rows == 32] = 30
        moved = images[:, :, rows][:, :, :, rows]
        expected += [network(moved), network(moved.flip(3))]
    assert torch.allclose(views(images), torch.stack(expected).mean(dim=0), atol=1e-5)


def test_views_train_on_the_image_as_it_is():
    images = pictures(4)
    network = model.under_an_hour()
    views = model.Views(network)
    assert torch.allclose(views(images), network(images), atol=1e-5)


def test_pooling_first_gives_the_same_where_batch_norm_turns_nothing_round():
    block, images = model.ConvPoolBlock(3, 8, padding=1).eval(), pictures(4)
    conv, pool, norm, relu = block
    assert torch.allclose(block(images), pool(relu(norm(conv(images)))), atol=1e-5)
    norm.weight.data[:] = -1
    assert not torch.allclose(block(images), pool(relu(norm(conv(images)))), atol=1e-5)


@pytest.mark.parametrize(("variant", "parameters"), [("minute", 9_074), ("hour", 1_972_778), ("ledger", 1_972_778)])
def test_networks_of_the_records(variant, parameters):
    network = model.speedrun(variant)
    assert utils.count_parameters(network) == parameters
    size = (1, 28, 28) if variant == "minute" else (3, 32, 32)
    assert network(torch.rand(2, *size)).shape == (2, 10)


def test_time_of_a_step_is_shared_out_among_kinds_of_layers():
    network = nn.Sequential(model.ConvPoolBlock(1, 8), nn.Flatten(), nn.Linear(8 * 13 * 13, 10))
    images, labels = data.load("digits").test.images[:64].float() / 255, torch.zeros(64, dtype=torch.long)

    def step():
        F.cross_entropy(network(images), labels).backward()

    with FlopCounterMode(display=False) as counter:
        step()
    rows = {row["kind"]: row for row in speedrun.time_by_kind(step)}
    assert sum(row["flop"] for row in rows.values()) == counter.get_total_flops()
    assert {"convolutions", "batch norm", "pooling", "ReLU", "matrix products", "other"} == set(rows)
    assert all(row["seconds"] > 0 for row in rows.values())
    # two operations for each weight and place; its gradient takes as many, and nobody needs that of the image
    assert rows["convolutions"]["flop"] == 2 * 2 * 64 * 8 * 9 * 26 * 26


def test_matrix_speed_is_a_number_of_operations_a_second():
    assert 1e8 < utils.matrix_speed("cpu", size=256) < 1e15


@pytest.mark.parametrize(("speed", "used"), [(1, False), (3, True)])
def test_bfloat16_is_used_where_it_is_faster(monkeypatch, speed, used):
    speeds = {torch.float32: 2, torch.bfloat16: speed}
    monkeypatch.setattr(utils, "matrix_speed", lambda device, dtype=torch.float32, size=0: speeds[dtype])
    assert utils.has_bfloat16("cpu") == used


def test_an_orthogonal_gradient_has_the_same_directions_and_nearly_the_same_length_in_each():
    gradient = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    u, lengths, v = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    found = speedrun.orthogonal(gradient).flatten(1)
    assert lengths.max() > 1.5 * lengths.min()
    assert torch.allclose(torch.linalg.svdvals(found), torch.ones(8), atol=0.05)
    assert torch.allclose(found, u @ v, atol=0.05)


def test_an_orthogonal_gradient_points_where_pytorchs_muon_goes():
    weights = nn.Parameter(torch.zeros(16, 36))
    weights.grad = torch.randn(16, 36, generator=torch.Generator().manual_seed(0))
    found = speedrun.orthogonal(weights.grad.view(16, 4, 3, 3)).flatten()
    torch.optim.Muon([weights], lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0).step()
    assert F.cosine_similarity(-weights.detach().flatten(), found, dim=0) > 0.97


def test_an_orthogonal_gradient_does_not_depend_on_the_size_of_the_gradient():
    gradient = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(speedrun.orthogonal(1e-4 * gradient), speedrun.orthogonal(gradient), atol=1e-5)


def test_what_is_hardly_there_stays_short():
    strong = torch.outer(torch.tensor([1.0, 0, 0]), torch.ones(18)).view(3, 2, 3, 3)
    weak = 1e-4 * torch.outer(torch.tensor([0, 1.0, 0]), torch.arange(18) % 2 - 0.5).view(3, 2, 3, 3)
    norms = speedrun.orthogonal(strong + weak).flatten(1).norm(dim=1)
    assert norms[0] == pytest.approx(1, abs=0.01)
    assert norms[1] < 0.01 and norms[2] == 0


def step_of_a_small_network():
    """The weights of a small network before and after one step of the hour's optimiser, {name: (before, after)}."""
    utils.set_seed(0)
    network = nn.Sequential(model.ConvPoolBlock(1, 4), nn.Flatten(), nn.Linear(4 * 13 * 13, 10))
    before = {name: weights.detach().clone() for name, weights in network.named_parameters()}
    optimizer, _ = speedrun.one_cycle(network, range(10), 0.1, 2, 0.0, filter_lr=0.2)
    F.cross_entropy(network(torch.rand(8, 1, 28, 28)), torch.arange(8)).backward()
    optimizer.step()
    return {name: (before[name], weights.detach()) for name, weights in network.named_parameters()}


def test_filters_follow_orthogonal_gradients():
    before, after = step_of_a_small_network()["0.0.weight"]
    step = (before * len(before) ** 0.5 / before.norm() - after).flatten(1)
    across = step @ step.T
    assert torch.allclose(across, across[0, 0] * torch.eye(4), atol=0.05 * float(across[0, 0]))


def test_all_but_filters_follow_sgd_of_session_6():
    utils.set_seed(0)
    network = nn.Sequential(model.ConvPoolBlock(1, 4), nn.Flatten(), nn.Linear(4 * 13 * 13, 10))
    optimizer, _ = train.one_cycle(network, range(10), 0.1, 2, 0.0)
    F.cross_entropy(network(torch.rand(8, 1, 28, 28)), torch.arange(8)).backward()
    optimizer.step()
    found = step_of_a_small_network()
    for name, weights in network.named_parameters():
        assert torch.allclose(found[name][1], weights) == (name != "0.0.weight"), name
