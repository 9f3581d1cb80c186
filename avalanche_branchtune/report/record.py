"""The record of a comparison: the numbers, and how each of them was made."""

from __future__ import annotations

import csv
import json
import os
import platform
import resource
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "avalanche-lib", "solo-learn", "numpy", "scikit-learn")


@dataclass
class Curve:
    """One strategy's accuracies over a stream.

    :param name: the strategy.
    :param accuracies: share in [0, 1] after each experience.
    :param seconds: training time of each experience, in seconds.
    :param epochs: epochs of each experience.
    :param stability: likeness to the network before the last experience, on
        older data; see :func:`avalanche_branchtune.analysis.stability_plasticity`.
    :param plasticity: likeness to the jointly trained network, on new data.
    """

    name: str
    accuracies: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    epochs: int = 0
    stability: float | None = None
    plasticity: float | None = None

    @property
    def seconds_per_epoch(self) -> float | None:
        """Mean training time of an epoch, or None if nothing was trained."""
        epochs = self.epochs * len(self.seconds)
        return sum(self.seconds) / epochs if epochs else None


@dataclass
class Record:
    """A comparison of strategies on one stream, ready to be shown and saved.

    :param title: what was compared.
    :param protocol: how the accuracies were made.
    :param settings: data, schedule, seed.
    :param curves: one per strategy; one with a single accuracy is drawn as a
        level line (joint training, random network).
    :param environment: hardware and versions.
    """

    title: str
    protocol: str
    settings: dict[str, Any]
    curves: list[Curve]
    environment: dict[str, Any] = field(default_factory=lambda: environment())

    def table(self) -> str:
        """Return the comparison as text: a row per strategy, a column per experience."""
        experiences = max(len(c.accuracies) for c in self.curves)
        width = max(len(c.name) for c in self.curves)
        head = "".join(f"{f'exp {i}':>8}" for i in range(experiences))
        measured = any(c.stability is not None for c in self.curves)
        more = f"{'S':>8}{'P':>8}" if measured else ""
        lines = [f"{'accuracy in %':<{width}}{head}{more}{'s/epoch':>10}"]
        for c in self.curves:
            cells = [f"{100 * a:8.1f}" for a in c.accuracies]
            if len(cells) < experiences:  # measured once: the final column
                cells = [f"{'':8}"] * (experiences - len(cells)) + cells
            pace = f"{c.seconds_per_epoch:10.2f}" if c.seconds_per_epoch else f"{'':10}"
            if measured:
                cells += [
                    f"{'':8}" if x is None else f"{x:8.3f}" for x in (c.stability, c.plasticity)
                ]
            lines.append(f"{c.name:<{width}}{''.join(cells)}{pace}")
        return "\n".join(lines)

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Save ``results.json``, ``results.csv`` and ``curves.png``.

        :param folder: made if it does not exist.
        :return: the files.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / n for n in ("results.json", "results.csv", "curves.png")]
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        files[0].write_text(text + "\n", encoding="utf-8")
        with files[1].open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["strategy", "experience", "accuracy", "seconds"])
            for c in self.curves:
                for i, accuracy in enumerate(c.accuracies):
                    seconds = f"{c.seconds[i]:.3f}" if i < len(c.seconds) else ""
                    experience = i if len(c.accuracies) > 1 else "all"
                    writer.writerow([c.name, experience, f"{accuracy:.6f}", seconds])
        self.plot(files[2])
        return files

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw accuracy over experiences.

        :param path: picture file; its suffix chooses the format.
        """
        from matplotlib.figure import Figure  # no pyplot: no display, no global state

        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.add_subplot()
        experiences = max(len(c.accuracies) for c in self.curves)
        levels = iter([":", "--", "-."])
        for i, c in enumerate(self.curves):
            percent = [100 * a for a in c.accuracies]
            colour = f"C{i}"
            if len(percent) > 1:
                axes.plot(percent, marker="o", color=colour, label=c.name)
            else:
                style = next(levels, "-")
                axes.axhline(percent[0], linestyle=style, color=colour, label=c.name)
        axes.set_xticks(range(experiences), [f"after {i}" for i in range(experiences)])
        axes.set_xlabel("experience")
        axes.set_ylabel("accuracy in % (all classes)")
        figure.suptitle(self.title, fontsize=11)
        axes.grid(alpha=0.3)
        figure.legend(loc="outside upper center", ncols=len(self.curves), frameon=False)
        figure.supxlabel("\n".join(_wrapped(self.protocol, 100)), fontsize=7, color="0.35")
        figure.savefig(path, dpi=150)


def environment() -> dict[str, Any]:
    """Return hardware and versions, to stand beside every number.

    :return: a dictionary that can be written as JSON.
    """
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": versions,
    }


def peak_memory_mib() -> float:
    """Return the largest memory this process has held so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024**2 if sys.platform == "darwin" else peak / 1024


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width)
