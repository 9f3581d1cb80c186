"""Runs that are killed, and what differs at their end: ``python -m benchmarks.killed``.

Kills small runs of every kind with SIGKILL, lets each go on until it has ended, compares all that
it left with the run that was not killed, and writes ``results/killed.json`` and
``docs/checkpoints.md``.  About three minutes on one core.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from avalanche_branchtune.records import environment
from tests.killed_runs import (
    END,
    KINDS,
    SUPERVISED,
    Kill,
    attempted,
    compare,
    drawn,
    killed,
)
from tests.killed_writing import MOMENTS, ONCE

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "killed.json"
PAGE = ROOT / "docs" / "checkpoints.md"
SEED = 0
MOST = "Kaizen + replay"
"""Which is also killed fifty times."""

FAULTS = {
    "a replay buffer that a checkpoint had given was left out of the next one, and was empty in a "
    "run that went on twice between two updates of it": (
        "tests/solo_bridge/test_killed_runs.py",
        "test_a_buffer_that_was_restored_is_saved_again",
    ),
    "features were known by the addresses that data sets had in the process that ended: the run "
    "that went on could judge by another data set's": (
        "tests/avalanche_branchtune/evaluation/test_features.py",
        "test_a_data_set_at_the_address_that_another_had",
    ),
    "checkpoints held these features": (
        "tests/solo_bridge/test_killed_runs.py",
        "test_features_are_computed_again",
    ),
    "the record of a run that goes on could not be read if it was killed between its two files": (
        "tests/avalanche_branchtune/records/test_journal.py",
        "test_a_run_that_goes_on_can_be_read_between_any_two_writings",
    ),
    "the temporary file of a checkpoint or of a record that was being written stayed for ever": (
        "tests/solo_bridge/test_killed_runs.py",
        "test_at_three_moments",
    ),
}
"""What the kills found, and the test that failed before it was mended."""


def whole(kind: str, folder: Path) -> tuple[int, float]:
    """Run without a kill; return steps and seconds."""
    begin = time.perf_counter()
    attempted(kind, folder, None)
    seconds = time.perf_counter() - begin
    return torch.load(folder / END, weights_only=True)["clock"][0], seconds


def measure(kind: str, expected: Path, folder: Path, kills: list[Kill]) -> dict[str, Any]:
    found = killed(kind, folder, kills)
    compared, differing = compare(expected, folder)
    at_writing = [kill for kill in found.killed if kill.moment is not None]
    return {
        "kills": len(found.killed),
        "in_writing": len(at_writing),
        "within": found.within,
        "compared": compared,
        "differing": differing,
    }


def row(name: str, found: dict[str, Any]) -> str:
    outside = found["kills"] - found["in_writing"]
    different = ", ".join(found["differing"]) or "none"
    return (
        f"| {name} | {outside} | {found['in_writing']} | {found['within']} | "
        f"{found['compared']:,} | {different} |"
    )


def page(content: dict[str, Any]) -> str:
    machine = content["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    moments = content["moments"]
    every = {
        "kills": sum(m["kills"] for m in moments.values()),
        "in_writing": sum(m["in_writing"] for m in moments.values()),
        "within": sum(m["within"] for m in moments.values()),
        "compared": sum(m["compared"] for m in moments.values()),
        "differing": [name for m in moments.values() for name in m["differing"]],
    }
    lines = [
        "# Runs that are killed",
        "",
        "Made by `python -m benchmarks.killed`; do not edit. Small runs (two convolutions, 100",
        "images of 8×8 or fewer, 3 or 5 experiences of 2 epochs, 40 or 48 steps) with",
        "`Checkpoints(resume=True, every_epochs=1)` and `RunRecorder(resume=True)`, float32, one",
        "thread. Their process is killed with SIGKILL, a new one goes on, until the run has ended:",
        "at random moments, from outside, and at moments of writing: before a file is begun, at",
        "half of it, when all of it is written, when it is in its place, when an old one is",
        "removed; of checkpoints, their index, `run.json`, its journal and `metrics.csv`. After",
        "each kill the record is read.",
        "",
        "Compared with the run that was not killed: every weight and buffer, the optimizer, the",
        "random states of Python, NumPy and torch, what `eval` returned, steps and experiences",
        "that were trained, every field of `run.json`, every line of `metrics.csv`, the features",
        "of the sample, and which files there are. Of times and of memory only how many they are.",
        "",
        "| run | killed at random moments | in writing | went on within a call | compared | "
        "different |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
        *(row(name, found) for name, found in content["kinds"].items()),
        row(f"{MOST}, fifty times", content["fifty"]),
        row(f"{SUPERVISED}: {len(moments)} runs, one for each moment of writing", every),
        "",
        "What the kills found, and the test that failed before it was mended:",
        "",
        *(f"- {what}: `{test}` in `{file}`" for what, (file, test) in FAULTS.items()),
        "",
        f"- seed: {content['seed']}; moments from outside are drawn from it, and differ with the "
        "machine's pace",
        f"- machine: {machine['processor']}, {machine['cores']} cores of which one was used, no "
        f"GPU; Python {machine['python']}, {versions}",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    content: dict[str, Any] = {"seed": SEED, "environment": environment(), "kinds": {}}
    with tempfile.TemporaryDirectory() as top:
        wholes = {kind: Path(top) / kind / "whole" for kind in KINDS}
        paces = {kind: whole(kind, folder) for kind, folder in tqdm(wholes.items())}
        for kind in tqdm(KINDS):
            kills = drawn(10, 5, SEED, *paces[kind])
            content["kinds"][kind] = measure(kind, wholes[kind], Path(top) / kind / "10", kills)
        kills = drawn(50, 10, SEED, *paces[MOST])
        content["fifty"] = measure(MOST, wholes[MOST], Path(top) / MOST / "50", kills)
        content["moments"] = {
            moment: measure(
                SUPERVISED,
                wholes[SUPERVISED],
                Path(top) / SUPERVISED / f"moment {i}",
                [Kill(5), Kill(0 if moment in ONCE else 20, moment=moment)],
            )
            for i, moment in enumerate(tqdm(MOMENTS))
        }
    RESULTS.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(content), encoding="utf-8")


if __name__ == "__main__":
    main()
