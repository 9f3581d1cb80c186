"""The method in a picture: ``python docs/figures/method.py`` draws it anew beside this file.

Three panels, expansion, training and compression, one below the other for narrow pages and side by
side for wide ones, each for light and for dark pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

KERNEL: Values = np.array([[-0.4, 0.5, 0.1], [0.6, 0.9, -0.5], [0.2, -0.6, 0.3]])
ROW: Values = np.array([[0.5, -0.4, 0.6]])
COLUMN: Values = np.array([[0.4], [0.3], [-0.7]])
"""A kernel and what its 1×k and its k×1 branch have learnt, in a picture's numbers."""

WIDTH, HEIGHT = 300, 372
CELL = 27
COLOURS = {
    "light": {
        "ink": "#1c1e21",
        "soft": "#5c6370",
        "line": "#8a919e",
        "accent": "#c2410c",
        "frozen": "#3b6ea5",
        "card": "#f6f7f9",
        "edge": "#d5d9e0",
        "zero": "#ffffff",
        "plus": "#e0701a",
        "minus": "#3f7fc1",
    },
    "dark": {
        "ink": "#e8eaed",
        "soft": "#a8b0bd",
        "line": "#7d8592",
        "accent": "#fb923c",
        "frozen": "#7fb2e8",
        "card": "#1d2127",
        "edge": "#3a414c",
        "zero": "#15181c",
        "plus": "#f08a3c",
        "minus": "#4f93d8",
    },
}


def padded(branch: Values) -> Values:
    """Return a branch's kernel, centred in a kernel of k×k."""
    whole = np.zeros_like(KERNEL)
    top, left = ((k - b) // 2 for k, b in zip(KERNEL.shape, branch.shape, strict=True))
    whole[top : top + branch.shape[0], left : left + branch.shape[1]] = branch
    return whole


MERGED: Values = KERNEL + padded(ROW) + padded(COLUMN)


class Drawing:
    """Elements of an SVG picture in the colours of one theme."""

    def __init__(self, theme: str) -> None:
        self.colour = COLOURS[theme]
        self.parts: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 13,
        colour: str = "ink",
        bold: bool = False,
    ) -> None:
        """Write a centred line."""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{self.colour[colour]}"'
            f'{weight} text-anchor="middle">{words}</text>'
        )

    def path(
        self,
        points: Sequence[tuple[float, float]],
        *,
        colour: str = "line",
        arrow: bool = False,
        dashed: bool = False,
    ) -> None:
        """Draw a line through points, with a head at its end if it is an arrow."""
        steps = " L".join(f"{x:g} {y:g}" for x, y in points)
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.parts.append(
            f'<path d="M{steps}" fill="none" stroke="{self.colour[colour]}" '
            f'stroke-width="1.6"{dash}/>'
        )
        if arrow:
            (x0, y0), (x, y) = points[-2:]
            length = float(np.hypot(x - x0, y - y0))
            u, v = (x - x0) / length, (y - y0) / length
            sides = [(x - 7 * u - 4 * v, y - 7 * v + 4 * u), (x - 7 * u + 4 * v, y - 7 * v - 4 * u)]
            head = " L".join(f"{a:.1f} {b:.1f}" for a, b in [(x, y), *sides])
            self.parts.append(f'<path d="M{head} Z" fill="{self.colour[colour]}"/>')

    def kernel(self, x: float, y: float, values: Values, *, cell: float = CELL, frame: str) -> None:
        """Draw a kernel centred at (x, y): orange above zero, blue below, empty at zero."""
        rows, columns = values.shape
        left, top = x - columns * cell / 2, y - rows * cell / 2
        for (row, column), value in np.ndenumerate(values):
            place = f'x="{left + column * cell:g}" y="{top + row * cell:g}"'
            size = f'width="{cell:g}" height="{cell:g}"'
            fill, seen = self.colour["plus" if value > 0 else "minus"], min(1.0, abs(value))
            self.parts.append(f'<rect {place} {size} fill="{self.colour["zero"]}"/>')
            if value:
                self.parts.append(f'<rect {place} {size} fill="{fill}" fill-opacity="{seen:.2f}"/>')
            self.parts.append(f'<rect {place} {size} fill="none" stroke="{self.colour["edge"]}"/>')
        dash = "" if values.any() else ' stroke-dasharray="4 3"'
        self.parts.append(
            f'<rect x="{left:g}" y="{top:g}" width="{columns * cell:g}" height="{rows * cell:g}" '
            f'rx="2" fill="none" stroke="{self.colour[frame]}" stroke-width="2"{dash}/>'
        )

    def lock(self, x: float, y: float) -> None:
        """Draw a padlock: what stands still."""
        colour = self.colour["frozen"]
        self.parts.append(
            f'<rect x="{x - 5:g}" y="{y - 2:g}" width="10" height="8" rx="1.5" fill="{colour}"/>'
            f'<path d="M{x - 3:g} {y - 2:g} v-2.5 a3 3 0 0 1 6 0 v2.5" fill="none" '
            f'stroke="{colour}" stroke-width="1.6"/>'
        )

    def box(self, x: float, y: float, width: float, words: str, *, colour: str) -> None:
        """Draw a box around a line of text."""
        self.parts.append(
            f'<rect x="{x - width / 2:g}" y="{y - 13:g}" width="{width:g}" height="26" rx="5" '
            f'fill="{self.colour["card"]}" stroke="{self.colour[colour]}" stroke-width="1.6"/>'
        )
        self.text(x, y + 4.5, words, size=12.5)

    def card(self, number: int, title: str, *lines: str) -> None:
        """Draw the panel's ground, its title and what it says."""
        self.parts.append(
            f'<rect x="4" y="4" width="{WIDTH - 8}" height="{HEIGHT - 8}" rx="10" '
            f'fill="{self.colour["card"]}" stroke="{self.colour["edge"]}"/>'
        )
        self.text(WIDTH / 2, 30, f"{number}. {title}", size=16, bold=True)
        for place, line in enumerate(lines):
            self.text(WIDTH / 2, 50 + 16 * place, line, size=12.5, colour="soft")


def layer(drawing: Drawing, row: Values, column: Values, state: str) -> None:
    """Draw a branched convolution: input above, output below."""
    learns = state == "learns"
    middles = (64, 168, 250)
    drawing.text(150, 93, "x", size=15, bold=True)
    drawing.path([(150, 98), (150, 109)])
    drawing.path([(middles[0], 109), (middles[2], 109)])
    for x, top in zip(middles, (120, 147, 120), strict=True):
        drawing.path([(x, 109), (x, top)], arrow=True)
    drawing.kernel(middles[0], 162, KERNEL, frame="frozen")
    for x, branch in zip(middles[1:], (row, column), strict=True):
        drawing.kernel(x, 162, branch, frame="accent")
    for x, words in zip(middles, ("k×k", "1×k", "k×1"), strict=True):
        drawing.text(x, 222, words, size=13, bold=True)
    drawing.lock(38, 235)
    drawing.text(71, 239, "frozen", size=12.5, colour="frozen")
    for x in middles[1:]:
        drawing.text(x, 239, state, size=12.5, colour="accent", bold=learns)
    for x in middles:
        drawing.path([(x, 246), (x, 257)])
    drawing.path([(middles[0], 257), (middles[2], 257)])
    drawing.path([(150, 257), (150, 268)], arrow=True)
    drawing.parts.append(
        f'<circle cx="150" cy="277" r="9" fill="{drawing.colour["card"]}" '
        f'stroke="{drawing.colour["line"]}" stroke-width="1.6"/>'
    )
    drawing.path([(145, 277), (155, 277)])
    drawing.path([(150, 272), (150, 282)])
    drawing.path([(150, 286), (150, 299)], arrow=True)
    drawing.box(150, 313, 214, "BatchNorm: weight, bias", colour="frozen")
    drawing.lock(61, 312)
    drawing.path([(150, 327), (150, 339)], arrow=True)
    drawing.text(150, 355, "y", size=15, bold=True)


def expansion(drawing: Drawing) -> None:
    """Before an experience."""
    drawing.card(1, "Expansion", "each convolution gets branches", "of zeros: y does not change")
    layer(drawing, np.zeros_like(ROW), np.zeros_like(COLUMN), "zero")


def training(drawing: Drawing) -> None:
    """During the experience."""
    drawing.card(
        2, "Training", "the kernel stands still, branches learn;", "gradients pass through both"
    )
    layer(drawing, ROW, COLUMN, "learns")


def compression(drawing: Drawing) -> None:
    """After the experience."""
    drawing.card(
        3, "Compression", "branches are added to their kernels:", "y still does not change"
    )
    kernels = (
        (KERNEL, "frozen", "k×k"),
        (padded(ROW), "accent", "1×k"),
        (padded(COLUMN), "accent", "k×1"),
    )
    for x, (values, frame, words) in zip((55, 150, 245), kernels, strict=True):
        drawing.kernel(x, 124, values, cell=22, frame=frame)
        drawing.text(x, 176, words, size=13, bold=True)
    for x in (102.5, 197.5):
        drawing.path([(x - 6, 124), (x + 6, 124)], colour="ink")
        drawing.path([(x, 118), (x, 130)], colour="ink")
    drawing.path([(150, 186), (150, 206)], arrow=True)
    drawing.kernel(150, 254, MERGED, frame="ink")
    drawing.text(150, 312, "k×k", size=13, bold=True)
    drawing.text(150, 335, "one convolution again: the same", size=12.5, colour="soft")
    drawing.text(150, 351, "names, size and cost as before", size=12.5, colour="soft")


def picture(theme: str, wide: bool) -> str:
    """Return the picture as SVG.

    :param theme: ``"light"`` or ``"dark"``.
    :param wide: whether the panels stand side by side.
    """
    panels = []
    for place, draw in enumerate((expansion, training, compression)):
        drawing = Drawing(theme)
        draw(drawing)
        x, y = (place * WIDTH, 0) if wide else (0, place * HEIGHT)
        panels.append(f'<g transform="translate({x} {y})">\n' + "\n".join(drawing.parts) + "\n</g>")
    width, height = (3 * WIDTH, HEIGHT) if wide else (WIDTH, 3 * HEIGHT)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" '
        'font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif">\n'
        "<title>Branch-tuning: expansion, training, compression</title>\n"
        + "\n".join(panels)
        + "\n</svg>\n"
    )


def pictures() -> dict[str, str]:
    """Return every file's name and content."""
    return {
        f"method-{'wide' if wide else 'narrow'}-{theme}.svg": picture(theme, wide)
        for wide in (True, False)
        for theme in COLOURS
    }


if __name__ == "__main__":
    for name, content in pictures().items():
        (Path(__file__).parent / name).write_text(content, encoding="utf-8")
