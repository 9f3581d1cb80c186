"""Every solo-learn method under the bridge: exact, how fast, with branches, after a resume.

    python -m benchmarks.bridge

measures the solo-learn that is installed, writes ``results/bridge-<generation>.json`` beside this
file, and makes ``docs/bridge.md`` anew from the results of all generations.
"""

from __future__ import annotations

import json
import pickle
import random
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from torch.utils.data import DataLoader
from tqdm import tqdm

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.records import environment
from solo_bridge import SelfSupervised, SoloMethod, available_methods
from solo_bridge.compat import load
from solo_bridge.defaults import DEFAULTS
from tests.oracles.solo_training import (
    BATCH,
    EPOCHS,
    LR,
    NOTES,
    Views,
    bare,
    fit,
    fit_with_hooks,
)
from tests.selfsupervised import method as small_method
from tests.selfsupervised import small

HERE = Path(__file__).parent
SIDE = 16
SETUP = (
    "exactness and resume: a two-convolution backbone (MAE: ViT-Tiny), 50 images of 8×8, batch 20, "
    "2 epochs, SGD, warm-up and cosine; speed: solo-learn's ResNet-18 (MAE: ViT-Tiny), 16×16, "
    "batch 20, the method's small heads, median of 3 runs of 4 steps in which loop and bridge "
    "alternate; float32, one thread, seed 0"
)


def stream(name: str, size: int = 8) -> Any:
    data = as_classification_dataset(Views(False, DEFAULTS[name].large_views, size))
    return benchmark_from_datasets(train=[data, data]).train_stream


def strategy(model: SoloMethod, plugins: list[Any], epochs: int = EPOCHS) -> SelfSupervised:
    return SelfSupervised(
        model,
        optimizer="sgd",
        lr=LR,
        scale_lr=False,
        weight_decay=1e-4,
        optimizer_settings={"warmup_epochs": 0.5},
        train_mb_size=BATCH,
        train_epochs=epochs,
        plugins=plugins,
        evaluator=None,
    )


def difference(name: str) -> tuple[float, str]:
    """Largest difference to solo-learn's own training, and the oracle's name."""
    model = small_method(name)
    torch.manual_seed(1)
    strategy(model, []).train(stream(name)[0], shuffle=False)
    oracle = bare(name, "warmup_cosine")
    torch.manual_seed(1)
    views = Views(True, DEFAULTS[name].large_views)
    how = fit(oracle, DataLoader(views, batch_size=BATCH, drop_last=True))
    got, expected = model.solo.state_dict(), oracle.state_dict()
    return max(
        (got[k].double() - v.double()).abs().max().item()
        for k, v in expected.items()
        if k not in NOTES
    ), how


def speed(name: str) -> tuple[float, float]:
    """Steps per second of the bare loop, and under the strategy."""
    views = Views(True, DEFAULTS[name].large_views, SIDE)
    loader: DataLoader[Any] = DataLoader(views, batch_size=BATCH, drop_last=True)
    steps = len(loader) * EPOCHS
    seconds: dict[str, list[float]] = {"loop": [], "bridge": []}
    for _ in range(3):
        oracle = bare(name, "none", net=DEFAULTS[name].backbone, size=SIDE)
        begin = time.perf_counter()
        fit_with_hooks(oracle, loader)
        seconds["loop"].append(time.perf_counter() - begin)
        torch.manual_seed(0)
        model = SoloMethod(name, image_size=SIDE, **small(name))
        run = strategy(model, [])
        experience = stream(name, SIDE)[0]
        begin = time.perf_counter()
        run.train(experience, shuffle=False)
        seconds["bridge"].append(time.perf_counter() - begin)
    return tuple(steps / sorted(s)[1] for s in seconds.values())  # type: ignore[return-value]


def final_weights(name: str, resume: bool) -> tuple[torch.Tensor, int]:
    """Weights after two experiences with branches; with or without a new process in between."""
    random.seed(0)
    model = small_method(name)
    own = BranchTuningPlugin(verbose=False)
    run = strategy(model, [own])
    experiences = list(stream(name))
    run.train(experiences[0])
    if resume:  # what a resumed process has: the pickled method and the random state
        state = torch.get_rng_state()
        model = pickle.loads(pickle.dumps(model))
        own = BranchTuningPlugin(pretrained=True, verbose=False)
        run = strategy(model, [own])
        torch.set_rng_state(state)
    run.train(experiences[1])
    flat = [v.double().flatten() for v in model.state_dict().values()]
    return torch.cat(flat), own.summaries[-1].layers


def measure(name: str) -> dict[str, Any]:
    largest, oracle = difference(name)
    loop, bridge = speed(name)
    through, layers = final_weights(name, resume=False)
    resumed, _ = final_weights(name, resume=True)
    return {
        "oracle": oracle,
        "max_difference": largest,
        "steps_per_second_loop": loop,
        "steps_per_second_bridge": bridge,
        "branched_layers": layers,
        "finite_with_branches": bool(torch.isfinite(through).all()),
        "resumed_identical": bool(torch.equal(through, resumed)),
    }


def page(results: list[dict[str, Any]]) -> str:
    """The table of all generations, as Markdown."""
    lines = [
        "# Every method under the bridge",
        "",
        "Made by `python -m benchmarks.bridge`; do not edit.",
        "",
        f"How: {SETUP}.",
        "*Difference*: largest absolute difference of any weight or buffer to solo-learn's own "
        "training after one experience. *Ratio*: steps per second under the strategy against the "
        "bare loop. *Branches*: two experiences with Branch-tuning, layers branched, weights "
        "finite. *Resumed*: continuing at the second experience from the pickled method gives "
        "identical weights.",
    ]
    for result in results:
        e = result["environment"]
        lines += [
            "",
            f"## solo-learn {result['generation']}",
            "",
            f"{e['processor']}, one thread; Python {e['python']}, torch {e['versions']['torch']}, "
            f"Avalanche {e['versions']['avalanche-lib']}.",
            "",
            "| method | oracle | difference | loop, steps/s | bridge, steps/s | ratio | branches | "
            "resumed |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, m in result["methods"].items():
            loop, bridge = m["steps_per_second_loop"], m["steps_per_second_bridge"]
            branches = f"{m['branched_layers']}, " + ("ok" if m["finite_with_branches"] else "NaN")
            lines.append(
                f"| {name} | {m['oracle']} | {m['max_difference']:g} | {loop:.2f} | {bridge:.2f} | "
                f"{bridge / loop:.2f} | {branches} | {'yes' if m['resumed_identical'] else 'NO'} |"
            )
        for name, why in result["not_working"].items():
            lines.append(f"| {name} | does not work: {why} | | | | | | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    methods = available_methods()
    working = [n for n, why in methods.items() if why is None]
    result = {
        "generation": load().name,
        "setup": SETUP,
        "environment": environment(),
        "methods": {n: measure(n) for n in tqdm(working)},
        "not_working": {n: why for n, why in methods.items() if why is not None},
    }
    file = HERE / "results" / f"bridge-{load().name.replace(' ', '-')}.json"
    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    results = [json.loads(f.read_text("utf-8")) for f in sorted(file.parent.glob("bridge-*.json"))]
    docs = HERE.parent / "docs"
    docs.mkdir(exist_ok=True)
    (docs / "bridge.md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
