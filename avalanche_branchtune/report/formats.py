"""A table, and how it is shown as Markdown and as plain text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

MINUS, NONE = "−", "–"

_MARKDOWN = re.compile(r"([\\`*_{}\[\]|#~$])")


@dataclass(frozen=True)
class Table:
    """Cells as they are shown; the first column heads the rows.

    :param key: short name, for references.
    :param caption: what it shows.
    :param head: of the columns.
    :param rows: as wide as the head.
    :param notes: sentences below it.
    :param prose: whether the cells are text to be read, not numbers to be compared.
    :param bold: row and column of the cells that stand out.
    """

    key: str
    caption: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str]
    prose: bool = False
    bold: frozenset[tuple[int, int]] = frozenset()


def number(value: float, decimals: int = 1) -> str:
    """Return a number as every table and figure shows it, rounded half away from zero.

    Two ways to the same mean, or to the same percentage, differ in their last
    bits: 100 · 0.2825 is 28.249999999999996, 100 · (0.28 + 0.285) / 2 is
    28.250000000000004.  What differs so little is shown alike.

    :param value: finite.
    :param decimals: digits after the point.
    """
    text = f"{abs(value):.{decimals}f}"
    if abs(value) < 10**9:  # of more digits, a float has none to spare
        exact = Decimal(f"{abs(value):.12g}")
        text = f"{exact.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP):f}"
    return f"{MINUS}{text}" if value < 0 and float(text) else text


def one_line(text: str) -> str:
    """Return a text on one line, without characters that cannot be printed.

    :param text: any.
    """
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def slug(text: str) -> str:
    """Return a text as a part of a file's name: small letters, digits and hyphens.

    :param text: any; may come out empty.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40]


def markdown(table: Table) -> str:
    """Return a table as GitHub's Markdown.

    :param table: its cells may hold any text.
    """
    rule = ["---", *("---" if table.prose else "---:" for _ in table.head[1:])]
    head, *rows = ([markdown_text(cell) for cell in row] for row in [table.head, *table.rows])
    for r, c in table.bold:
        rows[r][c] = f"**{rows[r][c]}**"
    lines = [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]
    notes = "\n\n".join(markdown_text(note) for note in table.notes)
    return f"**{markdown_text(table.caption)}**\n\n" + "\n".join(lines) + f"\n\n{notes}".rstrip()


def plain(table: Table, most: int = 80) -> str:
    """Return a table for a terminal.

    :param table: its cells may hold any text.
    :param most: characters in a line; what is wider is broken into parts below
        one another.
    """
    heads = [words(cell, table.prose) for cell in table.head]
    tall = max(len(lines) for lines in heads)
    levels = list(zip(*([""] * (tall - len(lines)) + lines for lines in heads), strict=True))
    widths = [max(_width(row[i]) for row in [*levels, *table.rows]) for i in range(len(heads))]
    parts: list[list[int]] = [[0]]
    for i in range(1, len(heads)):
        if len(parts[-1]) > 1 and sum(widths[j] + 2 for j in parts[-1]) + widths[i] > most:
            parts.append([0])
        parts[-1].append(i)

    def line(row: Sequence[str], part: Sequence[int]) -> str:
        cells = []
        for i in part:
            gap = " " * (widths[i] - _width(row[i]))
            cells.append(row[i] + gap if i == 0 or table.prose else gap + row[i])
        return "  ".join(cells).rstrip()

    lines = [table.caption]
    for part in parts:
        rule = "-" * (sum(widths[i] + 2 for i in part) - 2)
        lines += ["", *(line(row, part) for row in levels), rule]
        lines += [line(row, part) for row in table.rows]
    return "\n".join(lines)


def markdown_text(text: str) -> str:
    """Return a text as Markdown shows it.

    :param text: any, on one line.
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", text)


def words(text: str, whole: bool = False) -> list[str]:
    """Split a column's head into lines: a word each, short ones with the next.

    :param text: of the head.
    :param whole: whether it stays one line.
    """
    lines: list[str] = []
    for word in [text] if whole else text.split():
        if lines and (len(word) <= 3 or len(lines[-1]) <= 3):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
