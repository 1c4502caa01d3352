"""Validation rules of options: each has its text for error messages and its predicate."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """What a field must be, in words and as a test of its value."""

    text: str
    is_kept: Callable[[Any], bool]


def one_of(*choices: str) -> Rule:
    """A value out of a few."""
    return Rule(f"one of {', '.join(choices)}", lambda value: value in choices)


def at_least(least: float) -> Rule:
    """A number not below `least`."""
    return Rule(f"at least {least}", lambda value: value >= least)


def above(bound: float) -> Rule:
    """A number greater than `bound`."""
    return Rule(f"greater than {bound}", lambda value: value > bound)


def within(least: float, greatest: float) -> Rule:
    """A number from `least` to `greatest`, both included."""
    return Rule(f"in {least}..{greatest}", lambda value: least <= value <= greatest)


def from_up_to(least: float, bound: float) -> Rule:
    """A number from `least`, included, up to `bound`, not included."""
    return Rule(f"at least {least} and less than {bound}", lambda value: least <= value < bound)


def positive_range(greatest: float = math.inf) -> Rule:
    """Two numbers greater than 0, the lesser first, none above `greatest`."""
    limit = "" if greatest == math.inf else f", at most {greatest}"
    return Rule(
        f"two numbers (least, greatest) greater than 0, in order{limit}",
        lambda value: (
            len(value) == 2 and all(math.isfinite(number) for number in value) and 0 < value[0] <= value[1] <= greatest
        ),
    )


def is_kept(rule: Rule, value: Any) -> bool:
    """Whether a value keeps a rule; one of another type does not."""
    try:
        return rule.is_kept(value)
    except TypeError:  # a value of another type, as a config file of one's own may have
        return False
