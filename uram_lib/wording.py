"""Numbers and lists as a reader sees them, on pages and in notebooks."""

import math


def signed(value: float) -> str:
    """With two decimals, or three where two would be 0.00: an interval may end just beside 0."""
    decimals = 3 if 0.0005 <= abs(value) < 0.005 else 2
    return f"{value:+.{decimals}f}".replace("-", "−") if math.isfinite(value) else "–"


def span(low: float, high: float, form=lambda value: f"{value:.2f}") -> str:
    return f"[{form(low)},\u00a0{form(high)}]"  # never broken over two lines


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
