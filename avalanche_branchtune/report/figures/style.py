"""What all figures have in common: colours, fonts, and how they are saved."""

from __future__ import annotations

import colorsys
import os
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import cycle
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from avalanche_branchtune.options import one_of
from avalanche_branchtune.report.formats import one_line
from avalanche_branchtune.report.groups import REFERENCES, Group
from avalanche_branchtune.writing import replacing

P = ParamSpec("P")
R = TypeVar("R")

WIDTH = 4.7
LABEL = 50  # characters of a label that fit into the width
FORMATS = ("svg", "png", "pdf")
# Okabe and Ito's colours, which the colour-blind can tell apart; yellow is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREYS = ("#8c8c8c", "#b3b3b3", "#000000", "#595959")  # of the references, in their order
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
GREY = "#595959"
FALLBACK_FONTS = (
    "Noto Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "Arial Unicode MS",
    "PingFang SC",
    "Microsoft YaHei",
)


@dataclass
class Picture:
    """A figure and what is said about it.

    :param key: name of its files, without suffix.
    :param figure: the figure.
    :param caption: what it shows, and how to read it.
    :param alt: what it says, for those who do not see it.
    :param strategy: that it is about alone, or None.
    """

    key: str
    figure: Figure
    caption: str
    alt: str
    strategy: str | None = None

    def __post_init__(self) -> None:
        """Leave out what a page cannot hold: names come from anywhere."""
        self.caption, self.alt = one_line(self.caption), one_line(self.alt)


@dataclass(frozen=True)
class Look:
    """How a line is told from the others: by colour, marker and dashes.

    :param colour: of line and marker.
    :param marker: at its points.
    :param dashes: of the line.
    """

    colour: Any
    marker: str
    dashes: Any


def looks(groups: Sequence[Group]) -> list[Look]:
    """Return the look of every strategy of a page, in which no colour comes twice.

    :param groups: all of the page; references are grey.
    """
    found, own = [], 0
    for i, group in enumerate(groups):
        if group.is_reference:
            colour = GREYS[REFERENCES.index(group.name)]
        else:
            colour, own = _colour(own), own + 1
        found.append(Look(colour, MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)]))
    return found


def _colour(i: int) -> str:
    """Return one of many colours: beyond the first ones, hues at the golden angle."""
    if i < len(COLOURS):
        return COLOURS[i]
    value = (0.45, 0.62, 0.78)[i % 3]
    red, green, blue = colorsys.hsv_to_rgb(i * 0.618034 % 1, 0.75, value)
    return str(to_hex((red, green, blue)))


def looks_in_order(count: int) -> list[Look]:
    """Return looks for things that follow one another, such as experiences: from dark to light.

    :param count: how many.
    """
    colours = matplotlib.colormaps["viridis"]
    shades = [colours(0.9 * i / max(1, count - 1)) for i in range(count)]
    return [Look(c, m, d) for c, m, d in zip(shades, cycle(MARKERS), cycle(DASHES), strict=False)]


def looks_of_classes(count: int) -> list[Look]:
    """Return looks for classes, which have no order.

    :param count: how many; more than 20 share colours.
    """
    colours = matplotlib.colormaps["tab10" if count <= 10 else "tab20"]
    return [Look(colours(i % colours.N), MARKERS[i % len(MARKERS)], "-") for i in range(count)]


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function under the settings of this report's figures.

    :param function: draws or saves; matplotlib's own settings stay as they are.
    """

    @wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(_settings()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            return function(*args, **kwargs)

    return inside


@styled
def save(picture: Picture, folder: str | os.PathLike[str]) -> bytes:
    """Write a figure as SVG, PNG and PDF; the same figure gives the same files.

    :param picture: the figure.
    :param folder: which exists.
    :return: the SVG.
    """
    for suffix in FORMATS:
        save_as(picture, Path(folder) / f"{picture.key}.{suffix}")
    return (Path(folder) / f"{picture.key}.svg").read_bytes()


@styled
def save_as(picture: Picture, path: Path) -> None:
    """Write a figure in the format of a file's suffix.

    :param picture: the figure.
    :param path: the file; its folder exists.
    :raises UnknownOptionError: for another suffix than those of :data:`FORMATS`.
    """
    unsaid: dict[str, dict[str, Any]] = {
        "svg": {"Date": None, "Creator": None},
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    suffix = one_of(f"{path}: suffix", path.suffix.removeprefix("."), FORMATS)
    with replacing(path) as temporary:
        picture.figure.savefig(temporary, dpi=200, metadata=unsaid[suffix])
    picture.figure.set_layout_engine(None)  # keep the first layout, and save its time


def figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure.

    :param height: in inches.
    :param width: in inches.
    """
    return Figure(figsize=(width, height), layout="constrained")


def legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str], columns: int = 2) -> None:
    """Put a legend below a figure.

    :param figure: which must have room for it.
    :param handles: lines.
    :param labels: any text, also with a leading underscore.
    :param columns: at most.
    """
    longest = max(len(label) for label in labels)
    if longest > LABEL // 2:
        columns = 1
    box = figure.legend(
        list(handles),
        [str(i) for i in range(len(labels))],
        loc="outside lower center",
        ncols=min(columns, len(labels)),
        frameon=False,
        handlelength=3,
    )
    for text, label in zip(box.get_texts(), labels, strict=True):
        text.set_text(wrapped(label, LABEL))


def legend_height(labels: Sequence[str], columns: int = 2) -> float:
    """Return the inches a legend needs.

    :param labels: as for :func:`legend`.
    :param columns: as for :func:`legend`.
    """
    if max(len(label) for label in labels) > LABEL // 2:
        return 0.19 * sum(1 + len(label) // LABEL for label in labels)
    return 0.19 * -(-len(labels) // columns)


def wrapped(text: str, width: int) -> str:
    """Break a long text into lines.

    :param text: any.
    :param width: characters in a line.
    """
    return "\n".join(textwrap.wrap(text, width)) or text


def whole_ticks(axes: Axes, count: int) -> None:
    """Number the horizontal axis from 0 by whole numbers.

    :param axes: to be numbered.
    :param count: how many there are.
    """
    if count <= 12:
        axes.set_xticks(range(count))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _settings() -> Any:
    installed = set(font_manager.fontManager.get_font_names())
    return {
        "font.family": ["DejaVu Sans", *(f for f in FALLBACK_FONTS if f in installed)],
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.labelsize": 9,
        "legend.fontsize": 9,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GREY,
        "axes.grid": False,
        "axes.axisbelow": True,
        "grid.color": "#d9d9d9",
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.6,
        "lines.markersize": 5,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "text.parse_math": False,  # a dollar in a name is a dollar
        "text.usetex": False,
        "svg.hashsalt": "branchtune",
        "svg.fonttype": "path",
        "pdf.fonttype": 42,
        "hatch.linewidth": 0.6,
    }
