"""What the checks of the exercises share: helpful sentences instead of stack traces."""

import linecache
import math
import traceback
from numbers import Real

import torch

from common import compare


class NotYet(Exception):  # noqa: N818  an answer that is not right yet is not an error
    """An exercise is not solved yet. The message is a sentence that helps; a notebook shows only this sentence."""

    def _render_traceback_(self):
        """What IPython shows, as a list of lines."""
        return [f"Not yet: {self}"]


def require(condition, sentence):
    """Raise NotYet with this sentence unless the condition holds."""
    if not condition:
        raise NotYet(sentence)


def given(name, value):
    """Raise NotYet if the learner has not answered yet."""
    require(value is not None and value is not ..., f"there is nothing yet in `{name}`: put your answer in.")


def number(name, value):
    """The answer `value` as a float; raises NotYet if it is not a finite number."""
    given(name, value)
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    fits = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    require(fits, f"`{name}` must be a number; it is {describe(value)}.")
    return float(value)


def agrees(name, answer, right, hint, apart=0.0):
    """Raise NotYet, with the hint, unless the number `answer` is `right`, up to `apart`."""
    require(abs(answer - right) <= apart, f"your {name} is {answer:g}, which is not right yet: {hint}.")


def numbers(name, value, count):
    """The answer `value`, a list or tuple of `count` numbers, as floats; raises NotYet if it is something else."""
    given(name, value)
    fits = isinstance(value, list | tuple) and len(value) == count
    require(fits, f"`{name}` must be a list of {count} numbers; it is {describe(value)}.")
    return [number(f"{name}[{position}]", item) for position, item in enumerate(value)]


def choice(name, value, words):
    """The answer `value`; raises NotYet if it is not one of these words."""
    given(name, value)
    known = isinstance(value, str) and value in words
    require(known, f"`{name}` must be {' or '.join(repr(word) for word in words)}; it is {describe(value)}.")
    return value


def tensor(name, value, shape):
    """The answer `value`; raises NotYet if it is not a tensor of this shape with finite numbers."""
    given(name, value)
    fits = isinstance(value, torch.Tensor) and value.shape == torch.Size(shape)
    require(fits, f"`{name}` must be a tensor of shape {tuple(shape)}; it is {describe(value)}.")
    require(value.isfinite().all(), f"`{name}` has numbers that are not finite.")
    return value


def call(name, function, *arguments):
    """What the learner's function returns; raises NotYet if it is not a function, fails or returns nothing."""
    given(name, function)
    require(callable(function), f"`{name}` must be a function; it is {describe(function)}.")
    try:
        value = function(*arguments)
    except Exception as error:
        raise NotYet(f"`{name}` {_stopped(function, error)}") from None
    require(value is not None, f"`{name}` returns nothing yet: write it, and do not forget `return`.")
    return value


def _stopped(function, error):
    """Where in the learner's function an error was raised, and which."""
    message = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    code = getattr(function, "__code__", None)
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code is code:
            text = linecache.getline(code.co_filename, line).strip()
            return f"stops in its line {line - code.co_firstlineno + 1}, `{text}`: {message}"
    return f"cannot be called as the exercise says: {message}"


def describe(value):
    """An answer in a few words: a short one itself, a tensor by its shape, anything else by its type."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, list | tuple) and len(value) > 10:
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"a {type(value).__name__}"


def experiment(points, before_name, before, after_name, after, effect):
    """How a prediction of `points` turned out, in words; the other arguments are those of difference()."""
    given("prediction", points)
    return prediction(points, difference(before_name, before, after_name, after, effect))


def difference(before_name, before, after_name, after, effect):
    """The compare.Difference of two lists of accuracies, five seeds or more each; NotYet if `effect` is another."""
    lists = {before_name: before, after_name: after}
    for name, value in lists.items():
        given(name, value)
        require(isinstance(value, list | tuple), f"`{name}` must be a list of accuracies; it is {describe(value)}.")
        require(len(value) >= 5, f"`{name}` has {len(value)}: few runs say little about the noise; take five or more.")
        fits = all(0 <= accuracy <= 1 for accuracy in numbers(name, value, len(value)))
        require(fits, f"`{name}` must have accuracies from 0 to 1.")
    require(list(before) != list(after), f"`{before_name}` and `{after_name}` are the same numbers.")
    given("effect", effect)
    right = compare.difference(before, after)
    turned = effect != right and effect == compare.difference(after, before)
    require(not turned, "`effect` is the wrong way round: before comes first.")
    require(effect == right, f"`effect` must be what compare.difference gives; it is {describe(effect)}.")
    return right


def prediction(points, effect):
    """How the predicted difference `points`, in percentage points, turned out; NotYet if it is no such number."""
    points = number("prediction", points)
    require(-100 <= points <= 100, "`prediction` must be in percentage points, from -100 to 100.")
    outcome = "inside" if effect.low <= points <= effect.high else "outside"
    return f"predicted {points:+g}, measured {effect.points:+.1f}; {outcome} the interval"


def verdict(effect, said):
    """Raise NotYet unless `said`, "better", "worse" or "cannot tell", follows from the Difference `effect`."""
    nothing = said is None or said is ...
    what = "what does the interval allow to say?"
    require(not nothing, f"you measured {effect}. There is nothing yet in `verdict`: {what}")
    right = "better" if effect.low > 0 else "worse" if effect.high < 0 else "cannot tell"
    fits = choice("verdict", said, ("better", "worse", "cannot tell")) == right
    sides = "Look at both ends of the interval: on which side of 0 are they?"
    require(fits, f"the verdict '{said}' does not follow from {effect}. {sides}")
