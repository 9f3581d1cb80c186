"""The paper's protocol: ``python -m benchmarks.paper --device cuda --out runs/paper``.

Branch-tuning (arXiv 2403.18266) on CIFAR-100, in 5 experiences of 20 classes (``--experiences 10``:
10 of 10): SimCLR, BYOL, Barlow Twins and MoCo v2+, each fine-tuned, in branches, with CaSSLe, with
both, and trained jointly, for three seeds: 60 runs, which started again go on.  ``OUT/paper.md``
has what was found and, beside it, what was published.

All arms have the preset ``branch_tuning/cifar100``: it has all four methods and all five
strategies, so that within a method they differ in nothing else.  ``cassle/cifar100`` has no MoCo
v2+ and for the others the same settings but for weight decay, which is 0 in Branch-tuning's code
and 1e-5 or 1e-4 in CaSSLe's (docs/presets.md).  ``--preset`` takes any other, and then its methods
and strategies.

CIFAR-100 is downloaded to ``data`` unless it is there; ``--data cifar100:DIR`` is another place for
it, ``--data DIR`` a folder with ``train/<class>`` and ``test/<class>``.  The online classifier of
``--probes`` is part of CaSSLe's protocol, and BatchNorm's statistics see its images; without it
(``--probes knn,linear``) training is Branch-tuning's and the neighbours' alone.

``--estimate`` measures, on random images unless there is ``--data``, a step of each method and arm
and one evaluation on this machine, and gives hours.  Known so far: SimCLR fine-tuned took 15.2 ms a
step on an H200 (batch 256, ResNet-18, bfloat16, not compiled), views not included: its 5 x 500
epochs of 39 steps are 97,500 steps, 25 minutes.  Not in it: views, the online classifier,
evaluation and checkpoints; the other methods and strategies, of which only branches were measured
there (a step took 1.13 times as long).
"""

from __future__ import annotations

import argparse
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from avalanche_branchtune.errors import BranchTuneError, MissingDirectoryError
from avalanche_branchtune.records import environment
from avalanche_branchtune.report.formats import NONE, Table, markdown, number, plain
from avalanche_branchtune.streams import ArrayImages, cifar100, class_incremental
from avalanche_branchtune.writing import write_text
from solo_bridge.apart import stoppable
from solo_bridge.comparison import Comparison, published
from solo_bridge.comparison.scenarios import CIFAR100
from solo_bridge.presets import preset
from solo_bridge.study import Plan, Results, collect, run_study
from solo_bridge.study import estimate as estimates
from solo_bridge.study.plan import plan_of
from solo_bridge.study.statistics import mean_and_deviation
from solo_bridge.study.text import MEASURES, tables

PRESET = "branch_tuning/cifar100"
METHODS = ("simclr", "byol", "barlow_twins", "mocov2plus")
ARMS = ("fine_tuning", "branch_tuning", "cassle", "branch_tuning+cassle", "joint")
PUBLISHED = {
    "simclr": (48.92, 53.21, 58.3, 59.0, 65.8),
    "byol": (52.7, 57.92, 62.2, 63.1, 70.5),
    "barlow_twins": (54.3, 57.15, 60.4, 60.9, 70.9),
    "mocov2plus": (47.3, 52.68, 59.5, 60.7, 69.9),
}
"""Final accuracies in 5 experiences, of :data:`ARMS`: arXiv 2403.18266, its main table."""
CLASS_SEED = 5
"""Of the order of the classes, one for all runs: DonkeyShot21/cassle b5b0929, main_pretrain.py."""
LABEL = "published; probe as in the source, sources differ"


UNTOLD = ("strategies", "seeds", "jobs", "hours", "out", "estimate", "steps")
"""Options on which no result depends, or that a record has anyway."""


def joined(value: Any) -> str:
    return shlex.quote(",".join(map(str, value)) if isinstance(value, list) else str(value))


def words_of(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def numbers_of(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def options_of(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default=PRESET, help=f"see branchtune presets ({PRESET})")
    parser.add_argument("--methods", type=words_of, help="joined by commas")
    parser.add_argument("--strategies", type=words_of, help="joined by commas")
    parser.add_argument("--seeds", type=numbers_of, default=[0, 1, 2], help="joined by commas")
    parser.add_argument("--probes", type=words_of, default=["knn", "linear", "online"])
    parser.add_argument("--data", help=f"DIR with train/ and test/, or {CIFAR100}DIR")
    for name, what in {
        "epochs": "of each experience",
        "batch": "images in a minibatch",
        "size": "of the images in pixels",
        "experiences": "of the stream",
    }.items():
        parser.add_argument(f"--{name}", type=int, help=f"{what} (default: the preset's)")
    parser.add_argument("--per-class", type=int, help="training images (default: all)")
    parser.add_argument("--test-per-class", type=int, help="test images (default: all)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="of the data loader")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--hours", type=float, help="after which no run is begun")
    parser.add_argument("--out", default="runs/paper", help="folder of the runs")
    parser.add_argument("--estimate", action="store_true", help="measure steps, and train nothing")
    parser.add_argument("--steps", type=int, default=estimates.STEPS, help="that it measures")
    return parser.parse_args(words)


def plan(options: argparse.Namespace) -> Plan:
    """Return the runs that are asked for."""
    found = preset(options.preset)
    asked = {name: getattr(options, name) for name in published.sizes(found)}
    sizes = published.sizes(found) | {k: v for k, v in asked.items() if v is not None}
    epochs = sizes.pop("epochs")
    data = options.data
    if data is None and found.data == "CIFAR-100":
        data = f"{CIFAR100}data"
    more = {"data": data, "per_class": options.per_class, "test_per_class": options.test_per_class}
    fixed = {"workers": options.workers, "class_seed": CLASS_SEED}
    given: dict[str, Any] = {"preset": found.name, **sizes, **fixed, **more}
    name = f"{found.name.replace('/', '-')}-{sizes['experiences']}"
    made = plan_of(
        {
            "question": f"The protocol of {found.title}, on {data}.",
            "streams": {name: given},
            "methods": options.methods or [m for m in METHODS if m in found.methods],
            "epochs": epochs,
            "seeds": options.seeds,
            "probes": options.probes,
            "device": options.device,
            "arms": dict.fromkeys(options.strategies or found.strategies),
        }
    )
    told = {name: value for name, value in vars(options).items() if name not in UNTOLD}
    words = [
        f"--{name.replace('_', '-')} {joined(value)}"
        for name, value in told.items()
        if value is not None
    ]
    command = f"python -m benchmarks.paper {' '.join(words)}"
    return replace(made, streams={name: {**given, "command": command}})


def random_stream(comparison: Comparison) -> Any:
    """Return a stream of as many images as CIFAR-100 has, or a part of it."""
    random = np.random.default_rng(0)

    def images(per_class: int) -> ArrayImages:
        labels = np.arange(100).repeat(per_class).tolist()
        pixels = random.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
        return ArrayImages(pixels, labels, [0] * len(labels))

    parts = images(comparison.per_class or 500), images(comparison.test_per_class or 100)
    return class_incremental(*parts, comparison.experiences, eval_transform=comparison.eval_view)


def measure(plan: Plan, options: argparse.Namespace) -> str:
    """Return what the runs would take here."""
    machine = environment()
    where = machine["gpu"] if options.device.startswith("cuda") else machine["processor"]
    print(f"{options.steps} steps of each experience on {options.device}: {where}", file=sys.stderr)
    stream_of, kind = Comparison.stream, options.data
    if options.data is None:
        stream_of = random_stream
        kind = f"random images, {options.per_class or 500} of each of 100 classes"
    found, evaluation = estimates.estimate(
        plan,
        stream_of,
        options.steps,
        lambda one: print(f"{one.group}/{one.arm}: {one.seconds / 3600:.2f} h", file=sys.stderr),
    )
    shown = plain(estimates.table(found, evaluation, len(plan.seeds)), 120)
    return (
        f"{shown}\n\n{where}, {machine['threads']} threads, torch {machine['versions']['torch']}; "
        f"data: {kind}; medians, views and plugins included.  An evaluation took "
        f"{evaluation:.1f} s, on features of a network that has hardly learnt, without S and P.  "
        "Not included: checkpoints, and the start of each run."
    )


def beside(results: Results, asked: Plan) -> list[Table]:
    """Return a table for each method with published figures of this stream, ours beside them."""
    found = []
    for job in {job.group: job for job in asked.jobs()}.values():
        comparison = job.comparison
        same = comparison.preset == PRESET and comparison.experiences == 5
        if not same or comparison.method not in PUBLISHED:
            continue
        measured = {m: results.values(job.group, m) for m in ("linear", "online")}
        measured = {m: values for m, values in measured.items() if values}
        if not measured:
            continue
        rows = [
            [arm, *(shown(values.get(arm, {})) for values in measured.values()), str(figure)]
            for arm, figure in zip(ARMS, PUBLISHED[comparison.method], strict=True)
        ]
        head = ["arm", *(f"found: {MEASURES[m][0]}" for m in measured), LABEL]
        overridden = comparison.overridden()
        changed = ", ".join(f"{k} {v}" for k, v in overridden.items()) or "nothing"
        if overridden.keys() - {"precision"}:
            changed += ": the columns cannot be compared"
        own = comparison.data is not None and comparison.data.startswith(CIFAR100)
        taken_for = "" if own else " (compare only if these are CIFAR-100's images)"
        notes = [
            "Final accuracies in percent on all classes. Published: arXiv 2403.18266, CIFAR-100 in "
            "5 experiences of 20 classes, 500 epochs each, the number of seeds not known here. "
            f"Found: data {comparison.stream_facts()['data']}{taken_for}; overridden: {changed}."
        ]
        caption = f"{comparison.method}: found here, and published"
        found.append(Table(f"beside-{comparison.method}", caption, head, rows, notes))
    return found


def shown(seeds: dict[int, float]) -> str:
    if not seeds:
        return NONE
    mean, deviation = mean_and_deviation([100 * value for value in seeds.values()])
    spread = "" if deviation is None else f" ± {number(deviation)}"
    return f"{number(mean)}{spread} ({len(seeds)} seed{'s' * (len(seeds) > 1)})"


def download(data: str) -> None:
    """Download CIFAR-100, if it is asked for and not there."""
    if not data.startswith(CIFAR100):
        return
    try:
        cifar100(data.removeprefix(CIFAR100), download=True)
    except MissingDirectoryError as error:
        raise MissingDirectoryError(
            f"{error}; or pass --data DIR, which holds train/<class> and test/<class>"
        ) from error


def train(plan: Plan, options: argparse.Namespace) -> int:
    (stream,) = plan.streams.values()
    download(stream["data"] or "")
    out = Path(options.out)
    state = run_study(
        plan,
        out,
        jobs=options.jobs,
        hours=options.hours,
        done=lambda run: print(f"{run.name}, seed {run.seed}: finished", file=sys.stderr),
    )
    results = collect(plan, out)
    results.save(out / "paper.json")
    parts = [tables(results), *(f"{markdown(table)}\n" for table in beside(results, plan))]
    write_text(out / "paper.md", "\n".join(parts))
    print("\n".join(parts), out / "paper.md", sep="\n")
    return 1 if state.failed else 0


def main(words: Sequence[str] | None = None) -> int:
    """Return the exit status: 0, 1 if runs failed, 2 for what is not there or cannot be."""
    options = options_of(words)
    warnings.filterwarnings("ignore")  # Avalanche's and Lightning's, about their own insides
    try:
        with stoppable():
            if options.estimate:
                print(measure(plan(options), options))
                return 0
            return train(plan(options), options)
    except KeyboardInterrupt as error:
        print(f"{error or 'interrupted'}; started again it goes on", file=sys.stderr)
        return int(getattr(error, "status", 130))
    except (BranchTuneError, OSError) as error:
        print(f"benchmarks.paper: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
