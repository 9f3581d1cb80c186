"""Each method's loss, shared by several processes: ``python -m benchmarks.shared_losses``.

Measures the solo-learn that is installed, writes ``results/shared-losses-<generation>.json``
beside this file, and makes ``docs/processes-methods.md`` anew from the results of all generations.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from avalanche_branchtune.records import environment
from solo_bridge import Processes
from solo_bridge.compat import load
from solo_bridge.spreading import whitening_layer
from tests.jobs import in_job
from tests.selfsupervised import ALL_METHODS, method
from tests.shared_runs import Run, all_trained, assert_equal_ranks, farthest

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "processes-methods.md"
SIZES = (2, 4)
SETTINGS = {"lr": 0.2}
SETUP = (
    "a two-convolution backbone (MAE: ViT-Tiny), 80 images of 8×8 in two experiences, minibatches "
    "of 20, 2 epochs of each, SGD, lr 0.2 for a batch of 256, small heads, views by solo-learn's "
    "pipelines; gloo on one machine, one thread for each process; seed 0, and another one in each "
    "rank, which is to have no effect"
)


def how(name: str) -> str:
    """Say where the ranks bring together what a loss compares."""
    model = method(name)
    _, projectors = model.spread_networks()
    if not projectors:
        return "mean over samples: nothing is brought together"
    if any(whitening_layer(projector) is not None for projector in projectors):
        return "embeddings, before the projector's whitening"
    return "embeddings, at the projector's end" + (", momentum too" if projectors[1:] else "")


def runs() -> list[Run]:
    """Every method: in double precision, in single, and in single with local norms."""
    double = [Run(name, settings=SETTINGS) for name in ALL_METHODS]
    local = {**SETTINGS, "processes": Processes(norms="local")}
    single = [replace(run, double=False) for run in double]
    return [*double, *single, *(replace(run, settings=local) for run in single)]


def tried(wanted: Sequence[Run]) -> list[Any]:
    logging.disable(logging.WARNING)
    return [all_trained([run])[0] for run in wanted]


def measure() -> dict[str, Any]:
    """Largest relative differences to one process, by method and number of processes."""
    wanted, count = runs(), len(ALL_METHODS)
    alone = tried(wanted)
    found: dict[str, Any] = {name: {"how": how(name)} for name in ALL_METHODS}
    for size in tqdm(SIZES):
        by_rank = in_job(size, tried, wanted)
        for number, run in enumerate(wanted):
            assert_equal_ranks([several[number] for several in by_rank])
            far, where = farthest(alone[number], by_rank[0][number])
            kind = ("double", "single", "local norms")[number // count]
            found[run.method].setdefault(kind, {})[str(size)] = {"far": far, "where": where}
    return found


def page(results: list[dict[str, Any]]) -> str:
    """The table of all generations, as Markdown."""
    lines = [
        "# Every method in several processes",
        "",
        "Made by `python -m benchmarks.shared_losses`; do not edit.",
        "",
        f"How: {SETUP}.",
        "",
        "Given is the largest difference of any weight or buffer to one process after either",
        "experience, relative to the largest number in that tensor (or to 0.001 if larger), in",
        "2 / 4 processes. In *double* precision all that is more than rounding is seen: so were",
        "gradients that were added up in single precision (1e-8), and a running variance over",
        "samples that were counted twice (3e-4). In *single* precision, in which one trains,",
        "rounding grows from step to step, by how much depends on the method. With *local norms*",
        "it is another training, as it should be, where there is a BatchNorm. The ranks' own",
        "weights and buffers were equal, bit by bit.",
    ]
    for result in results:
        e, versions = result["environment"], result["environment"]["versions"]
        lines += [
            "",
            f"## solo-learn {result['generation']}",
            "",
            f"{e['processor']}, {e['cores']} cores, no GPU; Python {e['python']}, torch "
            f"{versions['torch']}, Avalanche {versions['avalanche-lib']}.",
            "",
            "| method | the ranks bring together | double | single | local norms |",
            "| --- | --- | ---: | ---: | ---: |",
        ]
        for name, found in result["methods"].items():
            numbers = (
                " / ".join(f"{found[kind][str(size)]['far']:.0e}" for size in SIZES)
                for kind in ("double", "single", "local norms")
            )
            lines.append(f"| {name} | {found['how']} | {' | '.join(numbers)} |")
    lines += [
        "",
        "Random numbers that a network draws for its samples (MAE's masks, dropout, stochastic",
        "depth) are drawn for the whole minibatch by each rank, which takes its share's. Dropout",
        "within torch's fused attention is not: each rank drops the same places of its share.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    warnings.filterwarnings("ignore")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    torch.set_num_threads(1)
    result = {
        "generation": load().name,
        "setup": SETUP,
        "environment": environment(),
        "methods": measure(),
    }
    file = HERE / "results" / f"shared-losses-{load().name.replace(' ', '-')}.json"
    file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    every = sorted(file.parent.glob("shared-losses-*.json"))
    PAGE.write_text(page([json.loads(f.read_text("utf-8")) for f in every]), encoding="utf-8")


if __name__ == "__main__":
    main()
