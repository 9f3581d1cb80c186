"""What many GPUs would give, on paper: ``python -m benchmarks.scaling``.

Nothing here was measured on a GPU.  What a step sends is counted as ``benchmarks.processes`` has
measured it; what that takes follows from published figures, each with its source in
:data:`SOURCES`, once in their kinder and once in their harder reading.  Writes its part of
``docs/processes.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from avalanche_branchtune import expand, fix_norms, ranks
from avalanche_branchtune.parts import backbone_scope
from solo_bridge import Augmentation, SoloMethod

PAGE = Path(__file__).parents[1] / "docs" / "processes.md"
PER_NODE = 8
GPUS = (8, 64, 512)
FLOAT = 4
PASSES = 10
"""Over the matrix of similarities, or of correlations, forth and back (assumption)."""

ATTAINED = 0.4
"""Of the peak, in the products of large matrices (assumption)."""


@dataclass(frozen=True)
class Hardware:
    """A reading of the published figures.

    :param images: that a GPU trains on in a second, of 224 pixels, by ResNet-50.
    :param products: its peak in 16-bit products, FLOP/s.
    :param memory: bytes/s.
    :param bus: bytes/s of NCCL's bus bandwidth, within a node and between nodes with a network card
        for each GPU.
    :param message: seconds of a small sum among the GPUs of a node.
    :param two_nodes: the same of two nodes.
    """

    images: float
    products: float
    memory: float
    bus: float
    message: float
    two_nodes: float


KIND = Hardware(2470, 312e12, 2.0e12, 370e9, 10.5e-6, 46.5e-6)
HARD = Hardware(2 * 2470, 989e12, 3.35e12, 185e9, 115e-6, 150e-6)

SOURCES = """\
- ResNet-50: 2,470 images/s on one A100 in mixed precision, and 6.7 times as many on eight
  ([NVIDIA/DeepLearningExamples][rn50], PyTorch/Classification/ConvNets/resnet50v1.5, 21.03).
  Harder: twice as many, for an H100 (assumption; a faster GPU waits more). Each image has two
  views.
- Bus bandwidth: 370 GB/s of 450 in NVLink's rings on 8 H100 ([nccl-tests #212][212]), and 46 to
  48 GB/s from each 400 Gb/s card ([#290][290]), so with 8 cards a node the same between nodes.
  Harder: half of it, since 25 MiB are too few to reach it (assumption).
- A small message: 10.5 µs among 8 GPUs ([DeepEP #303][303], H20), 46.5 µs among 16 in two nodes
  ([nccl #1244][1244], H20, NDR). Harder: 115 µs, the least of 115 to 354 that were measured from
  Python on 8 H100 ([IBM][ibm]), and 150 µs in two nodes (assumption). Beyond two nodes a sum goes
  through a tree, 2 × 5.0 µs for each doubling, and a gathering round a ring, 2.7 µs for each node
  and 0.85 µs for each GPU (NCCL's own model, [tuning.cc][tuning] at 01afd20).
- Products of large matrices at 0.4 of the peak of 312 and 989 TFLOP/s, memory at 2.0 and 3.35
  TB/s (data sheets of A100 80GB and H100 SXM; 0.4, and ten passes over such a matrix, are
  assumptions).

[rn50]: https://github.com/NVIDIA/DeepLearningExamples
[212]: https://github.com/NVIDIA/nccl-tests/issues/212
[290]: https://github.com/NVIDIA/nccl-tests/issues/290
[303]: https://github.com/deepseek-ai/DeepEP/issues/303
[1244]: https://github.com/NVIDIA/nccl/issues/1244
[ibm]: https://github.com/IBM/pytorch-communication-benchmarks/issues/1
[tuning]: https://github.com/NVIDIA/nccl/blob/master/src/graph/tuning.cc
"""


@dataclass(frozen=True)
class Work:
    """What a method does in a step, apart from the number of images.

    :param learning: numbers that have a gradient.
    :param norms: how many normalisation layers there are.
    :param channels: of all of them.
    :param embedding: numbers in an embedding, P.
    :param squares: whether the matrix that all ranks compute is P × P, not 2N × 2N.
    :param projector: numbers in the projector's weights.
    """

    learning: int
    norms: int
    channels: int
    embedding: int
    squares: bool
    projector: int


def work_of(model: SoloMethod, embedding: int) -> Work:
    """Count what a method does.

    :param model: it; an expanded one sends what learns.
    :param embedding: numbers in its embedding.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    return Work(
        learning=sum(p.numel() for p in model.parameters() if p.requires_grad),
        norms=len(norms),
        channels=sum(norm.num_features for norm in norms),
        embedding=embedding,
        squares=model.name == "barlow_twins",
        projector=sum(p.numel() for p in model.projector.parameters()),
    )


def sent(work: Work, images: int, gpus: int) -> dict[str, tuple[int, int]]:
    """Return kind → messages and bytes that a rank gives to them in a step, two views.

    :param work: of the method.
    :param images: in the whole minibatch.
    :param gpus: W.
    """
    rows = 2 * images * work.embedding * FLOAT
    gradients = work.learning * FLOAT
    return {
        "gradients": (math.ceil(gradients / ranks.BUCKET), gradients),
        "embeddings": (2, rows // gpus),
        "embeddings, back": (2, rows),
        "norms": (2 * work.norms, 2 * work.channels * 2 * 8),
        "norms, back": (2 * work.norms, 2 * work.channels * 2 * FLOAT),
    }


def seconds(kind: str, messages: int, size: int, gpus: int, hardware: Hardware) -> float:
    """Return what messages of a kind take.

    :param kind: of :func:`sent`.
    :param messages: how many.
    :param size: bytes in all of them.
    :param gpus: W.
    :param hardware: it.
    """
    nodes = gpus // PER_NODE
    if kind == "embeddings":  # gathered, in a ring
        ring = (gpus - nodes) * 0.85e-6 + (nodes - 1) * 2.7e-6
        return messages * (hardware.message + ring) + (gpus - 1) * size / hardware.bus
    begin = hardware.message
    if nodes > 1:
        begin = hardware.two_nodes + 2 * 5.0e-6 * (math.log2(nodes) - 1)
    return messages * begin + 2 * (gpus - 1) / gpus * size / hardware.bus


def alone(work: Work, images: float, hardware: Hardware) -> float:
    """Return seconds of a step's forward and backward pass of some images, without the loss."""
    products = 6 * work.projector * 2 * images / (ATTAINED * hardware.products)
    return 2 * images / hardware.images + products


def on_all(work: Work, images: int, hardware: Hardware) -> float:
    """Return seconds of what every rank computes of the whole minibatch: the loss and its gradient.

    SimCLR's similarities are 6 (2N)² P operations, Barlow Twins' cross-correlation 6 N P².
    """
    if work.squares:
        operations, matrix = 6 * images * work.embedding**2, work.embedding**2
    else:
        operations, matrix = 6 * (2 * images) ** 2 * work.embedding, (2 * images) ** 2
    return operations / (ATTAINED * hardware.products) + PASSES * matrix * FLOAT / hardware.memory


def efficiency(
    work: Work, images: int, gpus: int, hardware: Hardware, norms: str, overlap: bool
) -> float:
    """Return how much faster W GPUs are, by W: one GPU would take all images in one step.

    :param work: of the method.
    :param images: in the whole minibatch.
    :param gpus: W.
    :param hardware: it.
    :param norms: ``"synchronised"`` or ``"local"``.
    :param overlap: whether gradients are sent during the backward pass, two thirds of a step.
    """
    one = alone(work, images, hardware) + on_all(work, images, hardware)
    share = alone(work, images / gpus, hardware)
    step = share + on_all(work, images, hardware)
    for kind, (messages, size) in sent(work, images, gpus).items():
        taken = seconds(kind, messages, size, gpus, hardware)
        if kind == "gradients" and overlap:
            taken = max(taken - share * 2 / 3, taken / messages)
        if norms == "synchronised" or not kind.startswith("norms"):
            step += taken
    return one / (gpus * step)


def methods() -> dict[str, tuple[Work, Work]]:
    """Return name → work of fine-tuning and of Branch-tuning, with ResNet-50."""
    found = {}
    views = [Augmentation(crop_size=224, num_crops=2)]
    for title, name, width, settings in (
        ("SimCLR", "simclr", 256, {}),
        ("Barlow Twins", "barlow_twins", 8192, {"proj_hidden_dim": 8192, "proj_output_dim": 8192}),
    ):
        model = SoloMethod(name, "resnet50", image_size=224, augmentations=views, **settings)
        plain = work_of(model, width)
        fix_norms(model, "affine")
        expand(model, scope=backbone_scope(model))
        found[title] = plain, work_of(model, width)
    return found


WAYS = {
    "synchronised norms": ("synchronised", False),
    "local norms": ("local", False),
    "synchronised, if gradients were sent during the backward pass": ("synchronised", True),
}


def tables() -> str:
    """Return what is expected, as Markdown."""
    lines = []
    for title, (plain, branches) in methods().items():
        saved = 1 - branches.learning / plain.learning
        lines += [
            f"**{title}**, ResNet-50 with two views of 224 pixels, embeddings of "
            f"{plain.embedding}: {plain.learning / 1e6:.1f} million gradients, {2 * plain.norms} "
            f"messages for norms each way; Branch-tuning has {saved:.0%} fewer gradients.",
            "",
        ]
        rows = []
        for images in (256, 2048, 4096, None):
            for way, (norms, overlap) in WAYS.items():
                rows.append([_batch(images), f"fine-tuning, {way}"])
                rows[-1] += [_cell(plain, images, gpus, norms, overlap) for gpus in GPUS]
            if images == 2048:
                rows.append([_batch(images), "Branch-tuning, synchronised norms"])
                rows[-1] += [_cell(branches, images, gpus, "synchronised", False) for gpus in GPUS]
        lines += table(["images", "how", *(f"{gpus} GPUs" for gpus in GPUS)], rows)
        times = [on_all(plain, n, h) * 1000 for n in (2048, 4096, 32768) for h in (KIND, HARD)]
        operations = (
            6 * 4096 * plain.embedding**2 if plain.squares else 24 * 4096**2 * plain.embedding
        )
        lines += [
            f"What every GPU computes of the whole minibatch, in ms (kinder, harder): 2,048 images "
            f"{times[0]:.1f}, {times[1]:.1f}; 4,096 {times[2]:.1f}, {times[3]:.1f} "
            f"({operations / 1e12:.2f} TFLOP); 32,768 {times[4]:.0f}, {times[5]:.0f}.",
            "",
        ]
    return "\n".join(lines)


def _batch(images: int | None) -> str:
    return "64 a GPU" if images is None else f"{images:,}"


def _cell(work: Work, images: int | None, gpus: int, norms: str, overlap: bool) -> str:
    whole = 64 * gpus if images is None else images
    if whole < gpus * 2:
        return "–"
    found = sorted(efficiency(work, whole, gpus, h, norms, overlap) for h in (KIND, HARD))
    return f"{found[0]:.0%} to {found[1]:.0%}"


def table(head: list[str], rows: list[list[Any]]) -> list[str]:
    """Return a table, as lines of Markdown."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows), ""]


def written(part: str, text: str) -> None:
    """Put a part of the page that is made by a command in its place.

    :param part: its name, in the comments around it.
    :param text: Markdown.
    """
    begin, end = f"<!-- {part}: made by", f"<!-- end of {part} -->"
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(begin)
    comment, after = rest.split("-->", 1)[0], rest.split(end)[1]
    PAGE.write_text(
        f"{before}{begin}{comment}-->\n\n{text.strip()}\n\n{end}{after}", encoding="utf-8"
    )


def main() -> None:
    text = f"{SOURCES}\n\n{tables()}"
    print(text)
    written("expected", text)


if __name__ == "__main__":
    main()
