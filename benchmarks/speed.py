"""What a step costs, and where: ``python -m benchmarks.speed [--device cuda]``.

Views, steps, loops and start-up beside each other on this machine.  Writes
``results/speed-<device>.json`` and makes ``docs/speed.md`` anew from the results of all devices;
ten minutes on two cores.  What a device cannot show is left out, and said to be.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from avalanche_branchtune.records import environment
from benchmarks import loops, steps, views
from solo_bridge.views import BatchedViews

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "speed.md"

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "fine-tuning": ("fine-tuning", {}),
    "branches, folded": ("branches", {}),
    "branches, three convolutions": ("parallel convolutions", {}),
    "after compression": ("compressed", {}),
    "fine-tuning, channels last": ("fine-tuning", {"channels_last": True}),
    "fine-tuning, compiled": ("fine-tuning", {"compile": True}),
    "branches, folded, compiled": ("branches", {"compile": True}),
    "fine-tuning, bfloat16": ("fine-tuning", {"bf16": True}),
    "branches, folded, bfloat16, compiled": ("branches", {"bf16": True, "compile": True}),
}
"""Name → form of :data:`benchmarks.steps.FORMS`, and how its step is made."""

SMALL_ONLY = ("fine-tuning, channels last", "fine-tuning, bfloat16", list(VARIANTS)[-1])
"""Variants that are left out for ResNet-18 on a CPU, where ten minutes are all there is."""

PROTOCOL = {
    "steps": "SimCLR, two views, LARS; forms take turns, median over rounds; ratio: median of the "
    "quotients to fine-tuning in the same round; CPU time of one thread, on a GPU the time on the "
    "wall until it is done; MiB: peak of three steps, in a process of its own",
    "views": "two views of each image, SimCLR's settings without blur; CPU time of one thread",
    "loops": "SimCLR, small ResNet, 16 pixels, batch 128, SGD; CPU time of one thread for all of "
    "an experience of 800 images, divided by its steps; ratio to the bare loop in the same round",
    "start-up": "CPU time in seconds, best of 3; adds: of what is imported after Avalanche",
}

LATER = (
    "import avalanche, time; begin = time.process_time(); {}; print(time.process_time() - begin)"
)
IMPORTS = {
    "import avalanche_branchtune": "import avalanche_branchtune",
    "from avalanche_branchtune import BranchTuningPlugin": (
        "from avalanche_branchtune import BranchTuningPlugin"
    ),
}


def of_steps(device: str, rounds: dict[str, int]) -> dict[str, Any]:
    """Measure the variants; memory on a CPU."""
    found: dict[str, Any] = {}
    for size, turns in rounds.items():
        made = {
            name: steps.Step(size, form, device=device, **how)
            for name, (form, how) in VARIANTS.items()
            if size != "ResNet-18" or name not in SMALL_ONLY
        }
        for step in made.values():  # compilers run
            step()
        found[size] = steps.ratios(made, turns)
        if device == "cpu":
            peaks = {n: steps._apart(size, f) for n, (f, how) in VARIANTS.items() if not how}
            for name, peak in peaks.items():
                ratio = round(peak / peaks["fine-tuning"], 3)
                found[size][name].update({"MiB": round(peak), "MiB ratio": ratio})
    return found


def of_views(device: str, rounds: int) -> dict[str, Any]:
    """Measure views: all kinds on a CPU, batched ones on a GPU."""
    if device == "cpu":
        kinds = [kind for kind in views.KINDS if kind != "Kornia"]
        return {
            f"{views.SIZES[size]} images of {size} pixels": views.measure(size, 0.0, rounds, kinds)[
                "cpu_milliseconds"
            ]
            for size in views.SIZES
        }
    found = {}
    for size, images in ((32, 256), (96, 256), (224, 64)):
        pixels = torch.randint(256, (images, 3, size, size), dtype=torch.uint8, device=device)
        make, seeds = BatchedViews([views.settings(size, 0.0)]), torch.arange(images, device=device)
        taken = []
        for turn in range(rounds + 3):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            make(pixels, seeds)
            torch.cuda.synchronize()
            if turn >= 3:
                taken.append(time.perf_counter() - begin)
        found[f"{images} images of {size} pixels"] = {"batched": round(1000 * median(taken), 2)}
    return found


def of_start() -> dict[str, float]:
    """Measure commands and imports."""
    python = [sys.executable, "-W", "ignore"]
    found = {"branchtune --help": least(lambda: spent([*python, "-m", "solo_bridge", "--help"]))}
    for name, line in IMPORTS.items():
        found[f"{name} adds"] = least(
            lambda line=line: float(  # type: ignore[misc]
                subprocess.run(
                    [*python, "-c", LATER.format(line)], capture_output=True, text=True, check=True
                ).stdout
            )
        )
    return found


def spent(command: list[str]) -> float:
    """Return the CPU time of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def least(measure: Callable[[], float]) -> float:
    return round(min(measure() for _ in range(3)), 2)


def table(head: list[str], rows: list[list[Any]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows), ""]


def page(results: list[dict[str, Any]]) -> str:
    """All devices, as Markdown."""
    lines = ["# What a step costs", "", "Made by `python -m benchmarks.speed`; do not edit.", ""]
    lines += [f"- *{name}*: {how}." for name, how in PROTOCOL.items()]
    for result in results:
        e = result["environment"]
        versions = ", ".join(f"{name} {v}" for name, v in e["versions"].items())
        lines += ["", f"## {e['gpu'] or e['processor']}", ""]
        lines += [f"{e['cores']} cores, {versions}; {result['minutes']} minutes in all.", ""]
        for size, forms in result["steps"].items():
            _, pixels, images = steps.SIZES[size]
            head = [f"step: {size}, {pixels} pixels, batch {images}", "ms", "ratio", "MiB", "ratio"]
            rows = [
                [n, m["ms"], m["ratio"], m.get("MiB", "–"), m.get("MiB ratio", "–")]
                for n, m in forms.items()
            ]
            lines += table(head, rows)
        kinds = list(next(iter(result["views"].values())))
        rows = [[name, *(m[kind] for kind in kinds)] for name, m in result["views"].items()]
        lines += table(["two views, ms", *kinds], rows)
        if result["loops"]:
            rows = [[name, m["ms"], m["ratio"]] for name, m in result["loops"].items()]
            lines += table(["loop", "ms a step", "ratio"], rows)
        if result["start-up"]:
            lines += table(["start-up", "s"], [[n, s] for n, s in result["start-up"].items()])
        lines += [f"Left out: {why}." for why in result["left out"]]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="few rounds, and nothing is written")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    begin, on_cpu, quick = time.perf_counter(), options.device == "cpu", options.quick
    rounds = {"small ResNet": 25, "ResNet-18": 4} if on_cpu else {"ResNet-18 on a GPU": 50}
    content = {
        "protocol": PROTOCOL,
        "environment": environment(),
        "start-up": of_start() if on_cpu else {},
        "views": of_views(options.device, 2 if quick else 8),
        "loops": loops.measure(1 if quick else 5, 1 if quick else 4) if on_cpu else {},
        "steps": of_steps(options.device, dict.fromkeys(rounds, 1) if quick else rounds),
        "left out": ["whatever needs a GPU; of ResNet-18, channels last and bfloat16"]
        if on_cpu
        else ["loops and start-up, see the CPU's"],
        "minutes": round((time.perf_counter() - begin) / 60, 1),
    }
    print(json.dumps({k: v for k, v in content.items() if k != "protocol"}, indent=1))
    if quick:
        return
    file = HERE / "results" / f"speed-{options.device}.json"
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    files = sorted(file.parent.glob("speed-*.json"))
    PAGE.write_text(page([json.loads(f.read_text("utf-8")) for f in files]), encoding="utf-8")


if __name__ == "__main__":
    main()
