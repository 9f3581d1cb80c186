"""What the figures show, and that they are files one can use."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from avalanche_branchtune.report import FeatureSample, ProbeRecord, Run, group_runs
from avalanche_branchtune.report.embedding import embed
from avalanche_branchtune.report.figures import all_pictures, save
from avalanche_branchtune.report.figures.curves import curves
from avalanche_branchtune.report.figures.layers import (
    branch_norms,
    last_stability_plasticity,
    stability_plasticity_steps,
)
from avalanche_branchtune.report.figures.matrices import matrix
from avalanche_branchtune.report.figures.scatter import embeddings
from avalanche_branchtune.report.figures.style import looks
from avalanche_branchtune.report.figures.traces import trace
from tests.run_records import FIRST, PROTOCOL, SECOND, full, joint, probe, run


def lines(picture: Any, panel: int = 0) -> list[list[float]]:
    return [list(map(float, line.get_ydata())) for line in picture.figure.axes[panel].lines]


def texts(picture: Any) -> list[str]:
    found = picture.figure.findobj(matplotlib.text.Text)
    return [text.get_text() for text in found if text.get_text()]


def test_curves_show_means_and_levels() -> None:
    groups = group_runs([run(seed=0), run(seed=1, rows=SECOND[:2]), joint()])
    picture = curves(groups, "knn")
    assert picture is not None
    drawn = lines(picture)
    assert drawn[0] == pytest.approx([100 * (1.3 + 1.0) / 6, 65.0, 50.0])
    assert drawn[1] == [50.0], "hollow: over fewer runs"
    assert drawn[2:] == [pytest.approx([80.0, 80.0]), [20.0, 20.0]], "joint, before training"
    assert "fine-tuning (n = 2, 1 of 2 runs partial)" in texts(picture)
    for number in ("38.3 ± 7.1", "65.0 ± 7.1", "50.0 (n = 1)", "level at 80.0", "level at 20.0"):
        assert number in picture.alt
    assert curves(group_runs([joint()]), "knn") is None


def test_first_levels_that_differ_stand_alone() -> None:
    other = run("other", probes={"knn": probe(random_overall=0.3)})
    picture = curves(group_runs([run(), other]), "knn")
    assert picture is not None
    assert {"fine-tuning before training", "other before training"} <= set(texts(picture))


def test_matrix_shows_numbers_and_what_is_missing() -> None:
    rows: list[list[float | None]] = [[0.8, None, None], [0.9, 0.7, None]]
    (group,) = group_runs([run(probes={"knn": probe(rows, random=None)})])
    picture = matrix(group, "knn")
    assert picture is not None
    assert {"80.0", "90.0", "70.0", "not measured"} <= set(texts(picture))
    hatched = [p for p in picture.figure.axes[0].patches if p.get_hatch()]
    assert sum(p.get_width() for p in hatched) == 2 + 1 + 3
    assert "After 1: 90.0, 70.0, not measured." in picture.alt
    assert "partial: 2 of 3" in picture.alt


def test_matrix_of_two_seeds_and_of_joint_training() -> None:
    groups = group_runs([run(seed=0), run(seed=1, rows=SECOND), joint()])
    picture = matrix(groups[0], "knn")
    assert picture is not None and "After 2: 65.0, 55.0, 45.0." in picture.alt
    assert "After no training: 10.0, 20.0, 30.0." in picture.alt
    together = matrix(groups[1], "knn")
    assert together is not None and "After all: 90.0, 80.0, 70.0." in together.alt


def test_one_common_test_set_and_many_experiences() -> None:
    common = run(probes={"knn": probe([[0.5], [0.6], [0.7]], random=[0.1])})
    picture = matrix(group_runs([common])[0], "knn")
    assert picture is not None and "70.0" in picture.alt
    many = ProbeRecord({**PROTOCOL}, [[0.5] * 30] * 30, [0.5] * 30)
    picture = matrix(group_runs([Run("long", 30, 0, {}, {"knn": many})])[0], "knn")
    assert picture is not None and "50.0" not in texts(picture), "too small to be read"


def test_layers() -> None:
    groups = group_runs([full(), run("half", rows=FIRST[:2])])
    last = last_stability_plasticity(groups)
    assert last is not None
    assert lines(last, 0)[0] == [0.8, 0.6] and lines(last, 1)[0] == [0.4, 0.6]
    assert "half (n = 1, partial: 2 of 3 experiences), after experience 1" in last.alt
    assert "stability S of Branch-tuning (n = 1): mean 0.700, least 0.600 at conv2" in last.alt
    steps = stability_plasticity_steps(groups)
    assert steps is not None and "0.800 after 1, 0.700 after 2" in steps.alt
    norms = branch_norms(groups[0])
    assert norms is not None and lines(norms) == [[0.25, 0.5], [0.125, 1.5]]
    assert "most 1.500 at conv2" in norms.alt
    assert branch_norms(groups[1]) is None
    assert last_stability_plasticity(group_runs([joint()])) is None


def test_trace_shows_where_experiences_begin() -> None:
    picture = trace(group_runs([full()])[0])
    assert picture is not None
    drawn = picture.figure.axes[0].lines
    assert list(drawn[0].get_ydata()) == pytest.approx([10.0, 10.0, 10.0, 60.0])
    assert [float(line.get_xdata()[0]) for line in drawn[3:]] == [15.0, 25.0]
    assert "test experience 0: first 10.0, highest 60.0, last 60.0." in picture.alt


def test_embedding_by_pca(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    line = np.outer(np.arange(20.0), [3.0, 4.0, 0.0])
    found = embed(line)
    assert found.method == "PCA, whose two axes hold 100% of the variance"
    assert np.abs(np.diff(found.points[:, 0])) == pytest.approx(np.full(19, 5.0))
    assert (embed(line).points == found.points).all()
    cloud = np.random.default_rng(0).normal(size=(90, 4))
    assert embed(cloud).points == pytest.approx(PCA(2).fit_transform(cloud))
    assert len(embed(cloud, most=40).taken) == 40
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "do not vary" in embed(np.ones((5, 3))).method
        assert embed(np.array([[1.0], [2.0]])).points[:, 1].tolist() == [0.0, 0.0]
    (picture,) = embeddings(group_runs([full()]))
    assert "60 test samples" in picture.alt and "PCA" in picture.alt and "PCA" in picture.caption


def test_embedding_by_umap_if_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    class UMAP:
        def __init__(self, **options: Any) -> None:
            asked.append(options)

        def fit_transform(self, features: np.ndarray) -> np.ndarray:
            return features[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=UMAP))
    assert "UMAP with 11 neighbours" in embed(np.eye(12)).method
    assert asked[0]["random_state"] == 0, "the same features give the same picture"
    assert "PCA" in embed(np.eye(5)).method, "too few samples for neighbourhoods"


def test_files_are_whole_and_the_same_each_time(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        picture = curves(group_runs([run(), joint()]), "knn")
        assert picture is not None
        save(picture, tmp_path / folder)
    for suffix in ("svg", "png", "pdf"):
        one, two = ((tmp_path / f / f"curves-knn.{suffix}").read_bytes() for f in ("a", "b"))
        assert one == two and len(one) > 5000
    with Image.open(tmp_path / "a" / "curves-knn.png") as image:
        assert image.width > 800 and len(set(np.asarray(image.convert("L")).flat)) > 20
    assert (tmp_path / "a" / "curves-knn.pdf").read_bytes().startswith(b"%PDF")


def test_names_are_taken_literally(tmp_path: Path) -> None:
    names = [r"$\frac{$ 100% _&<b>", "_hidden", "微调", "a\x01b\nc", "--", "ß" * 90]
    before = dict(matplotlib.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups = group_runs([full(name) for name in names])
        pictures = all_pictures(groups)
        assert dict(matplotlib.rcParams) == before
        (drawn,) = pictures["curves"]
        labels = "\n".join(texts(drawn))
        for shown in (r"$\frac{$ 100% _&<b> (n = 1)", "_hidden (n = 1)", "微调", "a\ufffdb c"):
            assert shown in labels
        keys = [p.key for some in pictures.values() for p in some]
        assert len(set(keys)) == len(keys)
        assert all(set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for key in keys)
        ElementTree.fromstring(save(drawn, tmp_path))


def test_no_pyplot_state() -> None:
    import matplotlib.pyplot as plt

    all_pictures(group_runs([full()]))
    assert plt.get_fignums() == []


def test_embeddings_are_coloured_by_class_on_common_axes() -> None:
    runs = [full(), full("wider", seed=3), joint()]
    given = [[[2.0, 0], [0, 5], [1, 1]], [[-1.0, 0], [3, 3], [0, 1]]]
    for one, features in zip(runs[:2], given, strict=True):
        one.sample = FeatureSample(np.array(features), np.array([4, 7, 4]), np.array([0, 0, 1]))
    pictures = embeddings(group_runs(runs))
    assert [picture.strategy for picture in pictures] == ["Branch-tuning", "wider"]
    axes = [picture.figure.axes[0] for picture in pictures]
    assert axes[0].get_xlim() == axes[1].get_xlim() and axes[0].get_ylim() == axes[1].get_ylim()
    for one in axes:
        first, second = (np.asarray(points.get_offsets()) for points in one.collections)
        assert len(first) == 2 and len(second) == 1, "class 4, class 7"
        (left, right), (low, high) = one.get_xlim(), one.get_ylim()
        for x, y in [*first, *second]:
            assert left < x < right and low < y < high
    assert {"class 4", "class 7"} <= set(texts(pictures[0]))
    unit = np.array([[1, 0], [0, 1], [0.5**0.5, 0.5**0.5]])
    drawn = np.concatenate([points.get_offsets() for points in axes[0].collections])
    gaps = lambda p: sorted(np.linalg.norm(p[i] - p[j]) for i, j in ((0, 1), (0, 2), (1, 2)))  # noqa: E731
    assert gaps(drawn) == pytest.approx(gaps(unit)), "features of length 1"


def test_one_colour_for_each_strategy_and_grey_for_references() -> None:
    names = [*(f"s{i}" for i in range(40)), "joint", "fine-tuning", "frozen"]
    groups = group_runs([run(name, 0) for name in names])
    assert [group.name for group in groups][-3:] == ["joint", "fine-tuning", "frozen"]
    colours = [matplotlib.colors.to_rgb(style.colour) for style in looks(groups)]
    assert len(set(colours)) == len(groups)
    assert [max(c) == min(c) for c in colours] == [False] * 40 + [True] * 3
    two = [
        looks(group_runs([run(n) for n in some]))[0] for some in (["a", "joint"], ["joint", "a"])
    ]
    assert two[0] == two[1]
    picture = curves(groups[:2], "knn")
    assert picture is not None
    drawn = [line.get_color() for line in picture.figure.axes[0].lines[:2]]
    assert drawn == [style.colour for style in looks(groups)[:2]]


def test_no_panel_is_empty() -> None:
    def panels(picture: Any) -> list[int]:
        return [len(a.lines) for a in picture.figure.axes if a.get_visible()]

    groups = group_runs([full(plasticity=[])])
    last, steps = last_stability_plasticity(groups), stability_plasticity_steps(groups)
    assert last is not None and panels(last) == [1] and "plasticity" not in last.alt
    assert steps is not None and panels(steps) == [1, 1] and "lasticity" not in steps.caption
    known = {"conv1": 0.5}
    early = full(stability=[{}, known, known], plasticity=[known, known, known])
    steps = stability_plasticity_steps(group_runs([early]))
    assert steps is not None and panels(steps) == [1] * 5
    assert 0 in [len(a.lines) for a in steps.figure.axes], "stability after the first experience"


def test_names_of_layers_are_short() -> None:
    long = [f"encoder.layer{i}.0.conv1" for i in (1, 2)] + [
        "encoder.a_name_of_a_layer_that_is_long"
    ]
    layers: list[dict[str, float]] = [dict.fromkeys(long, 0.5)] * 3
    picture = last_stability_plasticity(group_runs([full(stability=layers, plasticity=layers)]))
    assert picture is not None
    assert {"layer1.0.conv1", "layer2.0.conv1", "…ayer_that_is_long"} <= set(texts(picture))
    assert not [text for text in texts(picture) if "encoder" in text]


def test_characters_that_cannot_be_printed_break_no_file(tmp_path: Path) -> None:
    names = ["conv\x001", "a\x1b--b", "c\u202ed\n", "\ud800", "--><x>"]
    layers = [{}, *[{name: 0.5 + i / 10 for i, name in enumerate(names)}] * 2]
    odd = "p\x00\x0b"
    groups = group_runs(
        [
            run(
                "a\x00--",
                stability=layers,
                plasticity=layers,
                branch_norms=layers,
                probes={odd: probe()},
            )
        ]
    )
    pictures = [p for some in all_pictures(groups).values() for p in some]
    assert len(pictures) == 5
    for picture in pictures:
        ElementTree.fromstring(save(picture, tmp_path))
        assert all(c.isprintable() for c in picture.alt + picture.caption)
        assert all(c.isprintable() or c == "\n" for text in texts(picture) for c in text)


def test_a_matrix_of_which_little_was_measured_is_drawn_in_few_parts(tmp_path: Path) -> None:
    rows: list[list[float | None]] = [[0.5, *[None] * 999]]
    record = ProbeRecord({}, rows, [0.5])
    (group,) = group_runs([Run("a", 1000, probes={"kNN": record})])
    picture = matrix(group, "kNN")
    assert picture is not None
    assert len(picture.figure.axes[0].patches) == 1000, "not a million"
