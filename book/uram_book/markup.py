"""Pieces of a page: a table, and the scoreboard's pictures of effects as shares of the claimed ones."""

import pandas as pd

from .facts import SETTINGS
from .statistics import Estimate

SPAN = 2.0  # the scoreboard reaches from -SPAN to SPAN times the claimed effect
WIDTH, LINE = 300, 18  # of its pictures, in pixels


def along(share: float) -> float:
    """Where a share of the claimed effect lies in a picture of the scoreboard."""
    return round(WIDTH / 2 * (1 + 0.96 * min(max(share, -SPAN), SPAN) / SPAN), 1)


def svg(inside: str, words: str, height: int) -> str:
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return f'<svg class="strip" {size} role="img" aria-label="{words}">{inside}</svg>'


def strip(marks: dict[str, Estimate]) -> str:
    """Effects as shares of the claimed one: a mark and an interval for each preset, an arrow where it lies outside."""
    height, words = LINE * len(marks), []
    inside = "".join(f'<line class="{name}" x1="{along(at)}" x2="{along(at)}" y1="0" y2="{height}"/>'
                     for name, at in (("zero", 0), ("one", 1)))  # fmt: skip
    for i, (preset, found) in enumerate(marks.items()):
        y, share = LINE * (i + 0.5), found.mean / found.paper
        low, x, high = (along(end / found.paper) for end in (found.low, found.mean, found.high))
        if abs(share) > SPAN:
            base = x + (10 if share < 0 else -10)
            mark = f'<polygon points="{x},{y} {base},{y - 6} {base},{y + 6}"/>'
        elif preset == "paper":
            mark = f'<circle cx="{x}" cy="{y}" r="5"/>'
        else:
            mark = f'<rect x="{x - 4.5}" y="{y - 4.5}" width="9" height="9"/>'
        kind = found.verdict.replace(" ", "-")
        inside += f'<g class="{kind}"><line x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>{mark}</g>'
        words.append(f"{SETTINGS[preset]}: {share:.2f} times the claimed effect")
    return svg(inside, "; ".join(words), height)


def table_of(frame: pd.DataFrame, caption: str, look: str, widths: str = "") -> str:
    """A Markdown table with a caption. look: the class that the style sheet knows; widths: of the columns."""
    cells = [list(frame.columns), ["---"] * len(frame.columns), *frame.astype(str).to_numpy().tolist()]
    lines = "\n".join("| " + " | ".join(line) + " |" for line in cells)
    widths = f":widths: {widths}\n" if widths else ""
    return f"```{{table}} {caption}\n:class: {look}\n{widths}\n{lines}\n```\n"


ENDS = ((-2, "−2 ×"), (-1, "−1 ×"), (0, "0"), (1, "1 ×"), (2, "2 ×"))
AXIS = svg("".join(f'<text x="{along(at)}" y="13" text-anchor="middle">{text}</text>' for at, text in ENDS),
           "shares of the claimed effect", LINE)  # fmt: skip
