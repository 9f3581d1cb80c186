"""DER: outputs of remembered images are held to what they were."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin
from torch import Tensor, nn

from avalanche_branchtune import BranchTuningPlugin, is_expanded
from avalanche_branchtune.errors import IncompatiblePluginError, UnknownOptionError, ViewsError
from avalanche_branchtune.streams import data_incremental
from solo_bridge import EvalTransform, SelfSupervisedMethod, solo_views
from solo_bridge.plugins import CaSSLePlugin, DERPlugin, LUMPPlugin
from solo_bridge.plugins.rehearsal import reservoir
from tests.oracles.replay import StepByStep
from tests.selfsupervised import (
    ALL_METHODS,
    VIEW,
    data,
    method,
    small_backbone,
    strategy,
    stream,
    weights,
)
from tests.solo_bridge.plugins.rehearsal.patterns import (
    BATCH,
    MEMORY,
    RATE,
    Look,
    Tiny,
    another_view,
    benchmark,
    image,
    run_of,
    two_views,
)
from tests.solo_bridge.test_strategy import Own

SIX = ("simclr", "byol", "barlow_twins", "mocov2plus", "vicreg", "swav")


class Terms(SupervisedPlugin):
    """Remembers the terms of plugins in each iteration."""

    def __init__(self, *plugins: Any) -> None:
        super().__init__()
        self.plugins = plugins
        self.seen: list[dict[str, float]] = []

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        seen = {"loss": float(strategy.loss.detach())}
        for plugin in self.plugins:
            seen.update(plugin.terms)
        self.seen.append(seen)


# ---- the training step


def drawn(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[Any]]:
    """What is drawn, as it is drawn: places of remembered images, and of new ones."""
    found: tuple[list[Any], list[Any]] = ([], [])
    for name, kept in zip(("some_of", "candidates"), found, strict=True):
        draw = getattr(reservoir, name)

        def keeping(*args: int, draw: Any = draw, kept: list[Any] = kept) -> Any:
            kept.append(draw(*args))
            return kept[-1]

        monkeypatch.setattr(reservoir, name, keeping)
    return found


@pytest.mark.parametrize("batch_size", [None, 3], ids=["all", "3"])
@pytest.mark.parametrize("output", ["features", "embeddings"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_weights_after_every_step_are_those_of_the_oracle(
    mode: str, output: str, batch_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices, places = drawn(monkeypatch)
    torch.manual_seed(0)
    plugin = DERPlugin(
        0.7,
        MEMORY,
        batch_size=batch_size,
        output=output,
        mode=mode,
        replay_view=another_view,
    )
    look, terms = Look(), Terms(plugin)
    run = run_of([plugin, look, terms])
    for experience in benchmark().train_stream:
        run.train(experience)
    assert len(look.weights) == 18 and len(choices) == 17
    assert {len(chosen) for chosen in choices} == {batch_size or BATCH}
    oracle = StepByStep(Tiny(), two_views, another_view, MEMORY, RATE, choices, places)
    step = oracle.der if mode == "train" else oracle.der_without_a_trace
    for numbers, found in zip(look.minibatches, look.weights, strict=True):
        step([image(n) for n in numbers], 0.7, output == "embeddings")
        assert torch.allclose(found, oracle.states[-1], rtol=1e-10, atol=1e-12)
    for k, target in enumerate(plugin.targets):
        assert torch.allclose(target, oracle.held[k][1], rtol=1e-10)
    assert all(f"replayed {output}" in seen for seen in terms.seen[1:])
    assert terms.seen[0].keys() == {"loss"} and plugin.memory.held.seen == 72


def test_in_eval_mode_the_term_is_nothing_for_a_network_that_did_not_change() -> None:
    found = {}
    for mode in ("eval", "train"):
        plugin = DERPlugin(mode=mode, replay_view=another_view)
        run = run_of(
            [plugin, terms := Terms(plugin)],
            optimizer=lambda groups: torch.optim.SGD(groups, lr=0.0),
        )
        run.model.backbone[1].momentum = run.model.projector[1].momentum = 0.0
        run.train(benchmark().train_stream[0])
        found[mode] = [seen["replayed features"] for seen in terms.seen[1:]]
    assert max(found["eval"]) < 1e-25 and min(found["train"]) > 1e-3


def test_stored_are_images_as_they_came_and_features_of_their_view_1() -> None:
    known = {i.tobytes() for i in data().images}
    seen: list[Tensor] = []

    class Features(SupervisedPlugin):
        def before_backward(self, strategy: Any, **kwargs: Any) -> None:
            backbone = copy.deepcopy(strategy.model.backbone)  # in training mode
            with torch.no_grad():
                seen.extend(backbone(strategy.mb_x[0]))

    plugin = DERPlugin(memory=30)
    run = strategy(method("byol"), [Features(), plugin], lr=0.1)
    for experience in stream().train_stream:
        run.train(experience)
    assert all(i.tobytes() in known for i in plugin.images) and len(plugin.images) == 30
    rows = torch.stack(seen)
    for z in plugin.targets:
        assert (rows - z).abs().amax(dim=1).min() < 1e-6
    assert all(len(z.untyped_storage()) == 8 * 4 for z in plugin.targets), "and no more"


def test_in_eval_mode_images_are_normalised_as_the_methods_views() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    model = method("vicreg", augmentations=[replace(VIEW, mean=mean, std=std)])
    plugin = DERPlugin(memory=20, mode="eval")
    run = strategy(model, [plugin], train_epochs=1)
    run.train(data_incremental(data(20), data(), 1).train_stream[0])
    plain = EvalTransform(8, mean, std)
    expected = {tuple(plain(i).flatten().tolist()) for i in data(20).images}
    assert {tuple(i.flatten().tolist()) for i in plugin.images} == expected


# ---- beside other plugins


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("norm_mode", ["eval", "affine"])
def test_norms_that_branch_tuning_fixed_stay_fixed(norm_mode: str, mode: str) -> None:
    plugin = DERPlugin(20.0, memory=20, mode=mode)
    branches = BranchTuningPlugin(verbose=False, norm_mode=norm_mode)
    model = method("vicreg")
    run = strategy(model, [plugin, branches], lr=0.1)
    first, second = stream().train_stream
    run.train(first)
    norm = next(m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d))
    before = copy.deepcopy(norm.state_dict())
    run.train(second)
    after = norm.state_dict()
    assert plugin.terms["replayed features"] > 0 and not is_expanded(model)
    assert torch.equal(before["weight"], after["weight"])
    assert torch.equal(before["bias"], after["bias"])
    passes = int(after["num_batches_tracked"] - before["num_batches_tracked"])
    own, added = 4 * 2, 4 * 2 if mode == "train" else 0  # 4 minibatches
    assert passes == (0 if norm_mode == "eval" else own + added)
    assert torch.equal(before["running_mean"], after["running_mean"]) == (norm_mode == "eval")


@pytest.mark.parametrize("name", ["simclr", "byol", "ressl"])
@pytest.mark.parametrize("output", ["features", "embeddings"])
def test_plugins_that_watch_the_methods_forward_pass_do_not_see_it(name: str, output: str) -> None:
    """CaSSLe's term does not depend on the order, nor, in the first step, on DER at all."""
    found, epochs = [], {"train_epochs": 1}
    for order in ("der+cassle", "cassle+der", "cassle"):
        der, cassle = DERPlugin(memory=20, output=output), CaSSLePlugin(hidden=8)
        given = [{"der": der, "cassle": cassle}[n] for n in order.split("+")]
        terms = Terms(cassle)
        run = strategy(method(name), [*given, terms], lr=0.0, **epochs)
        torch.manual_seed(0)
        np.random.seed(0)
        for experience in stream().train_stream:
            state = torch.get_rng_state()
            run.train(experience)
            torch.set_rng_state(state)
        found.append([seen["distillation"] for seen in terms.seen if "distillation" in seen])
    assert found[0] and found[0] == found[1]
    assert found[2][0] == pytest.approx(found[0][0], rel=1e-4)


@pytest.mark.parametrize("name", ["simclr", "byol"])
def test_order_beside_cassle_and_branch_tuning_does_not_matter(name: str) -> None:
    found = []
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        der, cassle = DERPlugin(memory=20, batch_size=8), CaSSLePlugin(hidden=8)
        plugins = [der, cassle, BranchTuningPlugin(verbose=False, norm_mode="eval")]
        terms = Terms(der, cassle)
        run = strategy(method(name), [*(plugins[i] for i in order), terms], lr=0.1)
        torch.manual_seed(0)
        for experience in stream().train_stream:
            run.train(experience)
        found.append(terms.seen)
    assert {"replayed features", "distillation"} <= set(found[0][-1])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert a == pytest.approx(b, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", [*SIX, "dino"])
def test_three_experiences_beside_other_plugins(name: str) -> None:
    for order in ((0, 1, 2), (2, 1, 0)):
        der, branches = DERPlugin(memory=20, batch_size=8), BranchTuningPlugin(verbose=False)
        plugins = [der, CaSSLePlugin(hidden=8), branches]
        run = strategy(method(name), [plugins[i] for i in order], train_epochs=1, lr=0.1)
        for experience in data_incremental(data(120), data(), 3).train_stream:
            run.train(experience, num_workers=2 if order[0] == 2 and name == "simclr" else 0)
            assert not is_expanded(run.model)
        assert torch.isfinite(weights(run.model)).all()
        assert der.terms["replayed features"] > 0 and len(branches.summaries) == 2


def test_in_eval_mode_it_stands_beside_lump() -> None:
    der = DERPlugin(memory=20, mode="eval")
    run = strategy(method(), [LUMPPlugin(memory=20), der], lr=0.1)
    for experience in stream().train_stream:
        run.train(experience)
    assert der.terms["replayed features"] > 0
    for plugin, why in ((LUMPPlugin(), "output of a mixture"), (ReplayPlugin(), "their number")):
        with pytest.raises(IncompatiblePluginError, match=f"DERPlugin beside .*{why}"):
            strategy(plugins=[DERPlugin(), plugin])


def test_half_precision_holds_outputs_in_full() -> None:
    plugin = DERPlugin(memory=10)
    run = strategy(method("byol"), [plugin], precision="bf16")
    for experience in stream().train_stream:
        run.train(experience)
    assert all(z.dtype == torch.float32 for z in plugin.targets)
    assert torch.isfinite(weights(run.model)).all()


# ---- interrupted, pickled


@pytest.mark.parametrize("event", ["after_backward", "after_update", "after_training_exp"])
def test_an_experience_that_is_trained_again_begins_from_the_same_memory(event: str) -> None:
    plugin, held = DERPlugin(memory=16), []

    class Stop(SupervisedPlugin):
        armed = True

        def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            held.append(plugin.memory.held)

    def stop(strategy: Any, **kwargs: Any) -> None:
        if Stop.armed and strategy.clock.train_exp_counter == 1:
            Stop.armed = False
            raise KeyboardInterrupt

    setattr(Stop, event, staticmethod(stop))
    run = strategy(
        plugins=[plugin, BranchTuningPlugin(verbose=False), Stop()], train_epochs=1, lr=0.1
    )
    first, second = stream().train_stream
    run.train(first)
    with pytest.raises(KeyboardInterrupt):
        run.train(second)
    assert (plugin.memory.held is held[1]) == (event == "after_backward")
    run.train(second)
    assert held[2] is held[1] and held[1] is not held[0]
    assert plugin.memory.held.seen == 80 and not is_expanded(run.model)


def test_pickled_it_goes_on() -> None:
    first, second = stream().train_stream
    plugin = DERPlugin(memory=12)
    run = strategy(plugins=[plugin], lr=0.1)
    run.train(first)
    revived = pickle.loads(pickle.dumps(plugin))
    other = strategy(copy.deepcopy(run.model), [revived], lr=0.1)
    found = []
    for each in (run, other):
        torch.manual_seed(0)
        np.random.seed(0)
        each.train(second)
        found.append(weights(each.model))
    assert torch.equal(*found) and revived.terms == plugin.terms


def test_memory_does_not_grow_over_twenty_experiences() -> None:
    plugin = DERPlugin(memory=12, batch_size=4)
    run = strategy(plugins=[plugin], train_mb_size=10, train_epochs=1)
    sizes = []
    for experience in data_incremental(data(400), data(), 20).train_stream:
        run.train(experience)
        sizes.append(len(pickle.dumps(plugin)))
    assert len(plugin.images) == 12 and plugin.memory.held.seen == 400
    assert max(sizes[2:]) < 2.2 * sizes[0], "what is held, and what was before the experience"


# ---- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 0.0}, "weight=….*above 0"),
        ({"memory": 1}, "memory=….*at least 2; got 1"),
        ({"batch_size": 1}, "batch_size=….*at least 2; got 1"),
        ({"memory": 0, "mode": "eval"}, "memory=….*at least 1; got 0"),
        ({"output": "logits"}, "output=….*one of features, embeddings; got 'logits'"),
        ({"mode": "both"}, "mode=….*one of train, eval; got 'both'"),
        ({"replay_view": 3}, "replay_view=….*expected an Augmentation"),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownOptionError, match=message):
        DERPlugin(**options)


def test_what_cannot_be_remembered_is_refused_before_it_is_trained_on() -> None:
    class Bare(SelfSupervisedMethod):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_backbone("simclr")

        def loss(self, views: Any) -> Tensor:
            return self.net(views[0]).square().mean()

    first = stream().train_stream[0]
    views = {"views": solo_views([VIEW])}
    run = strategy(Bare(), [DERPlugin()], **views)
    with pytest.raises(IncompatiblePluginError, match="Bare has no module called backbone"):
        run.train(first)
    run = strategy(Own(), [DERPlugin(output="embeddings")], **views)
    with pytest.raises(IncompatiblePluginError, match=r"called projector.*output='features'"):
        run.train(first)
    run = strategy(Own(), [DERPlugin()], **views)
    with pytest.raises(ViewsError, match=r"pass replay_view=Augmentation"):
        run.train(first)
    run = strategy(Own(), [DERPlugin(replay_view=VIEW)], lr=0.1, **views)
    run.train(first)
    own = data_incremental(data(), data(), 2, train_transform=solo_views([VIEW]))
    run = strategy(plugins=[DERPlugin()])
    with pytest.raises(ViewsError, match=r"yields views by itself.*return the image"):
        run.train(own.train_stream[0])
    assert run.clock.train_iterations == 0
    sizes: dict[str, Any] = {}
    for name in [n for n in ("deepclusterv2",) if n in ALL_METHODS]:
        run = strategy(method(name), [sizes.setdefault(name, DERPlugin(memory=20))], lr=0.1)
        run.train(first)
        assert len(sizes[name].images) == 20, "numbers serve the method and the plugin"
