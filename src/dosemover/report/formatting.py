"""Numbers and names as the report prints them."""

from __future__ import annotations

import math
import re
from pathlib import PureWindowsPath
from typing import Any

_START = r"(?:(?<=[\s'\"(\[=,;:])|^)"
_ABSOLUTE = re.compile(
    _START + r"(?:~|\.{1,2}|[A-Za-z]:)?[\\/](?:[^\s\\/'\",;:()]+[\\/])*([^\s\\/'\",;:()]+)"
)
_RELATIVE = re.compile(_START + r"(?:[\w.^+-]+[\\/])+([\w.^+-]+\.[A-Za-z]\w{0,7})")
"""Paths inside running text, without spaces."""

_WHOLE = re.compile(r"(?:~|\.{0,2}|[A-Za-z]:)[\\/].*|(?:[^\\/]+[\\/])+[^\\/]*\.[A-Za-z]\w{0,7}")
"""A whole string that is a path, with spaces or without."""


_POWER = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)e([+-]?\d+)(?!\.?\w)")
"""A number with a power of ten, and no file name."""

SMALLEST_MM = 1e-6
"""Distances below this are rounding, not movement [mm]."""


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: float | None, digits: int = 3) -> str:
    """A number with ``digits`` significant digits, in plain notation from 1e-4 to 1e6.

    Examples
    --------
    >>> number(0.83461), number(19243.2), number(-2.0), number(None)
    ('0.835', '19 243', '−2.00', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4 or exponent >= 6:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa} × 10{_superscript(int(power))}".replace("-", "−")
    text = f"{value:,.{max(digits - 1 - exponent, 0)}f}".replace(",", " ")
    return text.replace("-", "−")


def grouped(count: int) -> str:
    r"""A whole number with its thousands apart.

    Examples
    --------
    >>> grouped(28310)
    '28\xa0310'
    """
    return f"{count:,}".replace(",", "\N{NO-BREAK SPACE}")


def raised(text: str) -> str:
    """Running text whose numbers have raised powers of ten and real minus signs.

    Examples
    --------
    >>> raised("-6.3e-18 ± 3e-16"), raised("2e+06 Gy in run_1e6.mhd")
    ('−6.3 × 10⁻¹⁸ ± 3 × 10⁻¹⁶', '2 × 10⁶ Gy in run_1e6.mhd')
    """

    def power(match: re.Match[str]) -> str:
        return f"{match.group(1)} × 10{_superscript(int(match.group(2)))}"

    return re.sub(r"(?<![\w.])-(?=\d)", "−", _POWER.sub(power, text))


def _superscript(power: int) -> str:
    """An exponent in raised digits."""
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def percent(value: float | None) -> str:
    """A passing rate or share with one or two decimals, never rounded up to a full 100.

    Examples
    --------
    >>> percent(99.996), percent(100.0), percent(90.742), percent(0.4), percent(0.0004)
    ('99.99', '100', '90.7', '0.40', '< 0.01')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value in (0.0, 100.0):
        return f"{value:.0f}"
    if 0 < value < 0.005:
        return "< 0.01"
    decimals = 2 if abs(value) < 1 or 99 < value < 100 else 1
    if value < 100:
        value = min(value, 100 - 10.0**-decimals)
    return f"{value:.{decimals}f}".replace("-", "−")


def quantity(value: float | None, unit: str, *, digits: int = 3) -> str:
    """A number with its unit; percentages get fixed decimals, distances end at a nanometre.

    Examples
    --------
    >>> quantity(3.7412, "mm"), quantity(8.3e-14, "mm"), quantity(90.736, "%")
    ('3.74 mm', '< 10⁻⁶ mm', '90.7 %')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if unit == "mm" and 0 < abs(value) < SMALLEST_MM:
        return f"< 10⁻⁶ {unit}"
    text = percent(value) if unit == "%" else number(value, digits)
    return f"{text} {pretty_unit(unit)}" if unit else text


def pretty_unit(unit: str) -> str:
    """A unit with raised exponents: "Gy2" reads Gy²."""
    return unit.replace("mm3", "mm³").replace("cm3", "cm³").replace("Gy2", "Gy²").replace("^2", "²")


def p_value(p: float | None, *, smallest: bool = False) -> str:
    """A p value, never more precise than it is known; an upper limit where it is the smallest possible."""
    if p is None or not math.isfinite(p):
        return "–"
    if p < 0.001:
        return "p < 0.001"
    sign = "≤" if smallest else "="
    return f"p {sign} {p:.3f}" if p < 0.1 else f"p {sign} {p:.2f}"


def unbroken(text: str) -> str:
    r"""Text whose units stay on the line of their numbers.

    Examples
    --------
    >>> unbroken("moved by 0.8 mm, in all").split(" ")[2]
    '0.8\xa0mm,'
    """
    text = text.replace(" × 10", "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}10")
    return re.sub(r"(?<=[\d⁰¹²³⁴⁵⁶⁷⁸⁹]) (?=(?:mm|Gy|%)(?!\w))", "\N{NO-BREAK SPACE}", text)


def base_name(path: str) -> str:
    """File name without its folders, whichever way the slashes lean."""
    return PureWindowsPath(str(path)).name or str(path)


def public_text(text: str) -> str:
    """Running text with every file path cut down to its base name: folders are named after patients.

    Examples
    --------
    >>> public_text("read /data/Doe^Jane/dose.dcm with gamma 3/3")
    'read dose.dcm with gamma 3/3'
    """
    return _RELATIVE.sub(r"\1", _ABSOLUTE.sub(r"\1", text))


def public_value(text: str) -> str:
    """A setting's text: its base name where all of it is a path, else as `public_text`.

    Examples
    --------
    >>> public_value("runs/Jane Doe/a.mhd"), public_value("3/3,2/2")
    ('a.mhd', '3/3,2/2')
    """
    return base_name(text) if _WHOLE.fullmatch(text) else public_text(text)
