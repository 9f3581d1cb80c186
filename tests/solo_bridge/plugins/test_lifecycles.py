"""Plugins that change the network for an experience: parts of online streams, pickles midway."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.benchmarks import split_online_stream
from avalanche.core import SupervisedPlugin
from torch import Tensor

from avalanche_branchtune import BranchTuningPlugin, FixedNormsPlugin, is_expanded
from avalanche_branchtune.lifecycle import ExperiencePlugin
from solo_bridge import Frozen
from solo_bridge.plugins import (
    CaSSLePlugin,
    CLRPlugin,
    KaizenPlugin,
    KappaTunePlugin,
    L2Plugin,
    NaPPlugin,
    PFRPlugin,
)
from tests.selfsupervised import method, strategy, stream, weights

PLUGINS: dict[str, Callable[[], Any]] = {
    "branch_tuning": lambda: BranchTuningPlugin(verbose=False),
    "cassle": lambda: CaSSLePlugin(hidden=16),
    "clr": lambda: CLRPlugin(verbose=False),
    "fixed_norms": lambda: FixedNormsPlugin(verbose=False),
    "kaizen": lambda: KaizenPlugin(hidden=16, classifier_hidden=16),
    "kappatune": lambda: KappaTunePlugin(verbose=False),
    "nap": NaPPlugin,
    "pfr": lambda: PFRPlugin(hidden=16),
}


def train(plugins: list[Any], experiences: Any, **settings: Any) -> Any:
    run = strategy(method(), plugins, lr=0.3, train_epochs=1, **settings)
    torch.manual_seed(0)
    for experience in experiences:
        run.train(experience)
    return run


def whole() -> Any:
    return stream(2).train_stream


def parts(size: int) -> Any:
    return split_online_stream(
        whole(), experience_size=size, access_task_boundaries=True, shuffle=False
    )


@pytest.mark.parametrize("name", list(PLUGINS))
def test_an_experience_in_one_part_is_the_experience(name: str) -> None:
    sizes = {len(e.dataset) for e in whole()}
    assert len(sizes) == 1
    size = sizes.pop()
    plain, online = train([PLUGINS[name]()], whole()), train([PLUGINS[name]()], parts(size))
    # Avalanche marks no part as the last where the parts divide an experience: the end of the
    # stream's last one is not known.
    for run in (plain, online):
        for plugin in run.plugins:
            if isinstance(plugin, ExperiencePlugin) and plugin.under_way is not None:
                plugin.close(run, finished=True)
    assert torch.equal(weights(plain.model), weights(online.model))


class Look(SupervisedPlugin):
    """In every minibatch: how many experiences were trained, and what learns."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, bool, list[int]]] = []
        self.held: set[int] = set()

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        held = [id(p) for g in strategy.optimizer.param_groups for p in g["params"]]
        assert len(set(held)) == len(held), "nothing is in the optimizer twice"
        self.held = set(held)
        experience = strategy.experience.origin_experience.current_experience
        learning = sorted(n for n, p in strategy.model.named_parameters() if p.requires_grad)
        self.seen.append((experience, is_expanded(strategy.model), [len(learning)]))


@pytest.mark.parametrize("name", list(PLUGINS))
def test_later_parts_go_on_with_a_fresh_optimizer(name: str) -> None:
    look, plugin = Look(), PLUGINS[name]()
    train([plugin, look], parts(25))
    learning = {e: {tuple(n) for x, _, n in look.seen if x == e} for e in (0, 1)}
    assert all(len(n) == 1 for n in learning.values()), "the same all through an experience"
    assert {e: {x for y, x, _ in look.seen if y == e} for e in (0, 1)} == {
        0: {False},
        1: {name == "branch_tuning"},
    }
    if name == "clr":
        assert list(plugin.tasks) in ([], [1]) and plugin.under_way in (1, None)
        maps = {id(p) for p in plugin._joined}
        assert maps and maps <= look.held
    if name in ("cassle", "kaizen", "pfr"):
        predictor = {id(p) for p in plugin.predictor.parameters()}
        assert predictor and predictor <= look.held


def test_frozen_learns_all_parts_of_the_first_experience() -> None:
    run = Frozen(method(), optimizer="sgd", lr=0.3, train_mb_size=20, evaluator=None)
    before, moved = weights(run.model), []
    for part in parts(25):
        run.train(part)
        moved.append(not torch.equal(before, weights(run.model)))
        before = weights(run.model)
    assert moved == [True, True, False, False]


def test_l2_holds_the_weights_of_whole_experiences() -> None:
    anchors: list[int] = []

    class Anchors(SupervisedPlugin):
        def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            anchors.append(len(plugin.anchor))

    plugin = L2Plugin()
    train([plugin, Anchors()], parts(30))
    assert anchors[:2] == [0, 0], "none within the first experience"


class Save(SupervisedPlugin):
    """Pickle the other plugin with the strategy's parts, in the middle of an experience."""

    def __init__(self, plugin: Any) -> None:
        super().__init__()
        self.plugin = plugin
        self.file = io.BytesIO()

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.clock.train_exp_counter == 1 and not self.file.tell():
            pickle.dump((self.plugin, strategy.model, strategy.optimizer), self.file)


@pytest.mark.parametrize("name", list(PLUGINS))
def test_pickled_in_the_middle_of_an_experience(name: str) -> None:
    """The copy is closed as an interrupted experience is, and trains the experience again."""
    plugin = PLUGINS[name]()
    save = Save(plugin)
    train([plugin, save], whole())
    save.file.seek(0)
    copied, model, optimizer = pickle.load(save.file)
    assert copied.under_way == 1 and plugin.under_way is None
    held = {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert held & {id(p) for p in model.parameters()}, "one object graph"
    run = strategy(model, [copied], lr=0.3, train_epochs=1)
    run.clock.train_exp_counter = 1
    before = [p.requires_grad for p in method().parameters()]
    run.train(whole()[1])
    assert copied.under_way is None and not is_expanded(model)
    plain = [p.requires_grad for n, p in model.named_parameters() if not n.endswith("clr_map")]
    assert plain == before
    assert all(isinstance(p, Tensor) and p.isfinite().all() for p in model.state_dict().values())
