"""What the commands that read checkpoints have in common."""

from __future__ import annotations

import json
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solo_bridge.trained import Trained

CHECKPOINT = (
    "file of solo-learn, CaSSLe or plain weights (.ckpt, .pt, .pth, .safetensors), or the folder "
    "of a run with checkpoints"
)
DATA = (
    "folder with train/<class> and test/<class> images, or cifar100:FOLDER, which has CIFAR-100 "
    "as torchvision keeps it"
)


def arguments(parser: ArgumentParser) -> None:
    """Say what a command takes that builds backbones.

    :param parser: of the command.
    """
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help="of solo-learn, timm or torchvision, or small_resnet (default: what the checkpoint "
        "says)",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="side of the images in pixels (default: as the checkpoint says, else 32)",
    )
    parser.add_argument("--device", default="cpu")


def read(checkpoint: str, options: Namespace) -> Trained:
    """Read a backbone.

    :param checkpoint: file or folder.
    :param options: see :func:`arguments`.
    """
    from avalanche_branchtune.options import at_least_one

    if options.size is not None:
        at_least_one("--size", options.size)
    warnings.filterwarnings("ignore")  # Lightning's and torch's, about their own insides
    from solo_bridge import job
    from solo_bridge.trained import trained

    with job.unheard(errors=True):
        found = trained(checkpoint, backbone=options.backbone, size=options.size)
        found.to(options.device)
    return found


def write_json(file: str, content: Mapping[str, Any]) -> None:
    """Write what was found, with hardware and versions beside it.

    :param file: where to.
    :param content: what JSON can have.
    """
    from avalanche_branchtune.records.environment import environment
    from avalanche_branchtune.writing import write_text

    whole = {**content, "environment": environment()}
    write_text(Path(file), json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
