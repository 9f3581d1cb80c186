"""What views cost on one core: ``python -m benchmarks.views``.

Two views of every image of a minibatch, SimCLR's settings with and without blur: solo-learn's own
pipeline (Pillow), ``BatchedViews``, ``torchvision.transforms.v2`` on tensors (image by image: it
draws once for a whole minibatch), and Kornia where it can be imported (in floats, without
antialiasing).  Kinds take turns in one process on one thread; a time is the process's CPU time, and
what is given is the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.functional import to_pil_image

from avalanche_branchtune.records import environment
from solo_bridge.augmentation import Augmentation
from solo_bridge.views import BatchedViews, solo_views

RESULTS = Path(__file__).parent / "results" / "views.json"
SIZES = {16: 128, 32: 256, 96: 64, 224: 16}
"""Pixels of an image's side: images of a minibatch."""
ROUNDS = 15


def settings(size: int, blur: float) -> Augmentation:
    strong = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
    return Augmentation(crop_size=size, blur_prob=blur, num_crops=2, **strong)


def by_pillow(a: Augmentation, pixels: Tensor) -> Callable[[], Any]:
    images, views = [to_pil_image(image) for image in pixels], solo_views([a])
    alone = [views(image) for image in images]
    assert alone[0][0].shape == (3, a.crop_size, a.crop_size)

    def make() -> list[Tensor]:
        made = [views(image) for image in images]
        return [torch.stack(same) for same in zip(*made, strict=True)]

    return make


def batched(a: Augmentation, pixels: Tensor) -> Callable[[], Any]:
    views, seeds = BatchedViews([a]), torch.arange(len(pixels))
    return lambda: views(pixels, seeds)


def by_torchvision(a: Augmentation, pixels: Tensor) -> Callable[[], Any]:
    jitter = v2.ColorJitter(a.brightness, a.contrast, a.saturation, a.hue)
    steps = [
        v2.RandomResizedCrop(
            a.crop_size,
            (a.crop_min_scale, a.crop_max_scale),
            interpolation=v2.InterpolationMode.BICUBIC,
        ),
        v2.RandomApply([jitter], a.jitter_prob),
        v2.RandomGrayscale(a.grayscale_prob),
        v2.RandomApply([v2.GaussianBlur(13, (0.1, 2.0))], a.blur_prob),
        v2.RandomHorizontalFlip(a.flip_prob),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(a.mean), list(a.std)),
    ]
    pipeline = v2.Compose(steps if a.blur_prob else steps[:3] + steps[4:])
    return lambda: [torch.stack([pipeline(image) for image in pixels]) for _ in range(a.num_crops)]


def by_kornia(a: Augmentation, pixels: Tensor) -> Callable[[], Any]:
    import kornia.augmentation as k

    steps: list[torch.nn.Module] = [
        k.RandomResizedCrop(
            (a.crop_size, a.crop_size), (a.crop_min_scale, a.crop_max_scale), resample="bicubic"
        ),
        k.ColorJitter(
            (1 - a.brightness, 1 + a.brightness),
            (1 - a.contrast, 1 + a.contrast),
            (1 - a.saturation, 1 + a.saturation),
            (-a.hue, a.hue),
            p=a.jitter_prob,
        ),
        k.RandomGrayscale(p=a.grayscale_prob),
        k.RandomHorizontalFlip(p=a.flip_prob),
        k.Normalize(torch.tensor(a.mean), torch.tensor(a.std)),
    ]
    if a.blur_prob:
        steps.insert(3, k.RandomGaussianBlur((13, 13), (0.1, 2.0), p=a.blur_prob))
    pipeline = torch.nn.Sequential(*steps)
    return lambda: [pipeline(pixels.float().div(255)) for _ in range(a.num_crops)]


KINDS = {
    "Pillow": by_pillow,
    "batched": batched,
    "torchvision v2": by_torchvision,
    "Kornia": by_kornia,
}


def measure(size: int, blur: float, rounds: int, kinds: list[str]) -> dict[str, Any]:
    torch.empty(7_500_000).fill_(0)  # once freed, the allocator keeps memory as it does in training
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(SIZES[size], 3, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    pixels = (smooth * 255).clamp(0, 255).to(torch.uint8)
    made = {kind: KINDS[kind](settings(size, blur), pixels) for kind in kinds}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    with torch.no_grad():
        for turn in range(rounds + 1):
            for kind, make in made.items():
                begin = time.process_time()
                make()
                if turn:  # the first one warms up
                    seconds[kind].append(time.process_time() - begin)
    milliseconds = {kind: round(1000 * median(s), 1) for kind, s in seconds.items()}
    against = [p / b for p, b in zip(seconds["Pillow"], seconds["batched"], strict=True)]
    return {
        "pixels": size,
        "images": SIZES[size],
        "blur_prob": blur,
        "cpu_milliseconds": milliseconds,
        "pillow_by_batched": round(median(against), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kinds = [kind for kind in KINDS if kind != "Kornia" or find_spec("kornia")]
    found = []
    for size in SIZES:
        for blur in (0.0, 0.5):
            found.append(measure(size, blur, rounds, kinds))
            print(json.dumps(found[-1]), flush=True)
    content: dict[str, Any] = {
        "protocol": "two views of every image; CPU time of one thread, median over rounds in "
        "which the kinds take turns; pillow_by_batched is the median of the rounds' quotients; "
        "Pillow and torchvision v2 image by image, from decoded images",
        "rounds": rounds,
        "environment": environment(),
        "views": found,
    }
    if "Kornia" in kinds:
        import kornia

        content["kornia"] = kornia.__version__
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
