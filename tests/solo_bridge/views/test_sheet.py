"""The picture of images and their views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import normalize, to_tensor

from avalanche_branchtune.loading import drawing_from
from solo_bridge import cli
from solo_bridge.augmentation import Augmentation
from solo_bridge.views import BatchedViews, solo_views
from solo_bridge.views.sheet import CELL, GAP, HEADER, contact_sheet

STILL = {"crop_min_scale": 1.0, "jitter_prob": 0.0, "grayscale_prob": 0.0, "flip_prob": 0.0}


def cell(sheet: Image.Image, row: int, column: int) -> Image.Image:
    """A cell, reduced to the view's own pixels."""
    left, top = GAP + column * (CELL + GAP), HEADER + row * (CELL + GAP)
    return sheet.crop((left, top, left + CELL, top + CELL)).resize((16, 16), 0)


def normalized(picture: Image.Image, a: Augmentation) -> Tensor:
    return normalize(to_tensor(picture), list(a.mean), list(a.std))


def test_cells_hold_the_image_and_its_views() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    images = [Image.fromarray(n) for n in noise]
    augmentations = [Augmentation(crop_size=16, num_crops=2), Augmentation(crop_size=16, **STILL)]
    before = torch.get_rng_state()
    sheet = contact_sheet(images, augmentations, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert sheet.size == (GAP + 13 * (CELL + GAP), HEADER + 2 * (CELL + GAP))
    pixels = torch.from_numpy(noise).permute(0, 3, 1, 2).contiguous()
    a = augmentations[0]
    batched = BatchedViews(augmentations)(pixels, torch.tensor([6, 7]))[0]
    for row, image in enumerate(images):
        for still in (0, 3, 6, 9, 12):
            assert np.array_equal(cell(sheet, row, still), image), "drawn as it is"
        assert torch.allclose(normalized(cell(sheet, row, 7), a), batched[row], atol=1e-5)
        with drawing_from(6 + row):
            alone = solo_views(augmentations)(image)[0]
        assert torch.allclose(normalized(cell(sheet, row, 1), a), alone, atol=1e-5)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "drawn.png"
    assert cli.main(["views", "--images", "2", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    with Image.open(out) as picture:
        assert picture.size == (GAP + 9 * (CELL + GAP), HEADER + 2 * (CELL + GAP))
    (tmp_path / "images").mkdir()
    for name, size in (("a.png", (40, 20)), ("b.png", (7, 9))):
        Image.new("RGB", size, "red").save(tmp_path / "images" / name)
    folder = ["--data", str(tmp_path / "images"), "--method", "byol", "--images", "3"]
    assert cli.main(["views", *folder, "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.height == HEADER + 2 * (CELL + GAP), "there are only two"
    assert cli.main(["views", "--method", "simklr", "--out", str(out)]) == 2
    assert "did you mean simclr" in capsys.readouterr().err
