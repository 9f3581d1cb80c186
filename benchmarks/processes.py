"""What several processes cost on one machine: ``python -m benchmarks.processes [--device cuda]``.

Jobs of 1, 2 and 4 processes train the second experience of a stream, the whole minibatch fixed or
the share of each.  Writes ``results/processes-<device>.json`` and the measured tables of
``docs/processes.md``; ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import sys
import time
import warnings
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from avalanche.core import SupervisedPlugin

from avalanche_branchtune import ranks
from avalanche_branchtune.records import environment
from avalanche_branchtune.streams import data_incremental, digits_on_photographs
from benchmarks.scaling import table, written
from benchmarks.steps import SIZES
from solo_bridge import Augmentation, Processes, SoloMethod, build
from tests.jobs import in_job

HERE = Path(__file__).parent
SEED = 0
STEPS = {"small ResNet": 7, "ResNet-18": 3, "ResNet-18 on a GPU": 30}
"""Of the experience that is measured; the first interval between two of them is not counted."""

JOBS = {
    "small ResNet": [(1, 128), (2, 128), (4, 128), (2, 256)],
    "ResNet-18": [(1, 16), (2, 16), (2, 32)],
    "ResNet-18 on a GPU": [(1, 256), (2, 256), (4, 256), (2, 512), (4, 1024)],
}
"""Size of :data:`benchmarks.steps.SIZES` → processes, and images in the whole minibatch."""

FORMS: dict[str, tuple[str, str]] = {
    "fine-tuning": ("fine_tuning", "synchronised"),
    "fine-tuning, local norms": ("fine_tuning", "local"),
    "Branch-tuning": ("branch_tuning", "synchronised"),
    "Branch-tuning, local norms": ("branch_tuning", "local"),
    "CaSSLe": ("cassle", "synchronised"),
    "Kaizen + replay": ("kaizen+replay", "synchronised"),
}
"""Name → specification, and norms."""

LARGE = ("fine-tuning", "fine-tuning, local norms", "Branch-tuning")
"""Forms of the larger network."""

PROTOCOL = (
    "SimCLR, two batched views of images in memory, SGD, float32; experience 2 of 2; one thread a "
    "process. Jobs of different size take turns, forms take turns within a job; *ms*: on the wall, "
    "from one step to the next, the median over steps and rounds, of the first process; *CPU*: all "
    "processes' CPU time for a step, and by that of one process for as many images; "
    "*waiting*: the share of the step in which the first process sent or waited for others"
)


class Clock(SupervisedPlugin[Any], supports_distributed=True):
    """Notes time and traffic before each step; the first experience it ends after two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[tuple[float, float, Any]] = []

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.device.type == "cuda":
            torch.cuda.synchronize()
        mark = time.perf_counter(), time.process_time(), copy.deepcopy(dict(ranks.traffic))
        self.marks.append(mark)

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.clock.train_exp_counter == 0 and strategy.experience.current_experience == 0:
            strategy.stop_training()


def made(size: str) -> SoloMethod:
    """Return a method whose weights depend on the size alone."""
    make, pixels, _ = SIZES[size]
    torch.manual_seed(SEED)
    views = [Augmentation(crop_size=pixels, num_crops=2)]
    return SoloMethod("simclr", make(), image_size=pixels, num_classes=10, augmentations=views)


def trained(size: str, form: str, batch: int, device: str) -> list[tuple[float, float, Any]]:
    """Train a form of a size, and return the marks of the second experience."""
    spec, norms = FORMS[form]
    pixels, samples = SIZES[size][1], 2 * batch * STEPS[size]
    data = digits_on_photographs(True, size=pixels, samples=samples, seed=SEED)
    stream = data_incremental(data, digits_on_photographs(False, size=pixels), 2, seed=SEED)
    clock = Clock()
    strategy = build(
        spec,
        made(size),
        options={"replay": {"size": 64, "batch_size_mem": 32}} if "replay" in spec else None,
        plugins=[clock],
        optimizer="sgd",
        lr=0.06,
        views="batched",
        reproducible_views=True,
        train_mb_size=batch,
        train_epochs=1,
        evaluator=None,
        device=device,
        processes=Processes(norms=norms),
    )
    first, second = stream.train_stream
    if spec != "fine_tuning":
        strategy.train(first)
    clock.marks.clear()
    strategy.train(second)
    return clock.marks


def job(size: str, forms: list[str], batch: int, device: str) -> dict[str, Any]:
    """In each process: seconds, CPU seconds and traffic of the steps of all forms."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    found: dict[str, Any] = {}
    for form in forms:
        marks = trained(size, form, batch, device)[1:]
        steps = list(pairwise(marks))
        before, after = marks[0][2], marks[-1][2]
        nothing = ranks.Traffic()
        sent = {
            kind: {
                "calls": (t.calls - before.get(kind, nothing).calls) / len(steps),
                "bytes": (t.payload - before.get(kind, nothing).payload) / len(steps),
                "ms": 1000 * (t.seconds - before.get(kind, nothing).seconds) / len(steps),
            }
            for kind, t in after.items()
        }
        found[form] = {
            "ms": [1000 * (b[0] - a[0]) for a, b in steps],
            "cpu": [1000 * (b[1] - a[1]) for a, b in steps],
            "sent": {kind: s for kind, s in sent.items() if s["calls"]},
        }
    return found


def measure(sizes: list[str], rounds: dict[str, int], device: str) -> dict[str, Any]:
    """Let jobs take turns; return size → form → job → what a step costs."""
    found: dict[str, Any] = {}
    for size in sizes:
        forms = [form for form in FORMS if size == "small ResNet" or form in LARGE]
        jobs = [(p, b) for p, b in JOBS[size] if device == "cpu" or p <= torch.cuda.device_count()]
        taken: dict[tuple[int, int], list[Any]] = {one: [] for one in jobs}
        for i in range(rounds[size]):
            for processes, batch in jobs:
                turn = forms[i % len(forms) :] + forms[: i % len(forms)]
                taken[processes, batch].append(in_job(processes, job, size, turn, batch, device))
                print(f"{size}: round {i}, {processes} processes, {batch} images", file=sys.stderr)
        found[size] = {
            form: {f"{p} × {b // p}": summary(form, taken[p, b]) for p, b in jobs} for form in forms
        }
    return found


def summary(form: str, rounds: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Return medians over rounds of what the processes found; of traffic the first one's."""
    first = [by_rank[0][form] for by_rank in rounds]
    kinds = list(first[0]["sent"])
    return {
        "ms": round(median(ms for found in first for ms in found["ms"]), 1),
        "CPU ms": round(
            median(
                sum(steps)
                for by_rank in rounds
                for steps in zip(*(found[form]["cpu"] for found in by_rank), strict=True)
            ),
            1,
        ),
        "sent": {
            kind: {
                "calls": round(median(f["sent"][kind]["calls"] for f in first), 1),
                "bytes": round(median(f["sent"][kind]["bytes"] for f in first)),
                "ms": round(median(f["sent"][kind]["ms"] for f in first), 2),
            }
            for kind in kinds
        },
        "waiting": round(
            median(
                sum(s["ms"] for s in f["sent"].values()) * len(f["ms"]) / sum(f["ms"])
                for f in first
            ),
            3,
        ),
    }


def tables(content: dict[str, Any]) -> str:
    """Return what was measured, as Markdown."""
    e = content["environment"]
    versions = ", ".join(f"{name} {v}" for name, v in e["versions"].items())
    quiet = content["load"][0] < 1  # else times on the wall are other programs'
    counted = ", ".join(f"{n} of {size}" for size, n in content["counted"].items())
    lines = [
        f"{content['protocol']}. {e['gpu'] or e['processor']}, {e['cores']} cores, {versions}, "
        f"gloo; seed {SEED}; steps counted: {counted}; {content['minutes']} minutes in all.",
        "",
    ]
    if not quiet:
        lines += [
            f"**Other programs were running** (load {content['load'][0]:.0f} on {e['cores']} "
            "cores): times on the wall, and so speed-up and waiting, would be theirs and are left "
            "out here. CPU time is dearer for it too, above all of a message: it wakes a process.",
            "",
        ]
    for size, forms in content["steps"].items():
        pixels = SIZES[size][1]
        head = [f"{size}, {pixels} pixels", "processes × images"]
        head += ["ms", "speed-up", "waiting"] if quiet else []
        head += ["CPU ms", "CPU", "messages", "KiB"]
        rows = []
        for form, jobs in forms.items():
            alone = {int(name.split(" × ")[1]): m for name, m in jobs.items() if name[0] == "1"}
            for name, m in jobs.items():
                processes, share = map(int, name.split(" × "))
                whole = processes * share
                one = next(iter(alone.values()))
                images = whole / next(iter(alone))  # by one process, in time, is as many times one
                sent = m["sent"].values()
                row = [form, name]
                if quiet:
                    row += [m["ms"], f"{one['ms'] * images / m['ms']:.2f}", f"{m['waiting']:.0%}"]
                row += [m["CPU ms"], f"{m['CPU ms'] / (one['CPU ms'] * images):.2f}"]
                if processes > 1:
                    row.append(f"{sum(s['calls'] for s in sent):.0f}")
                    row.append(f"{sum(s['bytes'] for s in sent) / 1024:,.0f}")
                rows.append([*row, *["–"] * (len(head) - len(row))])
        lines += table(head, rows)
        two = next(name for name in next(iter(forms.values())) if name[0] == "2")
        kinds = list(dict.fromkeys(k for f in forms.values() for k in f[two]["sent"]))
        rows = [
            [form, *(_kind(jobs[two]["sent"].get(kind)) for kind in kinds)]
            for form, jobs in forms.items()
        ]
        lines += [f"What one of {two} gives to others in a step, KiB (messages):", ""]
        lines += table([size, *kinds], rows)
    return "\n".join(lines)


def _kind(sent: dict[str, float] | None) -> str:
    return "–" if sent is None else f"{sent['bytes'] / 1024:,.1f} ({sent['calls']:g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=3, help="of the small network's jobs")
    parser.add_argument("--quick", action="store_true", help="one round, and nothing is written")
    parser.add_argument("--page", action="store_true", help="the page alone, of what was measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    on_cpu, begin, load = options.device == "cpu", time.perf_counter(), os.getloadavg()[0]
    file = HERE / "results" / f"processes-{options.device}.json"
    if not options.page:
        rounds = (
            {"small ResNet": options.rounds, "ResNet-18": 1}
            if on_cpu
            else {"ResNet-18 on a GPU": 3}
        )
        if options.quick:
            rounds = dict.fromkeys(rounds, 1)
        content: dict[str, Any] = {
            "protocol": PROTOCOL,
            "seed": SEED,
            "environment": environment(),
            "steps": measure(list(rounds), rounds, options.device),
            "counted": {size: rounds[size] * (STEPS[size] - 2) for size in rounds},
            "load": [load, os.getloadavg()[0]],
            "minutes": round((time.perf_counter() - begin) / 60, 1),
        }
        print(tables(content))
        if options.quick:
            return
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    files = sorted(file.parent.glob("processes-*.json"))
    written("measured", "\n".join(tables(json.loads(f.read_text("utf-8"))) for f in files))


if __name__ == "__main__":
    main()
