"""``branchtune analyse``: how alike two checkpoints are, layer by layer."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from solo_bridge.commands import checkpoints

BATCH = 128
"""Images in a minibatch of CKA."""


def arguments(parser: ArgumentParser) -> None:
    """Say what the command takes.

    :param parser: of the command.
    """
    parser.description = (
        "Stability S is the linear CKA of B with A, the network before, on images of earlier "
        "experiences (--data); plasticity P that of B with a jointly trained network (--joint), on "
        "those of the experience (--new-data)."
    )
    parser.add_argument("before", metavar="A", help=checkpoints.CHECKPOINT)
    parser.add_argument("after", metavar="B", help="as A, of the same backbone")
    parser.add_argument(
        "--data",
        required=True,
        metavar="FOLDER",
        help="of images, of which those in its test/ are taken if it has one; or cifar100:FOLDER",
    )
    parser.add_argument("--joint", metavar="C", help="as A: jointly trained, for plasticity")
    parser.add_argument(
        "--new-data", metavar="FOLDER", help="as --data, for plasticity (default: that of --data)"
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=512,
        metavar="N",
        help="images that are compared, at random but always the same (default: 512)",
    )
    checkpoints.arguments(parser)
    parser.add_argument("--json", metavar="FILE", help="where to write all that was found")
    parser.add_argument(
        "--out", metavar="FILE", help="where to draw it, ending in .svg, .png or .pdf"
    )


def run(options: Namespace) -> int:
    """Compare the networks.

    :param options: see :func:`arguments`.
    """
    from avalanche_branchtune.errors import UnknownOptionError
    from avalanche_branchtune.options import at_least, one_of

    at_least(4, "--samples", options.samples)
    if options.out is not None:
        one_of("--out: suffix", Path(options.out).suffix, (".svg", ".png", ".pdf"))
    if options.new_data is not None and options.joint is None:
        raise UnknownOptionError("--new-data: of plasticity, which needs --joint")
    after = checkpoints.read(options.after, options)
    from avalanche_branchtune.analysis import layerwise_cka

    def likeness(reference: str, data: str) -> dict[str, float]:
        images = _images(data, after.view, options.samples)
        other = checkpoints.read(reference, options)
        return layerwise_cka(after.backbone, other.backbone, images, batch_size=BATCH)

    new = options.data if options.new_data is None else options.new_data
    columns = {"S": likeness(options.before, options.data)}
    if options.joint is not None:
        columns["P"] = likeness(options.joint, new)
    protocol = (
        f"linear CKA, unbiased HSIC averaged over minibatches of {BATCH}, eval mode, up to "
        f"{options.samples} random images of {after.size} pixels; S: {options.after} with "
        f"{options.before}, on {options.data}"
    )
    if options.joint is not None:
        protocol += f"; P: with {options.joint}, on {new}"
    print(_table(columns))
    print(f"{after.name}; {protocol}")
    if options.json is not None:
        content = {"S": "stability", "P": "plasticity"}
        found = {content[k]: {"mean": _mean(v), "layers": v} for k, v in columns.items()}
        checkpoints.write_json(
            options.json, {"backbone": after.name, "protocol": protocol, **found}
        )
    if options.out is not None:
        from avalanche_branchtune.report.figures.layers import likeness as drawn
        from avalanche_branchtune.report.figures.style import save_as

        names = {"S": "stability S", "P": "plasticity P"}
        save_as(drawn({names[k]: v for k, v in columns.items()}), Path(options.out))
        print(options.out)
    return 0


def _table(columns: dict[str, dict[str, float]]) -> str:
    """Return a line for each layer, and the means."""
    layers = list(columns["S"])
    width = max(map(len, [*layers, "layer"]))
    lines = [f"{'layer':<{width}}" + "".join(f"{name:>9}" for name in columns)]
    for layer in layers:
        lines.append(f"{layer:<{width}}" + "".join(f"{v[layer]:9.4f}" for v in columns.values()))
    means = "".join(f"{_mean(v):9.4f}" for v in columns.values())
    return "\n".join([*lines, f"{'mean':<{width}}{means}"])


def _mean(values: dict[str, float]) -> float:
    return sum(values.values()) / len(values)


def _images(data: str, view: Any, samples: int) -> Any:
    """Return some images of a folder as tensors, the same every time."""
    import torch

    from avalanche_branchtune.streams import cifar100, unlabelled_folder
    from solo_bridge.comparison.scenarios import CIFAR100

    if data.startswith(CIFAR100):
        images: Any = cifar100(data.removeprefix(CIFAR100), train=False)
    else:
        test = Path(data) / "test"
        images = unlabelled_folder(test if test.is_dir() else data)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    some = [images[i] for i in order[:samples].tolist()]
    return [(view(image), label) for image, label in some]
