"""Kaizen: the loss of all four terms, the classifier, labels that are missing or wrong."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.errors import LabelError
from avalanche_branchtune.streams import hide_labels, without_labels
from solo_bridge.plugins.distillation.kaizen import KaizenPlugin
from tests.oracles.distilled_training import Recomputed, classes, kaizen
from tests.selfsupervised import data, method, weights
from tests.solo_bridge.plugins.distillation.distilling import few, run_of

PUBLISHED = ["simclr", "byol", "barlow_twins", "mocov2plus", "vicreg", "swav"]


def plugin_of(**settings: Any) -> KaizenPlugin:
    return KaizenPlugin(**{"hidden": 16, "classifier_hidden": 16, **settings})


@pytest.mark.parametrize(
    ("name", "branches"), [*[(name, False) for name in PUBLISHED], ("byol", True)]
)
def test_loss_and_gradients_against_copies(name: str, branches: bool) -> None:
    plugin = plugin_of()
    check = Recomputed(plugin, kaizen(name), classes)
    extra = [BranchTuningPlugin(verbose=False)] if branches else []
    run = run_of([plugin, *extra, check], method(name), lr=0.2 if name == "vicreg" else 2.0)
    for experience in few(3):
        run.train(experience)
    assert [len(t) for t in check.totals] == [2, 2, 2]
    assert all(total - own > 0.1 for totals in check.totals for total, own in totals)
    assert check.gradients_compared == 2
    assert set(plugin.terms) == {"classification", "distillation", "classifier distillation"}


def test_settings_of_ones_own() -> None:
    plugin = plugin_of(form="cosine", weight=1.0, classifier_weight=7.0, teacher_bn="eval")
    check = Recomputed(plugin, kaizen("byol", 7.0), classes, teacher_train=False)
    run = run_of([plugin, check], method("vicreg"), lr=0.2)
    for experience in few(2):
        run.train(experience)
    assert check.gradients_compared == 1


def test_the_classifier_s_rate_and_decay() -> None:
    found: list[tuple[float, float]] = []
    plugin = plugin_of(classifier_weight_decay=None, scale_classifier_lr=True)

    class Look(SupervisedPlugin):
        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            group = strategy.optimizer.param_groups[-1]
            found.append((group["lr"], group["weight_decay"]))

    run = run_of([plugin, Look()], method("simclr"), weight_decay=0.25)
    run.train(few(1)[0])
    assert found == [(0.1 * 10 / 256, 0.25)] * 2


def test_partly_labelled_data() -> None:
    plugin = plugin_of()
    check = Recomputed(plugin, kaizen("simclr"), classes)
    run = run_of([plugin, check], method("simclr"))
    seen: set[int] = set()
    for experience in few(2, hide_labels(data(), 0.3)):
        run.train(experience)
        seen |= {int(y) for y in experience.dataset.targets}
    assert -1 in seen and len(seen) > 3


def test_data_without_any_label(caplog: pytest.LogCaptureFixture) -> None:
    plugin = plugin_of()
    gradients: list[float] = []

    class Look(SupervisedPlugin):
        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            assert plugin.classifier is not None
            gradients.append(
                sum(float(p.grad.abs().sum()) for p in plugin.classifier.parameters())  # type: ignore[union-attr]
            )
            assert plugin.terms["classification"] == 0.0

    run = run_of([plugin, Look()], method("simclr"), weight_decay=0.0)
    first, second, third = few(3, without_labels(data()))
    run.train(first)
    assert "no sample had a label" in caplog.text
    assert gradients == [0.0, 0.0]
    assert plugin.classifier is not None
    before = weights(plugin.classifier)
    run.train(second)
    assert plugin.terms["distillation"] > 0
    run.train(third)
    assert torch.isfinite(weights(run.model)).all()
    # Distilled towards its former self on other features: it moves, but hardly.
    assert (weights(plugin.classifier) - before).abs().max() < 0.1


def test_classifier_gives_no_gradient_to_the_network() -> None:
    def trained(rate: float, labels: bool) -> tuple[Tensor, Tensor]:
        torch.manual_seed(3)
        plugin = plugin_of(classifier_lr=rate, classifier_weight=rate)
        run = run_of([plugin], method("simclr"))
        for experience in few(2, data() if labels else without_labels(data())):
            run.train(experience)
        assert plugin.classifier is not None
        return weights(run.model), weights(plugin.classifier)

    reference, other, unlabelled = trained(0.1, True), trained(9.0, True), trained(0.1, False)
    assert torch.equal(reference[0], other[0])
    assert torch.equal(reference[0], unlabelled[0])
    assert not torch.equal(reference[1], other[1])
    assert not torch.equal(reference[1], unlabelled[1])


def test_classifier_is_kept_over_experiences_and_its_copy_is_frozen() -> None:
    plugin = plugin_of()
    found: list[nn.Module] = []
    frozen: list[Any] = []

    class Look(SupervisedPlugin):
        def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            assert plugin.classifier is not None
            found.append(plugin.classifier)
            if frozen:
                assert plugin._old_classifier is frozen[-1][0]
                state = plugin._old_classifier.state_dict()
                assert all(torch.equal(v, state[k]) for k, v in frozen[-1][1].items())
                assert not any(p.requires_grad for p in plugin._old_classifier.parameters())

    run = run_of([plugin, Look()], method("simclr"))
    for experience in few(3):
        run.train(experience)
        assert (
            plugin._old_classifier is not None and plugin._old_classifier is not plugin.classifier
        )
        assert plugin.classifier is not None
        assert torch.equal(weights(plugin._old_classifier), weights(plugin.classifier))
        frozen.append((plugin._old_classifier, copy.deepcopy(plugin._old_classifier.state_dict())))
    assert len({id(c) for c in found}) == 1
    assert [tuple(p.shape) for p in found[0].parameters()] == [(16, 8), (16,), (10, 16), (10,)]


def test_classifier_learns_and_is_judged_with_the_backbone() -> None:
    plugin = plugin_of(num_classes=10, classifier_lr=5.0)
    model = method("simclr", num_classes=None)
    with pytest.raises(LabelError, match="no classifier before training"):
        plugin.network(model)
    losses: list[float] = []

    class Look(SupervisedPlugin):
        def after_backward(self, strategy: Any, **kwargs: Any) -> None:
            losses.append(plugin.terms["classification"])

    run = run_of([plugin, Look()], model, train_epochs=20, lr=0.2)
    experience = few(1)[0]
    run.train(experience)
    assert losses[0] > 4 and losses[-1] < 2, "from 10 classes to the 2 that there are"
    network = plugin.network(model).eval()
    images = torch.stack([experience.dataset.eval()[i][0] for i in range(20)])
    with torch.no_grad():
        scores = network(images)
        assert plugin.classifier is not None
        assert torch.equal(scores, plugin.classifier(model.eval()(images)))
    seen = set(experience.classes_in_this_experience)
    assert set(scores.argmax(1).tolist()) <= seen


def test_unknown_number_of_classes() -> None:
    plugin = plugin_of()
    run = run_of([plugin], method("simclr", num_classes=None))
    before = weights(run.model)
    with pytest.raises(LabelError, match=r"pass KaizenPlugin\(num_classes=…\)"):
        run.train(few(1)[0])
    assert torch.equal(weights(run.model), before)
    assert not any(m._forward_hooks for m in run.model.modules())


def test_label_outside_the_classes() -> None:
    run = run_of([plugin_of(num_classes=3)], method("simclr", num_classes=None))
    with pytest.raises(LabelError, match="outside the classifier's 3 classes"):
        for experience in few(3):
            run.train(experience)
