"""A table as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence

from avalanche_branchtune.report.formats import MINUS, Table, slug, words

MOST_COLUMNS = 7
LONG_NAME = 24

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\texttt{\char34}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "[": "{[}",  # after a line's end it would begin an option
    "]": "{]}",
    "*": "{*}",
    "-": "{-}",  # two would be a dash
    "„": ",,",
    "‚": ",",
    "«": r"$\ll$",
    "»": r"$\gg$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "→": r"$\to$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "λ": r"$\lambda$",
    "τ": r"$\tau$",
    MINUS: "$-$",
    "\ufffd": "?",
}


def latex(table: Table) -> str:
    """Return a table as LaTeX, to be input; it needs the package booktabs.

    What is too wide for a page is broken into parts below one another.

    :param table: its cells may hold any text.
    """
    notes = " ".join(escaped(note) for note in table.notes)
    parts = _prose(table) if table.prose else _numbers(table)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{escaped(table.caption)}}}",
            rf"\label{{tab:{slug(table.key)}}}\par\smallskip",
            "\n\\par\\medskip\n".join(parts),
            *([rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {notes}}}"] if notes else []),
            r"\end{table}",
        ]
    )


def escaped(text: str) -> str:
    """Return a text as LaTeX shows it.

    :param text: any.
    """
    return "".join(_LATEX.get(c, c if c.isprintable() else "?") for c in text)


def _numbers(table: Table) -> list[str]:
    long = max(len(row[0]) for row in [table.head, *table.rows]) > LONG_NAME
    first, prefix = (r"p{0.25\linewidth}", r"\raggedright ") if long else ("l", "")
    parts = -(-(len(table.head) - 1) // MOST_COLUMNS)
    size = -(-(len(table.head) - 1) // parts)
    tabulars = []
    for begin in range(1, len(table.head), size):
        chosen = [0, *range(begin, min(begin + size, len(table.head)))]
        rows = [
            [
                prefix + escaped(row[0]),
                *(rf"\textbf{{{c}}}" if (r, i) in table.bold else c for i, c in cells),
            ]
            for r, row in enumerate(table.rows)
            for cells in [[(i, escaped(row[i])) for i in chosen[1:]]]
        ]
        head = [_stacked(table.head[i]) for i in chosen]
        tabulars.append(_tabular(first + "r" * (len(chosen) - 1), head, rows))
    return tabulars


def _prose(table: Table) -> list[str]:
    head, *rows = table.head, *table.rows
    columns = r"p{0.3\linewidth}p{0.62\linewidth}"
    if len(head) > 2:  # a line for each value: columns of text would be too narrow
        rows = [
            [row[0] if i == 1 else "", head[i], row[i]] for row in rows for i in range(1, len(head))
        ]
        head = [head[0], "of", "value"]
        columns = r"p{0.2\linewidth}p{0.3\linewidth}p{0.4\linewidth}"
    ragged = [[r"\raggedright " + _breakable(cell) for cell in row] for row in rows]
    for row in ragged:
        row[-1] += r"\tabularnewline"
    return [_tabular(columns, [escaped(cell) for cell in head], ragged)]


def _tabular(columns: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" & ".join(row) for row in rows]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *(line if line.endswith(r"\tabularnewline") else line + r" \\" for line in lines),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _breakable(text: str) -> str:
    """Allow long words to be broken after their punctuation."""
    pieces = (
        re.split(r"(?<=[_./,=(:-])", word) if len(word) > LONG_NAME else [word]
        for word in text.split(" ")
    )
    return " ".join(r"\allowbreak{}".join(map(escaped, some)) for some in pieces)


def _stacked(text: str) -> str:
    lines = [escaped(line) for line in words(text)]
    return lines[0] if len(lines) == 1 else r"\shortstack{" + r"\\".join(lines) + "}"
