"""The figures of docs/evidence.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from avalanche_branchtune.report.figures.style import COLOURS, GREY, figure, styled
from solo_bridge.study.results import Results
from solo_bridge.study.statistics import ABOVE, BELOW, Difference, mean_and_deviation
from solo_bridge.study.text import MEASURES

SUPPORTED = {ABOVE: COLOURS[0], BELOW: COLOURS[1]}


@styled
def save(picture: Figure, path: Path) -> None:
    """Write a figure; the same figure gives the same file."""
    picture.savefig(path, metadata={"Date": None, "Creator": None})


@styled
def forest(
    rows: Sequence[tuple[str, Difference]], measure: str, reference: str, called: str | None = None
) -> Figure:
    """Paired differences with their intervals, one below the other; grey: undecided."""
    usual, unit, _ = MEASURES[measure]
    picture = figure(1.1 + 0.24 * len(rows), width=6.4)
    axes = picture.subplots()
    axes.axvline(0, color=GREY, linewidth=0.8)
    for place, (_, found) in enumerate(rows):
        colour = SUPPORTED.get(found.verdict, GREY)
        ends = [unit * found.low, unit * found.high]
        axes.plot(ends, [place, place], color=colour, linewidth=1.6)
        axes.plot(unit * found.mean, place, "o", color=colour, markersize=5)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.invert_yaxis()
    unit_name = "points" if unit == 100 else "CKA"
    axes.set_xlabel(f"{called or usual}: difference to {reference}, {unit_name}\ngrey: undecided")
    axes.grid(axis="x", linewidth=0.3)
    return picture


@styled
def over_epochs(
    series: Mapping[str, Mapping[int, Difference]], measure: str, reference: str
) -> Figure:
    """How differences change with the schedule: name → epochs → difference."""
    called, unit, _ = MEASURES[measure]
    picture = figure(3.2, width=6.4)
    axes = picture.subplots()
    axes.axhline(0, color=GREY, linewidth=0.8)
    for number, (name, points) in enumerate(series.items()):
        epochs = sorted(points)
        means = [unit * points[e].mean for e in epochs]
        below = [unit * (points[e].mean - points[e].low) for e in epochs]
        above = [unit * (points[e].high - points[e].mean) for e in epochs]
        shift = [e * 1.03 ** (number - len(series) / 2) for e in epochs]
        axes.errorbar(
            shift,
            means,
            [below, above],
            fmt="o-",
            markersize=4,
            capsize=2,
            label=name,
            color=COLOURS[number % len(COLOURS)],
        )
    every = sorted({e for points in series.values() for e in points})
    axes.set_xscale("log")
    axes.set_xticks(every, [str(e) for e in every])
    axes.minorticks_off()
    axes.set_xlabel("epochs of each experience")
    axes.set_ylabel(f"{called}: points above {reference}")
    axes.legend(frameon=False, fontsize="small")
    axes.grid(linewidth=0.3)
    return picture


@styled
def gains(points: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """What freezing wins over fine-tuning, and what Branch-tuning does: stream → runs' points."""
    picture = figure(4.0, width=6.4)
    axes = picture.subplots()
    every = [value for pairs in points.values() for pair in pairs for value in pair]
    ends = [100 * min(0, *every), 100 * max(0, *every)]
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.plot(ends, ends, color=GREY, linewidth=0.8, linestyle="--")
    for number, (name, pairs) in enumerate(points.items()):
        x, y = zip(*pairs, strict=True)
        axes.plot(
            [100 * one for one in x],
            [100 * one for one in y],
            "o",
            markersize=5,
            label=name,
            color=COLOURS[number % len(COLOURS)],
        )
    axes.set_xlabel("frozen after the first experience − fine-tuning, points")
    axes.set_ylabel("Branch-tuning − fine-tuning, points")
    axes.legend(frameon=False, fontsize="small")
    axes.grid(linewidth=0.3)
    return picture


@styled
def layers(results: Results, group: str, arms: Mapping[str, str]) -> Figure:
    """S and P of each layer, means over seeds: arm → label."""
    picture = figure(3.4, width=8.0)
    for axes, which, name in zip(picture.subplots(1, 2), (0, 1), ("S", "P"), strict=True):
        for number, (arm, label) in enumerate(arms.items()):
            rows = [r.layers for r in results.rows if (r.group, r.arm) == (group, arm)]
            names = [n for n in rows[0] if rows[0][n][which] is not None] if rows else []
            means = [mean_and_deviation([row[n][which] for row in rows])[0] for n in names]
            axes.plot(
                range(len(means)),
                means,
                ".-",
                linewidth=1,
                markersize=3,
                label=label,
                color=(*COLOURS, GREY)[number % 7],
            )
        axes.set_xlabel("layer, from input to output")
        axes.set_title({"S": "stability S", "P": "plasticity P"}[name], fontsize="medium")
        axes.grid(linewidth=0.3)
    axes.legend(frameon=False, fontsize="x-small")
    return picture
