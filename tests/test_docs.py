"""The pages in docs/ say what the code says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avalanche_branchtune import compress, expand

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGES = ("avalanche_branchtune", "solo_bridge")


def test_messages_that_are_explained_are_those_of_the_code() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^> `(.*)`$", page, re.MULTILINE)
    assert len(quoted) > 30 and len(set(quoted)) == len(quoted)
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    code = re.sub(r'"\s+f?"', "", code)  # texts that are written in several lines
    gap = r'[^"\n]{0,200}'  # what is put into them
    unknown = [
        message
        for message in quoted
        if not re.search(gap.join(map(re.escape, message.strip("…").split("…"))), code)
    ]
    assert unknown == []


def picture() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "figures" / "method.py"))


def test_pictures_are_those_of_their_script() -> None:
    drawn = picture()["pictures"]()
    there = {file.name: file.read_text(encoding="utf-8") for file in DOCS.glob("figures/*.svg")}
    assert there == drawn


def test_the_merged_kernel_of_the_picture_is_what_compress_makes() -> None:
    kept = picture()
    layer = nn.Conv2d(1, 1, 3, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(kept["KERNEL"]))
        expand(layer)
        for branch in layer.branches.values():
            values = kept["ROW"] if branch.shape[2:] == (1, 3) else kept["COLUMN"]
            branch.copy_(torch.from_numpy(values))
    compress(layer)
    torch.testing.assert_close(layer.weight[0, 0], torch.from_numpy(kept["MERGED"]))
