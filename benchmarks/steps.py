"""What a training step costs in branches: ``python -m benchmarks.steps``.

SimCLR of solo-learn with two views, one core, float32: the same network fine-tuned, in branches,
in branches as parallel convolutions, and after compression.  The forms take turns within one
process, a step's time is the process's CPU time, and what is given is the median over rounds
of a form's time divided by fine-tuning's in the same round.  Peak memory is of what torch
allocates in three steps, as its profiler counts it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_branchtune import compress, expand, fix_norms
from avalanche_branchtune.branches import branch_shapes
from avalanche_branchtune.folding import folded_once
from avalanche_branchtune.norms import restore_norms
from avalanche_branchtune.parts import backbone_scope
from avalanche_branchtune.records import environment
from solo_bridge import Augmentation, SoloMethod
from solo_bridge.backbones import small_resnet
from solo_bridge.compiling import Compiled
from solo_bridge.interface import Plan
from solo_bridge.optim import OptimizerSettings

RESULTS = Path(__file__).parent / "results" / "steps.json"
SIZES: dict[str, tuple[Callable[[], str | nn.Module], int, int]] = {  # backbone, pixels, images
    "small ResNet": (lambda: small_resnet(16), 16, 128),
    "ResNet-18": (lambda: "resnet18", 32, 64),
    "ResNet-18 on a GPU": (lambda: "resnet18", 32, 256),
}
ON_CPU = ("small ResNet", "ResNet-18")
FORMS = ("fine-tuning", "branches", "parallel convolutions", "compressed")


class ParallelConvolutions(nn.Module):
    """A frozen convolution and its branches, whose outputs are added.

    Authors' code: SmallPigPeppa/ISSL 37827a5, models/conv3x3_reparam_1x3.py, Conv3x3_Reparam.

    :param conv: with an odd kernel, padded by at least half of it.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv.requires_grad_(False)
        assert conv.dilation == (1, 1)
        (height, width), (top, left) = conv.kernel_size, conv.padding
        settings: dict[str, Any] = {"stride": conv.stride, "groups": conv.groups, "bias": False}
        self.branches = nn.ModuleList(
            nn.Conv2d(conv.in_channels, conv.out_channels, (h, w), padding=padding, **settings)
            for h, w in branch_shapes((height, width), "1x3+3x1")
            for padding in [(int(top) - (height - h) // 2, int(left) - (width - w) // 2)]
        )
        for branch in self.branches:
            nn.init.zeros_(branch.weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        for branch in self.branches:
            y = y + branch(x)
        return y


def made(size: str, form: str) -> SoloMethod:
    """Return a method whose weights depend on the size alone, ready to be trained in a form."""
    make, pixels, _ = SIZES[size]
    torch.manual_seed(0)
    views = [Augmentation(crop_size=pixels, num_crops=2)]
    model = SoloMethod("simclr", make(), image_size=pixels, num_classes=10, augmentations=views)
    if form != "fine-tuning":
        fix_norms(model, "affine")
    if form == "parallel convolutions":
        for parent in list(model.backbone.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Conv2d):
                    setattr(parent, name, ParallelConvolutions(child))
    elif form != "fine-tuning":
        expand(model, scope=backbone_scope(model))
    if form == "compressed":
        compress(model)
        restore_norms(model)
    return model


class Step:
    """One step of one form; calling it returns its CPU time in seconds.

    :param size: of :data:`SIZES`.
    :param form: of :data:`FORMS`.
    :param optimizer: ``"lars"``, ``"sgd"`` …
    :param channels_last: see :class:`~solo_bridge.SelfSupervised`.
    :param bf16: whether the forward pass is autocast to bfloat16.
    :param compile: see :class:`~solo_bridge.SelfSupervised`.
    :param device: ``"cpu"``, or ``"cuda"``, where time is the clock's on the wall.
    """

    def __init__(
        self,
        size: str,
        form: str,
        optimizer: str = "lars",
        *,
        channels_last: bool = False,
        bf16: bool = False,
        compile: bool = False,
        device: str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.model = made(size, form).to(self.device)
        _, pixels, images = SIZES[size]
        generator = torch.Generator().manual_seed(1)
        views = [torch.randn(images, 3, pixels, pixels, generator=generator) for _ in "ab"]
        self.views = [view.to(self.device) for view in views]
        if channels_last:
            self.model.use_channels_last(True)
            self.views = [v.contiguous(memory_format=torch.channels_last) for v in self.views]
        self.autocast = torch.autocast(device, torch.bfloat16, bf16, cache_enabled=False)
        self.compiled = Compiled(compile)
        groups = self.model.parameter_groups()
        known = {id(p) for group in groups for p in group["params"]}
        learning = [p for p in self.model.parameters() if p.requires_grad]
        groups[0]["params"] = [
            *(p for p in groups[0]["params"] if p.requires_grad),
            *(p for p in learning if id(p) not in known),
        ]
        self.optimizer = OptimizerSettings(name=optimizer).optimizer(groups)
        self.model.train()
        self.model.start_experience(Plan(10_000, 1, 10_000 * images, images))

    def __call__(self) -> float:
        begin = self.now()
        self.optimizer.zero_grad()
        with folded_once(), self.autocast, self.compiled.networks_of(self.model):
            loss = self.model.loss(self.views)
        loss.backward()  # type: ignore[no-untyped-call]
        self.model.after_backward()
        self.optimizer.step()
        self.model.after_step()
        return self.now() - begin

    def now(self) -> float:
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()


def ratios(steps: dict[str, Callable[[], float]], rounds: int) -> dict[str, dict[str, float]]:
    """Let steps take turns; return median milliseconds and median ratios to the first one.

    :param steps: by name.
    :param rounds: after two that are not counted.
    """
    taken: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for i in range(rounds + 2):
        order = names[i % len(names) :] + names[: i % len(names)]
        for name in order:
            taken[name].append(steps[name]())
    taken = {name: seconds[2:] for name, seconds in taken.items()}
    first = taken[names[0]]
    return {
        name: {
            "ms": round(1000 * median(seconds), 1),
            "ratio": round(median(s / f for s, f in zip(seconds, first, strict=True)), 3),
        }
        for name, seconds in taken.items()
    }


def peak_mib(size: str, form: str) -> float:
    """Return the most that torch held at a time in three steps, the model included, in MiB."""
    with torch.profiler.profile(profile_memory=True) as profile:
        step = Step(size, form)
        for _ in range(3):
            step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    held = [e["args"]["Total Allocated"] for e in events if e["name"] == "[memory]"]
    return float(max(held)) / 1024**2


def _apart(size: str, form: str) -> float:
    """Return :func:`peak_mib` of a process of its own."""
    command = [sys.executable, "-m", "benchmarks.steps", "--peak", size, form]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def measure(rounds: int = 15, sizes: tuple[str, ...] = ON_CPU) -> dict[str, Any]:
    """Measure all forms.

    :param rounds: in which each form makes one step.
    :param sizes: of :data:`SIZES`.
    :return: size → form → median milliseconds, ratio to fine-tuning, MiB and their ratio.
    """
    found: dict[str, Any] = {}
    for size in sizes:
        found[size] = ratios({form: Step(size, form) for form in FORMS}, rounds)
        peaks = {form: _apart(size, form) for form in FORMS}
        for form, peak in peaks.items():
            memory = {"MiB": round(peak, 1), "MiB ratio": round(peak / peaks[FORMS[0]], 3)}
            found[size][form].update(memory)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peak", nargs=2, metavar=("SIZE", "FORM"), help="print one's peak in MiB")
    options = parser.parse_args()
    rounds = options.rounds
    torch.set_num_threads(1)
    if options.peak:
        print(peak_mib(*options.peak))
        return
    content = {
        "rounds": rounds,
        "environment": environment(),
        "steps": measure(rounds),
    }
    print(json.dumps(content["steps"], indent=1))
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
