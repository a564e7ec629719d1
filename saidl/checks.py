"""Numbers that come in from outside: a ValueError names the argument, what is allowed and what it was."""

import numbers


def whole(name: str, value: int, least: int = 0) -> int:
    """The value, Python's or NumPy's, as an int. Raises ValueError for what is not a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return int(value)


def between(name: str, value: float, low: float, high: float) -> float:
    """The value as a float. Raises ValueError for what is no real number in [low, high], NaN included."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not low <= value <= high:
        raise ValueError(f"{name} must be a number in [{low:g}, {high:g}], not {value!r}")
    return float(value)
