"""Colours of many things in one picture."""

_NEXT = 0.618  # the golden section: however many hues there are, neighbours differ


def hue(number: int, *, first: float = 0.0) -> float:
    """Returns the hue, 0..1, of the thing of that number."""
    return (first + number * _NEXT) % 1
