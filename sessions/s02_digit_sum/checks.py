"""Checks for the exercises of session 2: each says in one line what is right, or what to look at again."""

import torch

from common import checking
from common.checking import call, describe, given, number, numbers, require, tensor


def reading(right_at_7, right_when_precise, right_at_0):
    """Exercise 1: three shares in percent."""
    answers = {"right_at_7": right_at_7, "right_when_precise": right_when_precise, "right_at_0": right_at_0}
    shares = [number(name, value) for name, value in answers.items()]
    require(all(0 <= share <= 100 for share in shares), "shares are in percent, from 0 to 100.")
    require(max(shares) > 1, "shares are in percent: write a quarter as 25.")
    at_7, precise, at_0 = shares
    error = 0.1 / 0.6745 * torch.randn(100_000, generator=torch.Generator().manual_seed(0))  # half are below 0.1
    require(at_7 < 90, "`right_at_7` is too high: int() does not round. Which answers near 7 does it read as 7?")
    _check_share("right_at_7", at_7, (7 + error).int() == 7)
    require(precise <= 90, "`right_when_precise` is too high: what is int(6.999)?")
    _check_share("right_when_precise", precise, (7 + error / 10).int() == 7)
    require(at_0 > 90, "`right_at_0` is too low: int() cuts off the decimals, towards zero. What is int(-0.08)?")
    _check_share("right_at_0", at_0, error.int() == 0)
    print("Right: precision buys int() nothing, and the one sum that it reads well is 0.")


def _check_share(name, share, right):
    measured = 100 * right.double().mean()
    side = "low" if share < measured else "high"
    require(
        abs(share - measured) < 3, f"`{name}` is too {side}. Try int() on answers a little above and below the sum."
    )


def torn(best_for_squares, best_for_absolutes):
    """Exercise 2: the answer with the smallest mean squared error, and that with the smallest mean absolute error."""
    squares, absolutes = number("best_for_squares", best_for_squares), number("best_for_absolutes", best_for_absolutes)
    for name, value in {"best_for_squares": squares, "best_for_absolutes": absolutes}.items():
        require(value > 5, f"`{name}` is {value:g}: the network is asked for the sum, image and digit together.")
        require(value != 9, f"`{name}` is 9, as if both were equally likely.")
    require(
        squares != 6, "`best_for_squares` is the likelier sum; but squared, one error of 6 costs as much as 36 of 1."
    )
    require(
        abs(squares - (0.7 * 6 + 0.3 * 12)) < 0.05,
        "`best_for_squares`: some other number has a smaller mean. It need not be whole; how much does each sum count?",
    )
    moved = "to move away from the likelier sum costs seven tenths of the way, which is more than it saves"
    require(absolutes == 6, f"`best_for_absolutes`: {moved}.")
    print("Right: the squares make the network answer with a sum that is impossible; round() reads it as 8.")


def free_sums(sum_probabilities):
    """Exercise 3: a function from scores of labels and digits to probabilities of sums."""
    logits = 2 * torch.randn(10, 10, generator=torch.Generator().manual_seed(0))
    value = call("sum_probabilities", sum_probabilities, logits, torch.arange(10))
    answer = tensor("sum_probabilities(label_logits, numbers)", value, (10, 19))
    right = _moved(logits.softmax(dim=1), 1)
    over_images = _alike(answer, _moved(logits.softmax(dim=0), 1))
    require(not over_images, "your softmax goes over the images: it should go over the labels of each, dimension 1.")
    require(not _alike(answer, _moved(logits.softmax(dim=1), -1)), "you move the labels to the left; sums are larger.")
    adds = _alike(answer.sum(dim=1), torch.ones(10)) and answer.min() >= 0
    require(adds, "probabilities are not below 0, and the 19 of an image must add up to 1.")
    impossible = answer[right == 0].max() > 1e-6
    require(not impossible, "sums that cannot be have a probability: with the digit 2 none is below 2 or above 11.")
    require(_alike(answer, right), "only possible sums have a probability, but some have that of another label.")
    print("Right: 19 probabilities, and not a weight for them. The best sum is right as often as the best label.")


def _moved(labels, direction):
    """Row d of (10, 10) moved by d places, in 19."""
    wide = torch.cat([labels, torch.zeros(10, 9)], dim=1)
    return torch.stack([row.roll(direction * digit) for digit, row in enumerate(wide)])


def _alike(first, second):
    return torch.allclose(first.float(), second, atol=1e-5)


def same_digit(hidden_weight, hidden_bias, score_weight, score_bias):
    """Exercise 4: the weights of a network that tells whether two digits are the same."""
    given("hidden_weight", hidden_weight)
    rows = isinstance(hidden_weight, list | tuple) and len(hidden_weight) == 2
    require(rows, f"`hidden_weight` must be two lists of two numbers; it is {describe(hidden_weight)}.")
    weight = torch.tensor([numbers(f"hidden_weight[{unit}]", row, 2) for unit, row in enumerate(hidden_weight)])
    bias = torch.tensor(numbers("hidden_bias", hidden_bias, 2))
    votes = torch.tensor(numbers("score_weight", score_weight, 2))
    pairs = torch.cartesian_prod(torch.arange(10.0), torch.arange(10.0))  # (100, 2)
    scores = (pairs @ weight.T + bias).relu() @ votes + number("score_bias", score_bias)
    above, same, distance = scores > 0, pairs[:, 0] == pairs[:, 1], (pairs[:, 0] - pairs[:, 1]).abs()
    require(not torch.equal(above, ~same), "the score is the wrong way round: it tells which digits are not the same.")
    require((scores[same] != 0).all(), "the score of some equal digits is exactly 0: it must be above.")
    require((scores[~same] != 0).all(), "the score of some different digits is exactly 0: it must be below.")
    require(not torch.equal(above, distance <= 1), "the score is above 0 for neighbours too, such as 3 and 4.")
    larger, smaller = above[pairs[:, 0] > pairs[:, 1]], above[pairs[:, 0] < pairs[:, 1]]
    one_sided = larger.all() != smaller.all() and larger.any() != smaller.any()
    require(not one_sided, "your units see that one of the digits is larger, but not that the other one is.")
    for (a, b), score in zip(pairs[above != same], scores[above != same], strict=True):
        require(False, f"for the digits {a:g} and {b:g} the score is {score:g}.")
    print("Right for all 100 pairs, with two hidden units. A single line through the 10 x 10 pairs could not do it.")


def two_ways(prediction, labels_and_add, sums_directly, effect):
    """Exercise 5: a prediction, accuracies of at least five seeds each way, and their compare.Difference."""
    outcome = checking.experiment(prediction, "labels_and_add", labels_and_add, "sums_directly", sums_directly, effect)
    require(effect.points < 0, "learning the sums is much worse here: is `labels_and_add` made with learn_sums=False?")
    print(f"Right: {outcome}. Labels are 10, pairs of label and digit 100: each is seen a tenth as often.")
