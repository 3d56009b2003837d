"""Types of command-line arguments that more than one command understands."""

from __future__ import annotations

import argparse
import math
from typing import Any


def positive(text: str) -> float:
    """A positive number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text!r}")
    return value


def not_negative(text: str) -> float:
    """A number that is 0 or positive."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"must be 0 or a positive number, got {text!r}")
    return value


def count(text: str) -> int:
    """A positive whole number; 1e6 is understood."""
    value = positive(text)
    if value != int(value):
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}")
    return int(value)


def draws(text: str) -> int:
    """A number of draws that have a spread."""
    value = count(text)
    if value < 2:
        raise argparse.ArgumentTypeError(
            f"must be 2 or more, got {text!r}: one draw has no spread, so that no floor could be told"
        )
    return value


def seed(text: str) -> int:
    """A whole number that is 0 or positive."""
    if not text.strip().isdecimal():
        raise argparse.ArgumentTypeError(f"must be 0 or a positive whole number, got {text!r}")
    return int(text)


def criteria(text: str) -> tuple[tuple[float, float], ...]:
    """Gamma criteria as 3/3,2/2: dose in %, distance in mm."""
    pairs = []
    for part in text.split(","):
        numbers = part.split("/")
        if len(numbers) != 2:
            raise argparse.ArgumentTypeError(
                f"must be pairs PERCENT/MM separated by commas, for example 3/3,2/2; got {text!r}"
            )
        pairs.append((positive(numbers[0]), positive(numbers[1])))
    return tuple(pairs)


def scale(text: str) -> Any:
    """A factor, match-integral or match-prescription."""
    if text in ("match-integral", "match-prescription"):
        return text
    try:
        return positive(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(
            f"must be a positive factor, match-integral or match-prescription; got {text!r}"
        ) from error


def names(text: str) -> tuple[str, ...]:
    """Comma-separated names."""
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found:
        raise argparse.ArgumentTypeError("must be at least one name")
    return found
