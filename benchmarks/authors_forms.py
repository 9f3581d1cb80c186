"""What the authors' procedures changed.

``python -m benchmarks.authors_forms --before A --after B``: each folder holds the records of
``branchtune compare`` over several seeds, A by what the plugins did before, B by what their
authors' code does.  Writes ``results/authors-forms.json`` and ``docs/authors_forms.md``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from avalanche_branchtune.evaluation.probe import sentence
from avalanche_branchtune.records import Run
from avalanche_branchtune.report import group_runs

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "authors-forms.json"
PAGE = ROOT / "docs" / "authors_forms.md"
PROBE = "kNN"
BEFORE = {
    "CaSSLe": 'CaSSLePlugin(halves="one", predictor="new")',
    "LUMP": 'LUMPPlugin(views="before_augmentation")',
    "PFR": 'PFRPlugin(weight=25.0, hidden=2048, predictor="new")',
}
"""By which options the plugins still do what they did."""
REFERENCES = ("frozen", "fine-tuning", "joint")


def final(runs: list[Run]) -> list[float]:
    """Return final accuracies in percent, by seed."""
    runs = sorted(runs, key=lambda run: run.seed or 0)
    return [round(100 * run.probes[PROBE].overall[-1], 1) for run in runs]


def text(values: list[float]) -> str:
    each = " ".join(f"{value:.1f}" for value in values)
    return f"{mean(values):.1f} ± {stdev(values):.1f} ({each})"


def page(content: dict[str, Any]) -> str:
    machine = content["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    lines = [
        "# What the authors' procedures changed",
        "",
        "Made by `python -m benchmarks.authors_forms`. The plugins did something of their own once",
        "and do what their authors' code does now; what they did is an option. Final accuracy in",
        "percent, mean ± standard deviation over seeds (and each seed). One small network, one",
        "small stream, short schedules: it shows what the change does here, and supports no claim",
        "of a paper.",
        "",
        "| strategy | before | as their authors run it | what it did before |",
        "| --- | ---: | ---: | --- |",
    ]
    for name, rows in content["final accuracy"].items():
        if name in BEFORE:
            lines.append(
                f"| {name} | {text(rows['before'])} | {text(rows['after'])} | `{BEFORE[name]}` |"
            )
    lines += ["", "| reference | |", "| --- | ---: |"]
    lines += [
        f"| {name} | {text(content['final accuracy'][name]['before'])} |" for name in REFERENCES
    ]
    lines += [
        "",
        *(f"- {key}: {value}" for key, value in content["settings"].items()),
        f"- seeds: {', '.join(map(str, content['seeds']))}",
        f"- machine: {machine['processor']}, {machine['cores']} cores of which one was used, no "
        f"GPU; {versions}",
        f"- probe {PROBE}: {sentence(content['protocol'])}",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", required=True, help="folder of the older records")
    parser.add_argument("--after", required=True, help="folder of the newer records")
    options = parser.parse_args()
    before, after = (
        {group.name: list(group.runs) for group in group_runs([folder])}
        for folder in (options.before, options.after)
    )
    runs = [run for group in before.values() for run in group]
    own = ("strategy", "specification", "caveat")
    content = {
        "commits": {"before": "dbdfc69", "after": "32ffeb3"},
        "settings": {k: v for k, v in runs[0].settings.items() if k not in own},
        "seeds": sorted({run.seed for run in runs}),
        "protocol": runs[0].probes[PROBE].protocol,
        "environment": runs[0].environment,
        "final accuracy": {
            name: {
                "before": final(group),
                **({"after": final(after[name])} if name in BEFORE else {}),
            }
            for name, group in sorted(before.items())
        },
    }
    RESULTS.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(content), encoding="utf-8")


if __name__ == "__main__":
    main()
