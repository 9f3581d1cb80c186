"""FPF and k-FPF: what is tuned, on what, and what does not notice it."""

from __future__ import annotations

import copy
import pickle
import random
from typing import Any

import pytest
import torch
from avalanche.benchmarks import split_online_stream
from avalanche.core import SupervisedPlugin
from torch import Tensor

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.errors import (
    BatchSizeError,
    IncompatiblePluginError,
    NonFiniteLossError,
    UnknownOptionError,
)
from solo_bridge.plugins.partial.periodic import PeriodicFineTuningPlugin, relative_change
from tests.selfsupervised import ALL_METHODS, BACKBONE, method, strategy, stream

SMALL: dict[str, Any] = {"steps": 2, "memory": 40}


def test_parts_of_an_online_stream_are_one_experience() -> None:
    for every, size, expected in ((None, 15, 4), (3, 15, 4 + 4), (None, 10, 3)):
        plugin = PeriodicFineTuningPlugin(every, **SMALL)
        run = strategy(plugins=[plugin], train_epochs=1, train_mb_size=5)
        benchmark = stream(5)
        assert {len(e.dataset) for e in benchmark.train_stream} == {20}
        run.train(split_online_stream(benchmark.train_stream, size, access_task_boundaries=True))
        assert plugin.fine_tunings == expected, "of 10 no part is marked as the last, nor the end"


class Around(PeriodicFineTuningPlugin):
    """Compares the state before and after each fine-tuning."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.moved: list[set[str]] = []
        self.clocks: list[tuple[int, int]] = []
        self.buffered: list[set[int]] = []

    def fine_tune(self, strategy: Any) -> None:
        model = strategy.model
        before = copy.deepcopy(model.state_dict())
        flags = [p.requires_grad for p in model.parameters()]
        optimizer = copy.deepcopy(strategy.optimizer.state_dict())
        clock = vars(strategy.clock).copy()
        taus = copy.deepcopy(getattr(model.solo, "momentum_updater", None))
        step, loss = model.trainer.global_step, strategy.loss
        super().fine_tune(strategy)
        after = model.state_dict()
        self.moved.append({n for n in before if not torch.equal(before[n], after[n])})
        self.clocks.append((strategy.clock.train_exp_counter, strategy.clock.train_exp_iterations))
        self.buffered.append(set(map(int, self.storage.buffer.targets)))
        assert [p.requires_grad for p in model.parameters()] == flags
        assert _equal(strategy.optimizer.state_dict(), optimizer), "its own optimizer"
        assert vars(strategy.clock) == clock and strategy.loss is loss
        assert model.trainer.global_step == step
        assert all(p.grad is None for p in model.parameters())
        if taus is not None:
            assert model.solo.momentum_updater.cur_tau == taus.cur_tau


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)


def run_over(plugin: Any, name: str = "simclr", experiences: int = 3, **settings: Any) -> Any:
    model = settings.pop("model", None) or method(name)
    run = strategy(model, [plugin], **settings)
    for experience in stream(5).train_stream[:experiences]:
        run.train(experience)
    return model


NORMS = {f"{BACKBONE}.1.{n}" for n in ("weight", "bias")}
STATISTICS = {f"{BACKBONE}.1.{n}" for n in ("running_mean", "running_var", "num_batches_tracked")}
LAST = {"solo.projector.2.weight", "solo.projector.2.bias"}


def test_fpf_tunes_norms_and_the_last_layer_only() -> None:
    plugin = Around(**SMALL, lr=1.0)
    run_over(plugin)
    assert plugin.fine_tunings == 2, "at the end of the second and third experience"
    assert all(moved == NORMS | STATISTICS | LAST for moved in plugin.moved)
    assert set(plugin.tuned) == NORMS | LAST and len(plugin.losses) == 2


def test_byol_s_momentum_network_is_left_alone() -> None:
    plugin = Around(**SMALL, lr=1.0)
    run_over(plugin, "byol")
    for moved in plugin.moved:
        assert moved >= NORMS and "solo.predictor.1.weight" in moved
        # Its statistics follow its own forward passes, as in any step.
        momentum = {n for n in moved if "momentum" in n}
        assert all(n.split(".")[-1].startswith(("running", "num")) for n in momentum)


def test_k_fpf_acts_every_so_many_iterations() -> None:
    """Two experiences of 4 iterations after the first: at 3, and at the end."""
    plugin = Around(3, **SMALL)
    run_over(plugin, train_mb_size=10)
    assert [c for c, _ in plugin.clocks] == [1, 1, 2, 2]
    assert plugin.fine_tunings == 4
    seen = [len(b) for b in plugin.buffered]
    assert seen[0] < seen[1] and plugin.buffered[0] < plugin.buffered[1], "taken up when it ends"


def test_the_buffer_keeps_its_size_and_samples_of_all_experiences() -> None:
    plugin = PeriodicFineTuningPlugin(steps=1, memory=40)
    run_over(plugin, experiences=5, train_epochs=1)
    assert len(plugin.storage.buffer) == 40
    assert len(set(map(int, plugin.storage.buffer.targets))) == 10
    views = plugin.storage.buffer.train()[0][0]
    assert isinstance(views, list) and len(views) == 2
    again = plugin.storage.buffer.train()[0][0]
    assert not torch.equal(views[0], again[0]), "views are made anew"


def test_the_first_experience_is_that_of_plain_training() -> None:
    def first(plugins: list[Any]) -> Tensor:
        random.seed(0)
        torch.manual_seed(0)
        run = strategy(method(), plugins)
        random.seed(1)
        torch.manual_seed(1)
        run.train(stream(5).train_stream[0])
        return torch.cat([p.detach().flatten() for p in run.model.parameters()])

    assert torch.equal(first([]), first([PeriodicFineTuningPlugin(1, **SMALL)]))


def test_the_loss_on_the_buffer_falls() -> None:
    torch.manual_seed(0)
    random.seed(0)
    plugin = PeriodicFineTuningPlugin(steps=40, memory=60, lr=4.0, batch_size=20)
    run_over(plugin, "byol", experiences=2, train_epochs=1)
    assert sum(plugin.losses[-10:]) < 0.9 * sum(plugin.losses[:10])


def test_by_change_against_the_ranking_by_hand() -> None:
    expected: list[set[str]] = []

    class Rank(Around):
        def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            super().before_training_exp(strategy, *args, **kwargs)
            self.old = {n: p.detach().clone() for n, p in strategy.model.named_parameters()}

        def fine_tune(self, strategy: Any) -> None:
            change = {
                n: float((p.detach() - self.old[n]).square().sum().sqrt() / self.old[n].norm())
                for n, p in strategy.model.named_parameters()
                if p.requires_grad
            }
            expected.append(set(sorted(change, key=change.__getitem__)[-3:]))
            super().fine_tune(strategy)
            assert set(self.tuned) == expected[-1]
            assert {n for n in self.moved[-1] if "running" not in n and "num_" not in n} <= (
                expected[-1]
            )

    plugin = Rank(2, by="change", share=0.3, **SMALL, lr=1.0)
    run_over(plugin, train_mb_size=10)
    assert len(expected) == 6 and plugin._before == {}


def test_relative_change() -> None:
    assert relative_change(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 5.0])) == 0.2
    assert relative_change(torch.zeros(2), torch.zeros(2)) == 0.0
    assert relative_change(torch.zeros(2), torch.ones(2)) == float("inf")


def test_names_and_patterns() -> None:
    plugin = Around(by=[f"{BACKBONE}.3", "*.projector.*.bias"], **SMALL, lr=1.0)
    run_over(plugin, experiences=2)
    expected = {f"{BACKBONE}.3.weight", f"{BACKBONE}.3.bias"}
    expected |= {"solo.projector.0.bias", "solo.projector.2.bias"}
    assert set(plugin.tuned) == expected
    assert plugin.moved[0] == expected | STATISTICS


@pytest.mark.skipif("mae" not in ALL_METHODS, reason="only solo-learn's main branch has it")
def test_a_method_without_projector_tunes_the_backbone_s_last_layer() -> None:
    plugin = PeriodicFineTuningPlugin(**SMALL)
    model = method("mae")
    chosen = plugin.choose(model)
    last = [n for n in chosen if "norm" not in n]
    assert last and all(".blocks.11.mlp.fc2." in n for n in last)


@pytest.mark.parametrize("name", [n for n in ALL_METHODS if n not in ("deepclusterv2", "mae")])
def test_every_method_keeps_its_queues_and_centres(name: str) -> None:
    plugin = Around(1, steps=1, memory=33, lr=0.1)
    model = run_over(plugin, name, experiences=2, train_epochs=1)
    assert plugin.fine_tunings == 2 and all(plugin.moved)
    for moved in plugin.moved:
        assert not {n for n in moved if "queue" in n or "center" in n or "prototypes" in n}
    copy.deepcopy(model)


@pytest.mark.parametrize(
    ("name", "asked", "used"),
    [("mocov2plus", 15, 15), ("mocov2plus", None, 20), ("wmse", 33, 20)],
)
def test_minibatches_are_as_large_as_the_method_can_take(
    name: str, asked: int | None, used: int
) -> None:
    sizes: list[int] = []

    class Sizes(Around):
        def _loss(self, strategy: Any, batch: Any) -> Tensor:
            sizes.append(len(batch[0][0]))
            return super()._loss(strategy, batch)

    plugin = Sizes(1, steps=3, memory=33, batch_size=asked)
    run_over(plugin, name, experiences=3, train_epochs=1)
    assert sizes == [used] * 12


def test_weight_normed_prototypes_can_be_tuned_and_copied() -> None:
    plugin = Around(1, steps=1, memory=40, by=["*.prototypes"])
    model = run_over(plugin, "swav", experiences=2, train_epochs=1)
    assert plugin.fine_tunings == 2 and plugin.tuned
    copy.deepcopy(model)


def test_branch_tuning_beside_it() -> None:
    """In the experience branches' layers stand still; at its end all learn, whatever the order."""
    for order in (1, -1):
        plugin = Around(1, **SMALL, lr=1.0)
        model = method()
        run = strategy(model, [plugin, BranchTuningPlugin(verbose=False)][::order])
        for experience in stream(5).train_stream[:2]:
            run.train(experience)
        assert [moved >= NORMS for moved in plugin.moved] == [False, False, True]
        assert all(moved >= LAST for moved in plugin.moved)


def test_sixteen_bit_brain_floats() -> None:
    plugin = Around(**SMALL)
    model = run_over(plugin, experiences=2, precision="bf16")
    assert plugin.fine_tunings == 1
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())


def test_interruption_in_the_fine_tuning_puts_everything_back() -> None:
    class Broken(PeriodicFineTuningPlugin):
        armed = False

        def _loss(self, strategy: Any, batch: Any) -> Tensor:
            if self.armed and self.losses:
                raise KeyboardInterrupt
            return super()._loss(strategy, batch)

    plugin, model = Broken(1, **SMALL), method("mocov2plus")
    run = strategy(model, [plugin])
    experiences = stream(5).train_stream
    run.train(experiences[0])
    plugin.armed = True
    with pytest.raises(KeyboardInterrupt):
        run.train(experiences[1])
    assert all(p.requires_grad for p in model.backbone.parameters())
    copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    pointer = int(model.solo.queue_ptr)
    assert pointer == 20 * 3 % 40, "three minibatches of training, none of the fine-tuning"
    plugin.armed = False
    run.train(experiences[1])
    assert plugin.fine_tunings == 3


def test_a_loss_that_is_not_finite() -> None:
    class Poisoned(PeriodicFineTuningPlugin):
        def _loss(self, strategy: Any, batch: Any) -> Tensor:
            self.kept = copy.deepcopy(strategy.model.state_dict())
            return super()._loss(strategy, batch) * float("nan")

    plugin, model = Poisoned(**SMALL), method()
    with pytest.raises(NonFiniteLossError, match="nan in step 0 of a fine-tuning"):
        run_over(plugin, model=model)
    assert all(torch.equal(p, plugin.kept[n]) for n, p in model.named_parameters())
    assert all(p.requires_grad for p in model.backbone.parameters())


def test_copies_and_pickles_while_training() -> None:
    class Copies(SupervisedPlugin):
        def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            for other in (
                copy.deepcopy(strategy.model),
                pickle.loads(pickle.dumps(strategy.model)),
            ):
                pairs = zip(other.parameters(), strategy.model.parameters(), strict=True)
                assert all(torch.equal(a, b) for a, b in pairs)

    run = strategy(method("swav"), [PeriodicFineTuningPlugin(1, **SMALL), Copies()])
    for experience in stream(5).train_stream[:2]:
        run.train(experience)


def test_memory_does_not_grow_over_twenty_experiences() -> None:
    plugin, model = PeriodicFineTuningPlugin(1, steps=1, memory=20, by="change"), method()
    run = strategy(model, [plugin], train_epochs=1)
    sizes = []
    experiences = stream(5).train_stream
    for i in range(20):
        run.train(experiences[i % 5])
        buffer = plugin.storage.buffer
        plugin.storage.buffer = buffer.subset([])
        sizes.append(len(pickle.dumps((model, plugin._before, plugin.tuned, plugin.losses))))
        plugin.storage.buffer = buffer
        assert len(buffer) == 20
    assert max(sizes[3:]) - min(sizes[3:]) < 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every=….*at least 1; got 0"),
        ({"steps": 0}, "steps=….*got 0"),
        ({"memory": 1}, "memory=….*at least 2; got 1"),
        ({"batch_size": 1}, "batch_size=….*got 1"),
        ({"lr": -1.0}, "lr=….*got -1.0"),
        ({"momentum": float("nan")}, "momentum=….*got nan"),
        ({"share": 0.0}, "share=….*got 0.0"),
        ({"by": "chnage"}, r"by='chnage'.*norms\+last, change or a list"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownOptionError, match=message):
        PeriodicFineTuningPlugin(**options)


def test_what_cannot_work_is_refused_before_training() -> None:
    with pytest.raises(UnknownOptionError, match=rf"called 'trunk\.\*'.*{BACKBONE}"):
        run_over(PeriodicFineTuningPlugin(by=["trunk.*"]))
    with pytest.raises(UnknownOptionError, match="nothing"):
        run_over(PeriodicFineTuningPlugin(by=[]))
    with pytest.raises(IncompatiblePluginError, match="by their number"):
        run_over(PeriodicFineTuningPlugin(), "deepclusterv2")
    with pytest.raises(BatchSizeError, match=r"minibatches of at most 10 .* whitens 20"):
        run_over(PeriodicFineTuningPlugin(memory=10), "wmse")
