"""Probes over streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from avalanche_branchtune.errors import ProbeError, UnknownOptionError
from avalanche_branchtune.evaluation import (
    ClassifierProbe,
    KNNProbe,
    LinearProbe,
    StreamProbe,
    knn_probe,
)
from avalanche_branchtune.metrics import AnalysisMetric, ProbeMetric
from avalanche_branchtune.streams import ArrayImages, class_incremental
from tests.avalanche_branchtune.evaluation.labelled import TEST, TRAIN, labelled


def test_scopes_are_what_they_say() -> None:
    everything = StreamProbe(KNNProbe(5), TRAIN, TEST).measure(nn.Flatten(), 1)
    x, y = torch.cat([d.tensors[0] for d in TRAIN]), torch.cat([d.tensors[1] for d in TRAIN])
    right = total = 0
    for i, data in enumerate(TEST):
        by_hand = knn_probe(nn.Flatten(), TensorDataset(x, y), data, k=5)
        assert everything.accuracies[i] == by_hand.accuracy < 1
        right, total = right + by_hand.accuracy * len(data), total + len(data)
    assert everything.overall == pytest.approx(right / total)

    seen = StreamProbe(KNNProbe(5), TRAIN, TEST, scope="seen").measure(nn.Flatten(), 2)
    bank = TensorDataset(x[:80], y[:80])
    assert seen.accuracies[:2] == [knn_probe(nn.Flatten(), bank, d, k=5).accuracy for d in TEST[:2]]
    assert seen.accuracies[2] is None and seen.name if hasattr(seen, "name") else True
    nothing = StreamProbe(KNNProbe(5), TRAIN, TEST, scope="seen").measure(nn.Flatten(), 0)
    assert nothing.accuracies == [None] * 3 and nothing.overall is None

    each = StreamProbe(KNNProbe(5), TRAIN, TEST, scope="experience").measure(nn.Flatten(), 0)
    assert each.accuracies == [
        knn_probe(nn.Flatten(), a, b, k=5).accuracy for a, b in zip(TRAIN, TEST, strict=True)
    ]
    assert each.overall > everything.overall
    assert {everything.settings["fitted on"], seen.settings["fitted on"]} == {
        "all experiences of the stream",
        "the experiences trained so far",
    }


def test_one_test_set_for_all_experiences() -> None:
    shared = [labelled([0, 1] * 20, 7)]
    trains = [labelled([0, 1] * 20, s) for s in range(3)]
    probe = StreamProbe(KNNProbe(5), trains, shared, scope="seen")
    one, three = probe.measure(nn.Flatten(), 1), probe.measure(nn.Flatten(), 3)
    assert len(one.accuracies) == 1 and one.accuracies[0] != three.accuracies[0]


def test_transfer_to_another_data_set_and_few_labels() -> None:
    other_train, other_test = [labelled([6, 7] * 50, 8)], [labelled([6, 7] * 50, 9)]
    probe = StreamProbe(LinearProbe(), other_train, other_test, label_share=0.1)
    result = probe.measure(nn.Flatten(), 2)
    assert 0.5 < result.overall < 1
    assert result.settings["training labels"] == "10% of each class"


def test_the_networks_own_classifier() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 6))
    result = StreamProbe(ClassifierProbe(), TRAIN, TEST).measure(model, 0)
    x, y = TEST[1].tensors
    assert result.accuracies[1] == (model(x).argmax(1) == y).double().mean()
    assert result.settings["probe"].startswith("the network's own classifier")


def relabelled(data: TensorDataset) -> TensorDataset:
    return TensorDataset(data.tensors[0], data.tensors[1] + 0)


def test_bad_input() -> None:
    with pytest.raises(UnknownOptionError, match="all, seen, experience"):
        StreamProbe(KNNProbe(), TRAIN, TEST, scope="past")
    with pytest.raises(ProbeError, match="3 training and 2 test experiences"):
        StreamProbe(KNNProbe(), TRAIN, TEST[:2], scope="seen")
    images = ArrayImages(np.zeros((4, 2, 2, 3), np.uint8), [0, 0, 1, 1], [0] * 4)
    halves = class_incremental(images, images, 2, class_order=[0, 1])
    with pytest.raises(ProbeError, match=r"that the first experience has not, \[1\] …"):
        StreamProbe(KNNProbe(), halves.train_stream, [images], scope="seen")
    with pytest.raises(ProbeError, match="at least one of each"):
        StreamProbe(KNNProbe(), [], TEST)
    with pytest.raises(ProbeError, match=r"no training sample is labelled \[4, 5\]"):
        StreamProbe(KNNProbe(5), TRAIN[:2], TEST).measure(nn.Flatten(), 0)
    with pytest.raises(ProbeError, match="no sample of test experience 1 has a label"):
        StreamProbe(KNNProbe(5), TRAIN, [TEST[0], labelled([-1, -1]), TEST[2]]).measure(
            nn.Flatten(), 0
        )
    with pytest.raises(ProbeError, match="has no attribute `features`"):
        StreamProbe(KNNProbe(5), TRAIN, TEST, backbone="features").measure(nn.Flatten(), 0)
    with pytest.raises(ProbeError, match="labelled data"):
        knn_probe(nn.Flatten(), TensorDataset(torch.ones(9, 1, 2, 4)), TEST[0])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: KNNProbe(k=0), r"KNNProbe\(k=…\): .* at least 1; got 0"),
        (lambda: KNNProbe(k=2.5), r"KNNProbe\(k=…\)"),
        (lambda: KNNProbe(temperature=0), r"KNNProbe\(temperature=…\): .*above 0; got 0"),
        (lambda: KNNProbe(temperature="0.1"), r"KNNProbe\(temperature=…\)"),
        (lambda: KNNProbe(distance="manhattan"), r"KNNProbe\(distance=…\)"),
        (lambda: knn_probe(nn.Flatten(), TRAIN[0], TEST[0], k=0), r"^knn_probe\(k=…\)"),
        (lambda: LinearProbe("svm"), r"LinearProbe\(protocol=…\)"),
        (lambda: LinearProbe("sgd", lr=0), r"LinearProbe\(lr=…\)"),
        (lambda: LinearProbe("sgd", epochs=0), r"LinearProbe\(epochs=…\)"),
        (lambda: LinearProbe("sgd", batch_size=0), r"LinearProbe\(batch_size=…\)"),
        (
            lambda: StreamProbe(KNNProbe(), TRAIN, TEST, label_share=2),
            r"StreamProbe\(label_share=…",
        ),
        (
            lambda: StreamProbe(KNNProbe(), TRAIN, TEST, label_share=0),
            r"StreamProbe\(label_share=…",
        ),
        (lambda: StreamProbe(KNNProbe(), TRAIN, TEST, batch_size=0), r"StreamProbe\(batch_size=…"),
        (
            lambda: StreamProbe(KNNProbe(), TRAIN, TEST, workers=2),
            "batch_size, device, num_workers",
        ),
        (
            lambda: ProbeMetric(StreamProbe(KNNProbe(), TRAIN, TEST), samples=0),
            r"ProbeMetric\(samp",
        ),
        (lambda: AnalysisMetric(TEST, samples=3), r"AnalysisMetric\(samples=…\): .* at least 4"),
        (lambda: AnalysisMetric(TEST, batch_size=1), r"AnalysisMetric\(batch_size=…\)"),
    ],
)
def test_options_are_checked_when_a_probe_is_made(make: Any, said: str) -> None:
    with pytest.raises(UnknownOptionError, match=said):
        make()


def test_a_label_set_that_changes_is_refused() -> None:
    changing = [TEST[0], relabelled(TEST[1]), TEST[2]]
    probe = StreamProbe(KNNProbe(5), TRAIN, changing)
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 4))
    probe.measure(model, 1)
    with torch.no_grad():
        model[1].weight += 1  # another network: features and labels are read anew
    changing[1].tensors[1][0] = 5
    with pytest.raises(ProbeError, match=r"test experience 1 changed from \[2, 3\] to \[2, 3, 5\]"):
        probe.measure(model, 2)


def test_an_own_classifier_tells_apart_what_the_scope_says() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 6))
    scores = model(TEST[1].tensors[0])
    for scope, allowed in (("experience", [2, 3]), ("seen", [0, 1, 2, 3])):
        found = StreamProbe(ClassifierProbe(), TRAIN, TEST, scope=scope).measure(model, 2)
        by_hand = torch.tensor(allowed)[scores[:, allowed].argmax(1)] == TEST[1].tensors[1]
        assert found.accuracies[1] == by_hand.double().mean()


def test_what_decides_an_accuracy_is_in_its_settings() -> None:
    def settings(**options: Any) -> dict[str, Any]:
        model = nn.Sequential(nn.Flatten(), nn.Identity())
        return StreamProbe(KNNProbe(5), TRAIN, TEST, **options).measure(model, 0).settings

    assert settings(backbone="0") != settings()
    assert settings(label_share=0.011) != settings(label_share=0.014)
    assert settings(label_share=0.5, seed=1) != settings(label_share=0.5)


def test_a_data_set_inside_a_subset_is_not_taken_for_it() -> None:
    part = torch.utils.data.Subset(TEST[0], range(4))
    assert len(StreamProbe(KNNProbe(1), TRAIN[:1], [part]).test[0]) == 4
