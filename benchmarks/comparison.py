"""All strategies on the embedded stream: ``python -m benchmarks.comparison [--epochs 6]``.

Runs what ``branchtune compare`` does and writes ``results/comparison-digits.json`` and
``docs/comparison.md``; ``--runs FOLDER`` takes the records of a comparison that was run already.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from avalanche_branchtune.evaluation.probe import sentence
from avalanche_branchtune.records import Run
from avalanche_branchtune.report import group_runs
from avalanche_branchtune.report.formats import markdown
from avalanche_branchtune.report.tables import cost_table, overall_table, summary_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "comparison-digits.json"
PAGE = ROOT / "docs" / "comparison.md"


def row(run: Run) -> dict[str, Any]:
    """What one run found, without its layers and matrices."""

    def mean(series: list[dict[str, float]]) -> float | None:
        last = series[-1] if series else {}
        return round(sum(last.values()) / len(last), 4) if last else None

    probes = {
        name: {
            "overall": [round(a, 4) for a in probe.overall],
            **{k: round(v, 4) for k, v in probe.summary(run.n_experiences).items()},
        }
        for name, probe in run.probes.items()
    }
    return {
        "name": run.name,
        "probes": probes,
        "stability": mean(run.stability),
        "plasticity": mean(run.plasticity),
        "seconds": round(sum(run.seconds), 1),
        "evaluation_seconds": round(sum(run.evaluation_seconds), 1),
        "peak_memory_mib": round(run.peak_memory_mib or 0),
        "parameters": run.parameters,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", help="folder of the records of a comparison that was run already")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seconds = None
    if options.runs is None:
        from solo_bridge.cli import main as command

        options.runs = tempfile.mkdtemp()
        begin = time.perf_counter()
        schedule = ["--epochs", str(options.epochs), "--seed", str(options.seed)]
        if command(["compare", "--out", options.runs, *schedule]):
            raise SystemExit(2)
        seconds = round(time.perf_counter() - begin)
    groups = group_runs([options.runs])
    runs = [run for group in groups for run in group.runs]
    protocols = {name: p.protocol for run in runs for name, p in run.probes.items()}
    own = ("strategy", "specification", "command", "caveat")
    settings = {k: v for k, v in runs[0].settings.items() if k not in own}
    content = {
        "settings": settings,
        "seed": runs[0].seed,
        "protocols": protocols,
        "stability and plasticity": next(r.analysis_protocol for r in runs if r.analysis_protocol),
        "environment": runs[0].environment,
        "wall_seconds": seconds,
        "runs": [row(run) for run in runs],
    }
    RESULTS.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(groups, content), encoding="utf-8")


def page(groups: Any, content: dict[str, Any]) -> str:
    machine = content["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    lines = [
        "# All strategies on one small stream",
        "",
        "Made by `python -m benchmarks.comparison`. It shows that everything runs, and what it",
        "costs. The schedule is short, there is one seed, and the weights of the penalties",
        "were not tuned to the stream: **it ranks nothing and supports no claim of",
        "any of the papers**. In the demo's longer schedule another order of the same images moved",
        "final accuracies by up to 7 points.",
        "",
        *(f"- {key}: {value}" for key, value in content["settings"].items()),
        f"- seed: {content['seed']}",
        f"- machine: {machine['processor']}, {machine['cores']} cores, no GPU; {versions}",
        *(f"- probe {name}: {sentence(p)}" for name, p in content["protocols"].items()),
        f"- S and P: {content['stability and plasticity']}",
        "",
    ]
    for probe in content["protocols"]:
        lines += [
            markdown(summary_table(groups, probe)),
            "",
            markdown(overall_table(groups, probe)),
        ]
        lines.append("")
    lines += [markdown(cost_table(groups)), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
