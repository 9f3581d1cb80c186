"""CaSSLe, and what all plugins with a teacher share."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from avalanche_branchtune import BranchTuningPlugin, is_expanded
from avalanche_branchtune.errors import (
    IncompatiblePluginError,
    UnknownOptionError,
)
from avalanche_branchtune.streams import data_incremental
from solo_bridge import Augmentation, SelfSupervisedMethod, solo_views
from solo_bridge.plugins import FeatureDistillationPlugin
from solo_bridge.plugins.distillation.cassle import CaSSLePlugin
from solo_bridge.plugins.distillation.forms import FORM_OF
from solo_bridge.plugins.distillation.kaizen import KaizenPlugin
from solo_bridge.plugins.distillation.lwf import LwFPlugin
from solo_bridge.plugins.distillation.pfr import PFRPlugin
from solo_bridge.plugins.distillation.teacher import Kept, Teacher, TeacherPlugin
from tests.oracles import distillation as oracle
from tests.oracles.distilled_training import Recomputed, cassle
from tests.selfsupervised import (
    ALL_METHODS,
    VIEW,
    backbone,
    data,
    method,
    stream,
    weights,
)
from tests.solo_bridge.plugins.distillation.distilling import few, run_of

PUBLISHED = ["simclr", "byol", "barlow_twins", "mocov2plus", "vicreg", "swav"]
TEACHERS: dict[str, Callable[[], TeacherPlugin]] = {
    "cassle": lambda: CaSSLePlugin(hidden=16),
    "kaizen": lambda: KaizenPlugin(hidden=16, classifier_hidden=16),
    "pfr": lambda: PFRPlugin(hidden=16),
    "lwf": LwFPlugin,
    "features": FeatureDistillationPlugin,
}


def some(*names: str) -> list[Any]:
    """The plugins with a teacher, of which all but these are slow."""
    return [n if n in names else pytest.param(n, marks=pytest.mark.slow) for n in TEACHERS]


def train(run: Any, experiences: int = 3) -> Any:
    torch.manual_seed(1)
    for experience in few(experiences):
        run.train(experience)
    return run


def learnt(plugin: Any) -> list[nn.Parameter]:
    modules = (getattr(plugin, "predictor", None), getattr(plugin, "classifier", None))
    return [p for m in modules if m is not None for p in m.parameters()]


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


# ---- the loss


@pytest.mark.parametrize("name", PUBLISHED)
def test_loss_and_gradients_against_copies(name: str) -> None:
    plugin = CaSSLePlugin(hidden=16)
    check = Recomputed(plugin, cassle(name))
    train(run_of([plugin, check], method(name), lr=0.2 if name == "vicreg" else 2.0))
    assert [len(t) for t in check.totals] == [2, 2, 2]
    assert all(total == own for total, own in check.totals[0])
    later = [pair for totals in check.totals[1:] for pair in totals]
    assert all(total - own > 1e-3 for total, own in later)
    assert check.gradients_compared == 2
    assert plugin.terms.keys() == {"distillation"}
    assert plugin.weight * plugin.terms["distillation"] == pytest.approx(
        later[-1][0] - later[-1][1], rel=1e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(ALL_METHODS) & set(FORM_OF) - set(PUBLISHED)))
def test_every_other_method(name: str) -> None:
    measure = {
        "contrastive": oracle.contrastive,
        "cosine": oracle.negative_cosine,
        "mse": oracle.mse,
        "prototypes": oracle.cross_entropy,
    }[FORM_OF[name]]
    oracle.FORM.setdefault(name, measure)
    plugin = CaSSLePlugin(hidden=16, weight=0.5)
    check = Recomputed(plugin, cassle(name, 0.5), tolerance=1e-4)
    size, epochs = (20, 2) if name in ("wmse", "deepclusterv2") else (10, 1)
    if name == "deepclusterv2":  # the first epoch's own loss is NaN by design
        check.before_backward = lambda *a, **k: None  # type: ignore[method-assign]
    train(run_of([plugin, check], method(name), train_mb_size=size, train_epochs=epochs, lr=0.5))
    assert plugin.terms["distillation"] > 0


@pytest.mark.parametrize("name", ["simclr", "vicreg"])
def test_settings_of_ones_own(name: str) -> None:
    plugin = CaSSLePlugin("cosine", weight=3.0, hidden=7, teacher_bn="eval")
    check = Recomputed(plugin, cassle("byol", 3.0), teacher_train=False)
    train(run_of([plugin, check], method(name), lr=0.2))
    assert isinstance(plugin.predictor, nn.Sequential)
    assert [tuple(p.shape) for p in plugin.predictor.parameters()] == [
        *[(7, 8), (7,), (7,), (7,)],
        *[(8, 7), (8,)],
    ]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("simclr", {"halves": "one"}),
        ("mocov2plus", {"normalise": False}),
        ("simclr", {"normalise": True}),
        ("swav", {"prototypes": "teacher"}),
    ],
)
def test_other_readings(name: str, settings: dict[str, Any]) -> None:
    plugin = CaSSLePlugin(hidden=16, **settings)
    check = Recomputed(plugin, cassle(name, **settings))
    train(run_of([plugin, check], method(name)))
    assert check.gradients_compared == 2


def test_small_views_are_not_distilled() -> None:
    pipelines = [VIEW, Augmentation(crop_size=6, num_crops=2)]
    plugin = CaSSLePlugin(hidden=16)
    check = Recomputed(plugin, cassle("simclr"))
    model = method("simclr", small_views=2, augmentations=pipelines)
    train(run_of([plugin, check], model), 2)
    assert check.gradients_compared == 1


@pytest.mark.parametrize("name", ["simclr", "byol"])
def test_loss_beside_branch_tuning(name: str) -> None:
    plugin = CaSSLePlugin(hidden=16)
    check = Recomputed(plugin, cassle(name))
    model = method(name)
    train(run_of([plugin, BranchTuningPlugin(verbose=False), check], model))
    assert check.gradients_compared == 2
    assert not is_expanded(model)


# ---- the teacher


@pytest.mark.parametrize("bn", ["train", "eval"])
@pytest.mark.parametrize("name", TEACHERS)
def test_teacher_is_the_network_of_the_experience_before_and_stays_so(name: str, bn: str) -> None:
    plugin: Any = TEACHERS[name]()
    plugin.teacher_bn = bn
    model = method("byol")
    kept: list[Any] = []

    class Look(SupervisedPlugin):
        def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            if kept:
                teacher, state, everything = kept[-1]
                assert plugin.teacher is teacher
                assert same_state(teacher.state_dict(), state)
                assert same_state(buffers(teacher), everything)
                assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
                assert not any(m.training for m in teacher.modules())
                assert hooks(teacher) == 0

    run = run_of([plugin, Look()], model)
    for experience in few(3):
        run.train(experience)
        teacher = plugin.teacher
        assert not kept or teacher is not kept[-1][0]
        kept.append((teacher, copy.deepcopy(teacher.state_dict()), copy.deepcopy(buffers(teacher))))
        learnt_now = model.backbone.state_dict()
        copied = teacher.backbone.state_dict()
        missing = {k for k in learnt_now if k not in copied}
        assert missing == ({"1.running_mean", "1.running_var"} if bn == "train" else set())
        assert same_state(copied, {k: v for k, v in learnt_now.items() if k not in missing})
        assert all(p.requires_grad for p in model.backbone.parameters())


def buffers(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_buffers())


def same_state(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_statistics_of_the_teacher() -> None:
    model = method("simclr")
    train(run_of([], model), 1)
    views = [torch.randn(10, 3, 8, 8) * 3 for _ in range(2)]
    frozen = {bn: Teacher(model, bn).train()(views) for bn in ("train", "eval")}
    for bn, found in frozen.items():
        net = copy.deepcopy(model).train(bn == "train")
        with torch.no_grad():
            features = [net.backbone(v) for v in views]
            embeddings = [net.projector(f) for f in features]
        assert all(torch.equal(*pair) for pair in zip(found.features, features, strict=True))
        assert all(torch.equal(*pair) for pair in zip(found.embeddings, embeddings, strict=True))
    assert not torch.allclose(frozen["train"].features[0], frozen["eval"].features[0])


def test_other_layers_with_running_statistics() -> None:
    torch.manual_seed(0)
    net = backbone()
    net[1] = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
    model = method("simclr", backbone=net)
    views = [torch.randn(10, 3, 8, 8) * 3 for _ in range(2)]
    for bn in ("train", "eval"):
        teacher = Teacher(model, bn)
        before = copy.deepcopy(buffers(teacher))
        found = teacher(views)
        with torch.no_grad():
            expected = [copy.deepcopy(net).train(bn == "train")(v) for v in views]
        assert all(torch.equal(*pair) for pair in zip(found.features, expected, strict=True))
        assert same_state(buffers(teacher), before)
        assert not any(m.training for m in teacher.modules())


def test_plugins_with_teachers_beside_one_another() -> None:
    plugins: list[Any] = [TEACHERS[name]() for name in ("cassle", "pfr", "lwf", "features")]
    model = method("simclr")
    run = train(run_of([BranchTuningPlugin(verbose=False), *plugins], model))
    assert hooks(model) == 0 and len(run.optimizer.param_groups) == len(model.parameter_groups())
    for plugin in plugins:
        assert plugin.terms["distillation"] > 0
        assert hooks(plugin.teacher) == 0, "also while the others watch the network"


# ---- predictor and optimizer


@pytest.mark.parametrize("optimizer", ["lars", "adam"])
@pytest.mark.parametrize("name", TEACHERS)
def test_what_learns_along_is_in_the_optimizer_for_its_experience_only(
    name: str, optimizer: str
) -> None:
    plugin: Any = TEACHERS[name]()
    model = method("simclr")
    predictors: list[Any] = []
    moved: list[bool] = []

    class Look(SupervisedPlugin):
        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            groups = strategy.optimizer.param_groups
            own = [g for g in groups if g.get("name") == type(plugin).__name__]
            held = [p for g in own for p in g["params"]]
            assert {id(p) for p in held} == {id(p) for p in learnt(plugin)}
            assert len(held) == len(learnt(plugin))
            if name == "kaizen":
                assert (own[-1]["lr"], own[-1]["weight_decay"]) == (0.1, 0.0)
                assert groups[0]["lr"] == 2.0 * 10 / 256 and groups[0]["weight_decay"] > 0
            self.before = [p.detach().clone() for p in held]
            self.held = held

        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            moved.append(any(not torch.equal(*p) for p in zip(self.before, self.held, strict=True)))

    run = run_of([plugin, Look()], model, optimizer=optimizer)
    for i, experience in enumerate(few(3)):
        moved.clear()
        run.train(experience)
        learns = name == "kaizen" or (i > 0 and name in ("cassle", "pfr"))
        assert moved == [learns, learns]
        gone = {id(p) for p in learnt(plugin)}
        groups = run.optimizer.param_groups
        assert len(groups) == len(model.parameter_groups())
        assert not gone & {id(p) for g in groups for p in g["params"]}
        assert not gone & {id(p) for p in run.optimizer.state}
        predictors.append(getattr(plugin, "predictor", None))
    if name in ("cassle", "kaizen", "pfr"):
        assert predictors[0] is None
        assert predictors[1] is predictors[2]


@pytest.mark.parametrize("start", ["kept", "new"])
@pytest.mark.parametrize("name", ["cassle", "kaizen", "pfr"])
def test_how_a_predictor_begins_an_experience(name: str, start: str) -> None:
    kind = {"cassle": CaSSLePlugin, "kaizen": KaizenPlugin, "pfr": PFRPlugin}[name]
    plugin: Any = kind(hidden=16, predictor=start)
    first: list[dict[str, Tensor]] = []

    class Look(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            if plugin.predictor is not None:
                first.append(copy.deepcopy(plugin.predictor.state_dict()))

    run, last = run_of([plugin, Look()], method("simclr")), []
    for experience in few(3):
        run.train(experience)
        last.append(copy.deepcopy(plugin.predictor and plugin.predictor.state_dict()))
    assert last[0] is None and len(first) == 2
    assert not same_state(first[0], last[1])
    assert same_state(first[1], last[1]) == (start == "kept")
    assert int(first[1]["1.num_batches_tracked"]) == (4 if start == "kept" else 0)


def test_prototypes_go_on_with_their_predictor() -> None:
    plugin = CaSSLePlugin(hidden=16)
    run = run_of([plugin], method("swav"))
    found = []
    for experience in few(3):
        run.train(experience)
        found.append((plugin.prototypes, plugin.prototypes and weights(plugin.prototypes)))
    assert found[0] == (None, None)
    assert found[1][0] is found[2][0] and not torch.equal(found[1][1], found[2][1])
    assert isinstance(pickle.loads(pickle.dumps(plugin)), CaSSLePlugin)


def test_predictor_follows_the_schedule_of_the_method() -> None:
    rates: list[set[float]] = []

    class Rates(SupervisedPlugin):
        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            if strategy.clock.train_exp_counter:
                rates.append({g["lr"] for g in strategy.optimizer.param_groups})

    settings = {"warmup_epochs": 1.0}
    plugins = [CaSSLePlugin(hidden=16), Rates()]
    train(run_of(plugins, method("simclr"), train_epochs=2, optimizer_settings=settings), 2)
    assert all(len(r) == 1 for r in rates)
    assert len(set.union(*rates)) == 3


# ---- memory, copies, interruptions


@pytest.mark.parametrize("name", some("kaizen", "pfr"))
def test_memory_does_not_grow_over_twenty_experiences(name: str) -> None:
    plugin = TEACHERS[name]()
    run = run_of([plugin], method("simclr"), train_mb_size=5)
    sizes, alive, kinds = [], [], (Tensor, nn.Parameter)
    for experience in data_incremental(data(), data(), 20).train_stream:
        run.train(experience)
        found = {id(t): t for t in tensors(plugin, set())}
        state = len(run.optimizer.state), len(run.optimizer.param_groups)
        sizes.append((len(found), sum(t.numel() for t in found.values()), *state))
        if len(sizes) in (3, 20):
            gc.collect()
            alive.append(sum(t.numel() for t in gc.get_objects() if type(t) in kinds))
    assert len(sizes) == 20
    assert len(set(sizes[1:])) == 1, sizes
    assert alive[0] == alive[1], "nor is anything kept elsewhere"
    assert sizes[2][1] < 20_000


def tensors(thing: Any, seen: set[int]) -> list[Tensor]:
    """All tensors that can be reached from an object."""
    if id(thing) in seen or isinstance(thing, type | str | int | float):
        return []
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        return [thing]
    inner: list[Any] = []
    if isinstance(thing, dict):
        inner = [*thing.values()]
    elif isinstance(thing, list | tuple | set):
        inner = [*thing]
    elif hasattr(thing, "__dict__") and type(thing).__module__.startswith(("solo_", "torch")):
        inner = [*vars(thing).values()]
    return [t for part in inner for t in tensors(part, seen)]


@pytest.mark.parametrize("name", TEACHERS)
def test_order_beside_branch_tuning_does_not_matter_and_nothing_stays_behind(name: str) -> None:
    results = []
    for first in (True, False):
        plugin, own = TEACHERS[name](), BranchTuningPlugin(verbose=False)
        model = method("byol")
        run = train(run_of([plugin, own] if first else [own, plugin], model))
        assert len(own.summaries) == 2
        assert not is_expanded(model) and plugin.teacher is not None
        assert not is_expanded(plugin.teacher)
        assert hooks(model) == 0
        again = copy.deepcopy(model)
        loaded = pickle.loads(pickle.dumps(model))
        assert torch.equal(weights(again), weights(model))
        assert torch.equal(weights(loaded), weights(model))
        stored = pickle.loads(pickle.dumps(plugin))
        assert same_state(stored.teacher.state_dict(), plugin.teacher.state_dict())
        torch.save(plugin, io.BytesIO())
        assert run.clock.train_exp_counter == 3
        results.append(torch.cat([weights(model), *[p.detach().flatten() for p in learnt(plugin)]]))
    assert torch.equal(*results)


class Interrupt(SupervisedPlugin):
    """Raises once, in the middle of an experience."""

    def __init__(self, experience: int, event: str) -> None:
        super().__init__()
        self.at = experience
        setattr(self, event, self._stop)

    def _stop(self, strategy: Any, **kwargs: Any) -> None:
        if strategy.clock.train_exp_counter == self.at and strategy.clock.train_exp_iterations == 1:
            self.at = -1
            raise KeyboardInterrupt


@pytest.mark.parametrize(("event", "branches"), [("after_forward", False), ("before_update", True)])
@pytest.mark.parametrize("name", TEACHERS)
def test_training_goes_on_after_an_interruption(name: str, event: str, branches: bool) -> None:
    plugin: Any = TEACHERS[name]()
    model = method("simclr")
    extra = [BranchTuningPlugin(verbose=False)] if branches else []
    run = run_of([*extra, plugin, Interrupt(1, event)], model)
    experiences = few(3)
    run.train(experiences[0])
    teacher = plugin.teacher
    with pytest.raises(KeyboardInterrupt):
        run.train(experiences[1])
    predictor, classifier = (getattr(plugin, n, None) for n in ("predictor", "classifier"))
    assert plugin.teacher is teacher
    loaded = pickle.loads(pickle.dumps(model))
    for net in (model, loaded, copy.deepcopy(model)):
        kept = [h for m in net.modules() for h in m._forward_hooks.values() if isinstance(h, Kept)]
        for _ in range(10):  # somebody uses the network in the meantime
            net.train()(torch.randn(4, 3, 8, 8))
        assert len(kept) == 2 and sum(len(h.outputs) for h in kept) <= 4
    run.train(experiences[1])
    run.train(experiences[2])
    assert hooks(model) == 0
    assert getattr(plugin, "classifier", None) is classifier
    assert predictor is None or plugin.predictor is predictor
    held = {id(p) for g in run.optimizer.param_groups for p in g["params"]}
    assert not held & {id(p) for p in learnt(plugin)}
    assert torch.isfinite(weights(model)).all()


@pytest.mark.parametrize("name", some("kaizen"))
def test_evaluation_in_between_changes_nothing(name: str) -> None:
    def trained(every: int) -> Tensor:
        model = method("byol")
        run = run_of([TEACHERS[name]()], model, eval_every=every, train_epochs=2)
        torch.manual_seed(1)
        benchmark = stream(2)
        for experience in benchmark.train_stream:
            run.train(experience, eval_streams=[benchmark.test_stream])
        return weights(model)

    assert torch.equal(trained(-1), trained(1))


@pytest.mark.parametrize("name", TEACHERS)
def test_mixed_precision(name: str) -> None:
    def first(precision: str) -> float:
        found: list[float] = []

        class First(SupervisedPlugin):
            def after_backward(self, strategy: Any, **kwargs: Any) -> None:
                if strategy.clock.train_exp_counter == 1:
                    assert strategy.loss.dtype == torch.float32
                    found.append(plugin.terms["distillation"])

        plugin = TEACHERS[name]()
        model = method("simclr")
        train(run_of([plugin, First()], model, precision=precision), 2)
        assert all(p.dtype == torch.float32 for p in [*model.parameters(), *learnt(plugin)])
        return found[1]  # in the first a teacher without predictor costs nothing

    full, mixed = first("32"), first("bf16")
    assert mixed != full
    assert mixed == pytest.approx(full, rel=0.1, abs=5e-3)


# ---- bad input


class Own(SelfSupervisedMethod):
    """A method of one's own, with or without backbone and projector."""

    def __init__(self, *parts: str, joined: bool = False) -> None:
        super().__init__()
        self.net = nn.ModuleDict({"a": backbone(), "b": nn.Linear(8, 8)})
        self.joined = joined
        if "backbone" in parts:
            self.backbone = self.net["a"]
        if "projector" in parts:
            self.projector = self.net["b"]

    def forward(self, x: Tensor) -> Tensor:
        return self.net["a"](x)

    def loss(self, views: Any) -> Tensor:
        if self.joined:
            z = self.net["b"](self.net["a"](torch.cat(list(views))))
            return (z.std(0) - 1).square().mean()
        a, b = (self.net["b"](self.net["a"](v)) for v in views)
        return (a - b).square().mean() + (a.std(0) - 1).square().mean()


def own_run(plugin: Any, *parts: str, joined: bool = False) -> Any:
    torch.manual_seed(0)
    return run_of([plugin], Own(*parts, joined=joined), views=solo_views([VIEW]), lr=0.1)


@pytest.mark.parametrize("name", TEACHERS)
def test_a_method_without_backbone_is_refused_before_training(name: str) -> None:
    run = own_run(TEACHERS[name](), "projector")
    before = weights(run.model)
    with pytest.raises(IncompatiblePluginError, match=r"Plugin: Own has no module called backbone"):
        run.train(stream().train_stream[0])
    assert torch.equal(weights(run.model), before)
    assert hooks(run.model) == 0


def test_a_method_of_ones_own() -> None:
    plugin = CaSSLePlugin("mse", hidden=16)
    train(own_run(plugin, "backbone", "projector"), 2)
    assert plugin.weight == 25.0 and plugin.terms["distillation"] > 0
    for other in (PFRPlugin(hidden=16), LwFPlugin(), FeatureDistillationPlugin()):
        train(own_run(other, "backbone"), 2)
        assert other.terms["distillation"] != 0
    with pytest.raises(UnknownOptionError, match="distillation form of 'Own'"):
        train(own_run(CaSSLePlugin(), "backbone", "projector"))


@pytest.mark.parametrize("name", ["pfr", "lwf"])
def test_views_joined_into_one_minibatch_are_refused(name: str) -> None:
    run = own_run(TEACHERS[name](), "backbone", joined=True)
    before = [p.detach().clone() for p in run.model.parameters()]
    with pytest.raises(IncompatiblePluginError, match="views joined into one minibatch"):
        train(run)
    assert all(torch.equal(*p) for p in zip(before, run.model.parameters(), strict=True))


@pytest.mark.parametrize("name", ["cassle", "kaizen"])
def test_no_projector(name: str) -> None:
    run = own_run(TEACHERS[name](), "backbone")
    with pytest.raises(IncompatiblePluginError, match="Own has no projector"):
        run.train(stream().train_stream[0])


@pytest.mark.skipif("mae" not in ALL_METHODS, reason="this solo-learn has no MAE")
def test_masked_autoencoder() -> None:
    with pytest.raises(IncompatiblePluginError, match="mae has no projector"):
        train(run_of([CaSSLePlugin()], method("mae")))
    with pytest.raises(IncompatiblePluginError, match="masked images, as MAE's"):
        train(run_of([LwFPlugin()], method("mae")))


def test_unknown_options() -> None:
    with pytest.raises(UnknownOptionError, match=r"CaSSLePlugin\(form=…\).*got 'l1'"):
        CaSSLePlugin("l1")
    with pytest.raises(UnknownOptionError, match=r"PFRPlugin\(predictor=…\).*got 'old'"):
        PFRPlugin(predictor="old")
    with pytest.raises(UnknownOptionError, match=r"CaSSLePlugin\(halves=…\).*got 'two'"):
        CaSSLePlugin(halves="two")
    with pytest.raises(UnknownOptionError, match=r"CaSSLePlugin\(prototypes=…\).*got 'new'"):
        CaSSLePlugin(prototypes="new")
    with pytest.raises(UnknownOptionError, match=r"halves='one'.*byol has another"):
        train(run_of([CaSSLePlugin(halves="one")], method("byol")))
    with pytest.raises(UnknownOptionError, match=r"prototypes='teacher'.*simclr has no prototypes"):
        train(run_of([CaSSLePlugin(prototypes="teacher")]))
    with pytest.raises(UnknownOptionError, match=r"PFRPlugin\(teacher_bn=…\).*got 'fixed'"):
        PFRPlugin(teacher_bn="fixed")
    with pytest.raises(UnknownOptionError, match=r"LwFPlugin\(temperature=…\).*above 0; got 0"):
        LwFPlugin(temperature=0)
    with pytest.raises(IncompatiblePluginError, match="simclr has no prototypes"):
        train(run_of([CaSSLePlugin("prototypes")]))
