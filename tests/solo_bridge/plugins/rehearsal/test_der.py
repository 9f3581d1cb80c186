"""DER: embeddings of remembered images are held to what they were."""

from __future__ import annotations

import contextlib
import copy
import itertools
import pickle
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from avalanche_branchtune import BranchTuningPlugin, expand, fix_norms, is_expanded
from avalanche_branchtune.errors import IncompatiblePluginError, UnknownOptionError, ViewsError
from avalanche_branchtune.parts import backbone_scope
from avalanche_branchtune.streams import data_incremental, domain_incremental
from solo_bridge import EvalTransform, SelfSupervisedMethod, solo_views
from solo_bridge.plugins.distillation.cassle import CaSSLePlugin
from solo_bridge.plugins.distillation.teacher import Watch
from solo_bridge.plugins.rehearsal.der import DERPlugin
from tests.oracles.replay import held_embeddings
from tests.selfsupervised import VIEW, data, method, small_backbone, strategy, stream, weights
from tests.solo_bridge.test_strategy import Own

SIX = ("simclr", "byol", "barlow_twins", "mocov2plus", "vicreg", "swav")


def _agent(model: nn.Module, **more: Any) -> Any:
    return SimpleNamespace(
        model=model,
        device="cpu",
        autocast=contextlib.nullcontext,
        loss=torch.zeros((), dtype=torch.float64),
        **more,
    )


def _filled(plugin: DERPlugin, count: int = 9) -> DERPlugin:
    generator = torch.Generator().manual_seed(0)
    plugin.images = torch.randn(count, 3, 8, 8, generator=generator, dtype=torch.float64)
    plugin.embeddings = torch.randn(count, 8, generator=generator, dtype=torch.float64)
    return plugin


@pytest.mark.parametrize("state", ["plain", "expanded", "norms in eval mode"])
@pytest.mark.parametrize("projects", [True, False])
def test_loss_and_gradients_are_those_of_own_forward_passes(state: str, projects: bool) -> None:
    """Oracle: one image at a time through a copy in eval mode, in float64."""
    torch.manual_seed(0)
    model: Any = method("vicreg") if projects else Own()
    model.double().train()
    model.backbone(torch.randn(20, 3, 8, 8).double() * 3)  # statistics that are not 0 and 1
    if state != "plain":
        expand(model, scope=backbone_scope(model))
        fix_norms(model, "eval" if state != "expanded" else "affine")
        for p in model.parameters():
            p.data += 0.1 * torch.randn_like(p)
    plugin = _filled(DERPlugin(weight=0.7, batch_size=5))
    modes = {m: m.training for m in model.modules()}
    buffers = copy.deepcopy(dict(model.named_buffers()))
    oracle = copy.deepcopy(model).eval()
    agent = _agent(model)
    torch.manual_seed(4)
    plugin.before_backward(agent)
    agent.loss.backward()
    assert modes == {m: m.training for m in model.modules()}
    assert all(torch.equal(b, buffers[n]) for n, b in model.named_buffers())
    torch.manual_seed(4)
    chosen = torch.randperm(9)[:5]
    assert plugin.images is not None and plugin.embeddings is not None
    projector = oracle.projector if projects else None
    expected = held_embeddings(
        oracle.backbone, projector, plugin.images[chosen], plugin.embeddings[chosen]
    )
    (0.7 * expected).backward()
    assert agent.loss.item() == pytest.approx(0.7 * expected.item(), rel=1e-12)
    assert plugin.terms["replayed embeddings"] == pytest.approx(expected.item(), rel=1e-12)
    pairs = zip(model.named_parameters(), oracle.parameters(), strict=True)
    reached = 0
    for (name, p), q in pairs:
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            reached += 1
            assert torch.allclose(p.grad, q.grad, rtol=1e-10, atol=1e-14), name
    assert reached


def test_stored_are_plain_images_and_the_embeddings_of_the_merged_network() -> None:
    known = {tuple(EvalTransform(8)(i).flatten().tolist()) for i in data().images}
    model, plugin = method("byol"), DERPlugin(memory=30)
    run = strategy(model, [plugin, BranchTuningPlugin(verbose=False)])
    earlier: dict[Any, Tensor] = {}
    for experience in stream().train_stream:
        run.train(experience)
        assert plugin.images is not None and plugin.embeddings is not None
        assert plugin.images.shape == (30, 3, 8, 8) and plugin.embeddings.shape == (30, 8)
        oracle = copy.deepcopy(model).eval()
        kept = new = 0
        for x, z in zip(plugin.images, plugin.embeddings, strict=True):
            key = tuple(x.flatten().tolist())
            assert key in known
            with torch.no_grad():
                f = oracle.projector(oracle.backbone(x[None]))[0]
            if key in earlier:
                kept += 1
                assert torch.equal(z, earlier[key]), "the old network's, though it moved on"
                assert not torch.allclose(z, f, atol=1e-4)
            else:
                new += 1
                assert torch.allclose(z, f, atol=1e-5)
        assert new and (kept or not earlier)
        pairs = zip(plugin.images, plugin.embeddings, strict=True)
        earlier = {tuple(x.flatten().tolist()): z for x, z in pairs}


def test_images_are_normalised_as_the_methods_views_where_the_stream_does_not() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    model = method("vicreg", augmentations=[replace(VIEW, mean=mean, std=std)])
    plugin = DERPlugin(memory=20)
    strategy(model, [plugin]).train(data_incremental(data(20), data(), 1).train_stream[0])
    plain = EvalTransform(8, mean, std)
    assert plugin.images is not None
    expected = [plain(image) for image in data(20).images]
    assert torch.equal(plugin.images, torch.stack(expected))


def test_images_are_chosen_at_random_in_each_iteration() -> None:
    plugin = _filled(DERPlugin(batch_size=1))
    model = method("vicreg").double()
    values = set()
    torch.manual_seed(0)
    for _ in range(60):
        plugin.before_backward(_agent(model))
        values.add(plugin.terms["replayed embeddings"])
    assert len(values) == 9


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


def test_it_begins_at_nothing_with_the_second_experience_and_enters_the_loss() -> None:
    found = []
    for weight in (1e-9, 20.0):
        plugin = DERPlugin(weight, memory=50, batch_size=50)
        terms = Terms(plugin)
        run = strategy(method("vicreg"), [plugin, terms], lr=0.1)
        torch.manual_seed(5)
        first, second = stream().train_stream
        run.train(first)
        assert all("replayed embeddings" not in seen for seen in terms.seen)
        terms.seen.clear()
        plugin.before_backward(_agent(run.model))
        assert plugin.terms["replayed embeddings"] < 1e-10, "nothing changed yet"
        torch.manual_seed(6)
        run.train(second)
        assert len(terms.seen) == 4
        found.append(terms.seen)
    without, with_ = (seen[0] for seen in found)
    term = with_["replayed embeddings"]
    assert term == without["replayed embeddings"] > 0
    assert with_["loss"] - without["loss"] == pytest.approx(20 * term, rel=1e-3)
    assert found[0][1]["loss"] != pytest.approx(found[1][1]["loss"] - 20 * term, rel=1e-9)


def test_its_gradient_brings_embeddings_back() -> None:
    torch.manual_seed(0)
    model, plugin = method("vicreg"), DERPlugin(memory=50, batch_size=50)
    run = strategy(model, [plugin], lr=1e-6)
    run.train(stream().train_stream[0])
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * torch.randn_like(p)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    values = []
    for _ in range(60):
        agent = _agent(model)
        plugin.before_backward(agent)
        values.append(plugin.terms["replayed embeddings"])
        optimizer.zero_grad()
        agent.loss.backward()
        optimizer.step()
    assert values[-1] < 0.2 * values[0]


def test_the_forward_pass_is_not_seen_by_plugins_that_watch_the_methods() -> None:
    model = method("vicreg").double()
    watch = Watch(model)
    watch.begin()
    watch.expect(2)
    model.loss([torch.randn(4, 3, 8, 8).double() for _ in range(2)])
    plugin = _filled(DERPlugin())
    plugin.before_backward(_agent(model))  # after the method's
    found = watch.outputs(4)
    watch.expect(2)
    plugin.before_backward(_agent(model))  # before the method's
    again = model.loss([torch.randn(4, 3, 8, 8).double() for _ in range(2)])
    assert torch.isfinite(again) and plugin.terms
    for outputs in (found, watch.outputs(4)):
        assert [len(f) for f in (*outputs.features, *outputs.embeddings)] == [4] * 4


@pytest.mark.parametrize("name", ["simclr", "byol"])
def test_order_beside_cassle_and_branch_tuning_does_not_matter(name: str) -> None:
    found = []
    for order in itertools.permutations(range(3)):
        der, cassle = DERPlugin(memory=20, batch_size=8), CaSSLePlugin(hidden=8)
        plugins = [der, cassle, BranchTuningPlugin(verbose=False, norm_mode="eval")]
        terms = Terms(der, cassle)
        run = strategy(method(name), [*(plugins[i] for i in order), terms], lr=0.1)
        torch.manual_seed(0)
        for experience in stream().train_stream:
            run.train(experience)
        found.append(terms.seen)
    assert {"replayed embeddings", "distillation"} <= set(found[0][-1])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert a == pytest.approx(b, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", [*SIX, "dino"])
def test_three_experiences_beside_other_plugins(name: str) -> None:
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        der, branches = DERPlugin(memory=20, batch_size=8), BranchTuningPlugin(verbose=False)
        plugins = [der, CaSSLePlugin(hidden=8), branches]
        run = strategy(method(name), [plugins[i] for i in order], train_epochs=1, lr=0.1)
        for experience in data_incremental(data(120), data(), 3).train_stream:
            run.train(experience, num_workers=2 if order[0] == 2 and name == "simclr" else 0)
            assert not is_expanded(run.model)
        assert torch.isfinite(weights(run.model)).all()
        assert der.terms["replayed embeddings"] > 0 and len(branches.summaries) == 2


def test_features_are_held_where_there_is_no_projector() -> None:
    plugin = DERPlugin(memory=10)
    torch.manual_seed(0)
    run = strategy(Own(), [plugin], views=solo_views([VIEW]), lr=0.1)
    for experience in stream().train_stream:
        run.train(experience)
    assert plugin.embeddings is not None and plugin.embeddings.shape == (10, 8)
    assert plugin.terms["replayed embeddings"] > 0


def test_half_precision_holds_embeddings_in_full() -> None:
    plugin = DERPlugin(memory=10)
    run = strategy(method("byol"), [plugin], precision="bf16")
    for experience in stream().train_stream:
        run.train(experience)
    assert plugin.embeddings is not None and plugin.embeddings.dtype == torch.float32
    assert torch.isfinite(weights(run.model)).all()


def test_memory_does_not_grow_over_twenty_experiences() -> None:
    plugin = DERPlugin(memory=12, batch_size=4)
    run = strategy(plugins=[plugin], train_mb_size=10, train_epochs=1)
    sizes = []
    for experience in data_incremental(data(400), data(), 20).train_stream:
        run.train(experience)
        sizes.append(len(pickle.dumps(plugin)))
    assert plugin.images is not None and len(plugin.images) == 12
    assert max(sizes[1:]) - min(sizes[1:]) < 32


def test_pickled_it_goes_on() -> None:
    benchmark = stream()
    plugin = DERPlugin(memory=12)
    run = strategy(plugins=[plugin])
    run.train(benchmark.train_stream[0])
    revived = pickle.loads(pickle.dumps(plugin))
    other = strategy(copy.deepcopy(run.model), [revived])
    found = []
    for each in (run, other):
        torch.manual_seed(0)
        each.train(benchmark.train_stream[1])
        found.append(weights(each.model))
    assert torch.allclose(*found) and revived.terms == plugin.terms


def test_an_interrupted_experience_leaves_the_memory() -> None:
    class Stop(SupervisedPlugin):
        armed = True

        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            if self.armed and strategy.clock.train_exp_counter == 1:
                raise KeyboardInterrupt

    stop, plugin = Stop(), DERPlugin(memory=16)
    run = strategy(plugins=[plugin, BranchTuningPlugin(verbose=False), stop])
    benchmark = stream()
    run.train(benchmark.train_stream[0])
    before = plugin.images
    with pytest.raises(KeyboardInterrupt):
        run.train(benchmark.train_stream[1])
    assert plugin.images is before
    stop.armed = False
    run.train(benchmark.train_stream[1])
    assert plugin.images is not before and not is_expanded(run.model)


# ---- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 0.0}, "weight=….*above 0"),
        ({"memory": 0}, "memory=….*got 0"),
        ({"batch_size": -1}, "batch_size=….*got -1"),
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

    benchmark = stream()
    run = strategy(Bare(), [DERPlugin()], views=solo_views([VIEW]))
    with pytest.raises(IncompatiblePluginError, match="Bare has no module called backbone"):
        run.train(benchmark.train_stream[0])
    run = strategy(Own(), [DERPlugin()], views=solo_views([VIEW]))
    with pytest.raises(ViewsError, match=r"no image_size.*eval_transform"):
        run.train(data_incremental(data(), data(), 1).train_stream[0])
    assert run.clock.train_iterations == 0
    run = strategy(plugins=[DERPlugin()])
    first, second = (
        domain_incremental([data()], [data()], eval_transform=EvalTransform(size)).train_stream[0]
        for size in (8, 6)
    )
    run.train(first)
    with pytest.raises(ViewsError, match=r"one shape.*\(3, 6, 6\), \(3, 8, 8\)"):
        run.train(second)
    assert run.clock.train_iterations == 10
