"""Small images and networks, for the commands that read checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from solo_bridge import cli
from solo_bridge.backbones import small_resnet
from solo_bridge.checkpoint import save_backbone

SIZE = ("--size", "8")


def images(folder: Path, train: int = 9, test: int = 6) -> Path:
    """Make ``train`` and ``test`` with two classes, which differ in one colour."""
    generator = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for label, name in enumerate(("cat", "dog")):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 160, (8, 8, 3), dtype=np.uint8)
                pixels[..., label] += 40
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
    return folder


def network(path: Path, seed: int = 0) -> nn.Module:
    """Write a small backbone, and return it."""
    torch.manual_seed(seed)
    backbone = small_resnet(4).eval()
    save_backbone(backbone, path)
    return backbone


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Return the one line that a command says of a user's mistake."""
    assert cli.main([str(word) for word in words]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith(f"branchtune {words[0]}: ")
    return printed.err
