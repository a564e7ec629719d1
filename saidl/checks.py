"""What comes in from outside: a ValueError names the argument, what is allowed and what it was."""

import numbers
from collections.abc import Collection


class MissingData(FileNotFoundError, ValueError):
    """Data that are not where they should be."""


class NoNetwork(ConnectionError, ValueError):
    """Data that could not be fetched."""


def whole(name: str, value: int, least: int = 0) -> int:
    """The value, Python's or NumPy's, as an int. Raises ValueError for what is not a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return int(value)


def between(name: str, value: float, low: float, high: float, below: bool = False) -> float:
    """The value as a float. Raises ValueError for what is no real number in [low, high] (`below`: in [low, high)), NaN included."""
    fits = isinstance(value, numbers.Real) and not isinstance(value, bool) and low <= value <= high
    if not fits or (below and value == high):
        raise ValueError(f"{name} must be a number in [{low:g}, {high:g}{')' if below else ']'}, not {value!r}")
    return float(value)


def flag(name: str, value: bool) -> None:
    """Raises ValueError for what is neither True nor False ("no" would count as True, and 1 has another repr)."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}")


def one_of(name: str, value: str, allowed: Collection[str]) -> None:
    """Raises ValueError for a value that is not one of those allowed."""
    if value not in tuple(allowed):  # also for what has no hash
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def form(x) -> str:
    """What an argument is, for such a message: a tensor's type and shape, of anything else the class."""
    return f"{x.dtype} {tuple(x.shape)}" if hasattr(x, "detach") else type(x).__name__
