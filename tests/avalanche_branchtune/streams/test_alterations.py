from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from avalanche.benchmarks.utils import as_classification_dataset
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torchvision.datasets import MNIST, FakeData
from torchvision.transforms.functional import to_tensor

from avalanche_branchtune.errors import UnknownOptionError
from avalanche_branchtune.streams import (
    ALTERATIONS,
    ImageFiles,
    altered,
    digits_on_photographs,
    hide_labels,
    image_folder,
    joint,
    without_labels,
)
from avalanche_branchtune.streams.labels import class_names, find_labels

DIGITS = digits_on_photographs(samples=20, size=24)
TALL = Image.fromarray(DIGITS.images[:2].reshape(48, 24, 3))  # two digits, one above the other


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def alter(name: str, image: Image.Image, seed: int = 0) -> np.ndarray:
    return pixels(altered([(image, 0)], name, seed=seed)[0][0])


def keep(batch: list) -> list:
    return batch


# --- what each does ------------------------------------------------------------------------


def test_values_of_simple_alterations() -> None:
    values = pixels(TALL)
    assert (alter("plain", TALL) == values).all()
    assert (alter("inverted", TALL) == 255 - values).all()
    luminance = (values @ [0.299, 0.587, 0.114])[..., None]  # ITU-R 601-2
    assert np.abs(alter("grey", TALL) - luminance).max() <= 1
    turned = alter("rotated", TALL)
    assert turned.shape == (24, 48, 3)
    assert all((turned[23 - x, y] == values[y, x]).all() for y in range(48) for x in range(24))


@pytest.mark.parametrize("side", [24, 96])
def test_blur_is_a_gaussian_relative_to_the_shorter_side(side: int) -> None:
    image = TALL.resize((side, 2 * side), Image.Resampling.BICUBIC)
    exact = gaussian_filter(np.asarray(image, float), (side / 24, side / 24, 0), mode="nearest")
    difference = np.abs(alter("blurred", image) - exact)
    assert difference.mean() < 1.5  # Pillow approximates it by boxes
    assert difference.mean() < 0.2 * np.abs(pixels(image) - exact).mean()


def test_edges_are_the_longest_gradient_of_a_channel() -> None:
    image = Image.fromarray(DIGITS.images[0][:8, :6])  # so small that next to nothing is smoothed
    values = pixels(image)
    lengths = np.zeros((8, 6))
    for y in range(8):
        for x in range(6):
            down = values[min(y + 1, 7), x] - values[max(y - 1, 0), x]
            right = values[y, min(x + 1, 5)] - values[y, max(x - 1, 0)]
            lengths[y, x] = max((down**2 + right**2) ** 0.5)
    found = alter("edges", image)
    assert found.max() == 255 and (found == found[..., :1]).all()
    assert np.abs(found[..., 0] - 255 * lengths / lengths.max()).max() <= 255 * 0.06


def test_edges_find_a_border_that_grey_hides() -> None:
    red, green = (149, 0, 0), (0, 76, 0)  # of the same luminance, 45
    image = Image.new("RGB", (16, 16), red)
    image.paste(green, (8, 0, 16, 16))
    assert np.ptp(alter("grey", image)) <= 1
    found = alter("edges", image)[..., 0]
    assert (found[:, 7:9] > 250).all() and (found[:, [0, 1, 2, 13, 14, 15]] == 0).all()
    assert (alter("edges", Image.new("RGB", (4, 4), red)) == 0).all()


def test_noise_has_its_deviation_and_is_drawn_by_number_and_seed() -> None:
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    data = altered([grey] * 3, "noise")
    noise = pixels(data[0][0]) - 128
    assert abs(noise.std() - 25.5) < 0.7 and abs(noise.mean()) < 0.8
    backwards = {i: pixels(data[i][0]) for i in (2, 1, 0)}
    assert all((pixels(data[i][0]) == backwards[i]).all() for i in range(3))
    assert (pixels(data[-1][0]) == backwards[2]).all()
    assert (backwards[0] != backwards[1]).any()
    assert (alter("noise", grey, seed=1) != backwards[0]).any()
    white = alter("noise", Image.new("L", (64, 64), 250))
    assert white.max() == 255 and white.min() > 120  # cut off, not wrapped around
    copies = DataLoader(pickle.loads(pickle.dumps(data)), 1, collate_fn=keep)
    assert all((pixels(batch[0][0]) == backwards[i]).all() for i, batch in enumerate(copies))


def test_nothing_random_of_the_process_is_used() -> None:
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    for name in ALTERATIONS:
        altered(DIGITS, name)[0]
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (np.random.get_state()[1] == state[1]).all()


@pytest.mark.parametrize("name", ALTERATIONS)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "I;16", "1"])
def test_any_image_keeps_its_size_and_the_data_set_its_images(name: str, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.arange(15, dtype=np.uint16).reshape(3, 5) * 4000)
    else:
        image = TALL.resize((5, 3)).convert(mode)
    before = image.tobytes()
    found = altered([(image, 7)], name)[0]
    assert found[0].size == ((3, 5) if name == "rotated" else (5, 3))
    assert found[0].mode == ("L" if mode == "L" else "RGB") and found[1] == 7
    assert image.tobytes() == before
    assert altered([Image.new(mode, (1, 1))], name)[0][0].size == (1, 1)


# --- labels --------------------------------------------------------------------------------


def save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def test_of_folders_no_file_is_read_before_its_turn(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "1.png", TALL)
    save(tmp_path / "dog" / "1.png", TALL)
    (tmp_path / "dog" / "1.png").write_bytes(b"no image")
    data = altered(Subset(image_folder(tmp_path), [1, 0]), "inverted")
    benchmark = joint(data, data, eval_transform=to_tensor)
    assert class_names(data) == class_names(Subset(data, [0])) == ["cat", "dog"]
    assert list(benchmark.train_stream[0].dataset.targets) == [1, 0]
    image, label = data[1]
    assert label == 0 and (pixels(image) == 255 - pixels(TALL)).all()
    assert torch.equal(benchmark.test_stream[0].dataset[1][0], to_tensor(image))


def test_hidden_and_missing_labels_stay_so() -> None:
    partly = hide_labels(DIGITS, 0.5)
    assert find_labels(altered(partly, "grey")) == find_labels(partly)
    assert [label for _, label in altered(partly, "grey")] == partly.targets
    nothing = altered(without_labels(DIGITS), "grey")
    assert find_labels(nothing) == ([-1] * 20, DIGITS.targets) and len(nothing[0]) == 1
    assert len(altered([TALL], "grey")[0]) == 1


def test_data_sets_of_torchvision_and_parts_put_together(tmp_path: Path) -> None:
    fake = FakeData(3, (3, 6, 6), 4)
    both = altered(ConcatDataset([Subset(fake, [2, 0]), DIGITS]), "inverted")
    assert both.targets == [int(fake[2][1]), int(fake[0][1]), *DIGITS.targets]
    assert (pixels(both[1][0]) == 255 - pixels(fake[0][0])).all()
    digits = MNIST.__new__(MNIST)  # its files would be downloaded
    digits.data = torch.arange(2 * 28 * 28).reshape(2, 28, 28).remainder(256).to(torch.uint8)
    digits.targets, digits.transform, digits.target_transform = torch.tensor([3, 8]), None, None
    grey = altered(digits, "inverted")
    assert grey.targets == [3, 8] and grey[1][1] == 8
    assert (pixels(grey[1][0]) == 255 - digits.data[1].numpy()).all()
    assert class_names(grey) == MNIST.classes


class Tensors(Dataset):
    targets = (5,)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.zeros(3, 4, 4), 5


def test_what_is_refused() -> None:
    with pytest.raises(UnknownOptionError, match=r"got 'invert'; did you mean inverted\?"):
        altered(DIGITS, "invert")
    with pytest.raises(UnknownOptionError, match=r"without transform groups.*to altered"):
        altered(as_classification_dataset(DIGITS), "grey")
    with pytest.raises(UnknownOptionError, match=r"seed=….*at least 0; got -1"):
        altered(DIGITS, "noise", seed=-1)
    with pytest.raises(UnknownOptionError, match=r"expected PIL images; got Tensor"):
        altered(Tensors(), "grey")[0]
    with pytest.raises(IndexError):
        altered(DIGITS, "grey")[20]
    assert len(altered(ImageFiles([], []), "grey")) == 0
