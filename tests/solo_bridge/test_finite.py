"""Steps whose loss or gradient is not finite, in each policy and with few readings."""

from __future__ import annotations

import copy
import itertools
import logging
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor, nn

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.checkpoints import Checkpoints
from avalanche_branchtune.checkpoints.data import within
from avalanche_branchtune.checkpoints.state import snapshot
from avalanche_branchtune.errors import NonFiniteLossError, ViewsError
from avalanche_branchtune.metrics import RunRecorder
from avalanche_branchtune.records import load_run
from solo_bridge import finite, solo_views
from solo_bridge.plugins import DERPlugin
from tests.readings import Readings
from tests.selfsupervised import VIEW, Bare, method, strategy, stream
from tests.solo_bridge import test_checkpoints_of_runs as runs

NAN = float("nan")
KINDS = ("loss", "views", "gradient")


class Spoil(SupervisedPlugin):
    """Makes steps of the first experience bad, and remembers every state and minibatch."""

    def __init__(self, kind: str, *steps: int) -> None:
        super().__init__()
        self.kind = kind
        self.steps = steps
        self.states: list[dict[str, Tensor]] = []  # each step
        self.minibatches: list[list[Tensor]] = []
        self.rates: list[float] = []
        self.losses: list[float] = []

    def _now(self, strategy: Any) -> bool:
        return strategy.clock.train_iterations in self.steps

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self.states.append(copy.deepcopy(strategy.model.state_dict()))

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        self.minibatches.append([v.clone() for v in strategy.minibatch.views])
        if self.kind == "views" and self._now(strategy):
            for view in strategy.minibatch.views:
                view.fill_(NAN)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        if self.kind == "loss" and self._now(strategy):
            strategy.loss = strategy.loss * NAN
        if self.kind == "value" and self._now(strategy):
            strategy.loss = strategy.loss + NAN  # whose gradients are right
        if self.kind == "gradient" and self._now(strategy):
            p = next(p for p in strategy.model.parameters() if p.requires_grad)
            strategy.loss = strategy.loss + (p - p.detach()).abs().sqrt().sum()
            assert strategy.loss.isfinite()

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        self.rates.append(strategy.optimizer.param_groups[0]["lr"])
        if strategy.finite.every == 1 and not strategy.scaler.is_enabled():
            assert all(
                p.grad is None or p.grad.isfinite().all() for p in strategy.model.parameters()
            )


def bare() -> Bare:
    torch.manual_seed(0)
    return Bare()


def made(model: Any, *plugins: Any, **settings: Any) -> Any:
    """Ten steps in each of two epochs."""
    if isinstance(model, Bare):
        settings["views"] = solo_views([VIEW])
    return strategy(model, list(plugins), **{"lr": 0.1, "train_mb_size": 5, **settings})


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def is_finite(model: nn.Module) -> bool:
    return all(v.isfinite().all() for v in model.state_dict().values())


# ---- stop


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["own", "byol", "mocov2plus"])
def test_the_model_is_left_as_it_was_before_the_step(name: str, kind: str) -> None:
    model = bare() if name == "own" else method(name)
    spoil = Spoil(kind, 12)
    run = made(model, spoil)
    what = "a gradient is not finite" if kind == "gradient" else "the loss is nan"
    where = f"{what} in experience 0, epoch 1, step 2; the model keeps the weights before this step"
    benchmark = stream()
    with pytest.raises(NonFiniteLossError, match=where):
        run.train(benchmark.train_stream[0])
    assert same(model.state_dict(), spoil.states[12]) and not same(*spoil.states[11:13])
    spoil.steps = ()
    run.train(benchmark.train_stream[1])
    assert is_finite(model)


def test_branches_and_lars() -> None:
    model, spoil = method(), Spoil("views", 23)
    run = made(model, spoil, BranchTuningPlugin(verbose=False), optimizer="lars")
    benchmark = stream()
    run.train(benchmark.train_stream[0])
    with pytest.raises(NonFiniteLossError, match="experience 1, epoch 0, step 3"):
        run.train(benchmark.train_stream[1])
    assert same(model.state_dict(), spoil.states[23])
    assert any("branch" in name for name in spoil.states[23])


def test_a_nan_that_is_meant_to_be() -> None:
    class First(Bare):
        def expects_nan(self, epoch: int) -> bool:
            return epoch == 0

    torch.manual_seed(0)
    run = made(First(), Spoil("value", 3, 11))
    with pytest.raises(NonFiniteLossError, match="epoch 1, step 1"):
        run.train(stream().train_stream[0])


# ---- few readings


@pytest.mark.parametrize("kind", KINDS)
def test_with_few_readings_the_model_is_that_of_the_last_good_one(kind: str) -> None:
    """Read after steps 6 and 9 (an epoch's last), and after 16."""
    model, spoil = method("byol"), Spoil(kind, 12)
    run = made(model, spoil, check_finite_every=7)
    with pytest.raises(NonFiniteLossError, match=r"epoch 1, step 2; .* weights of 2 steps before"):
        run.train(stream().train_stream[0])
    assert len(spoil.states) == 17 and same(model.state_dict(), spoil.states[10])


def test_what_is_read_when_changes_no_number() -> None:
    def trained(every: int) -> dict[str, Tensor]:
        model = method("byol")
        torch.manual_seed(1)
        made(model, check_finite_every=every).train(stream().train_stream[0])
        return model.state_dict()

    assert same(trained(1), trained(7))


def test_a_step_that_does_not_read_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, found = bare(), []
    run = made(model, check_finite_every=7, train_epochs=1)
    for name in ("_before_forward", "backward", "optimizer_step"):
        monkeypatch.setattr(run, name, counted(getattr(run, name), found))
    run.train(stream().train_stream[0])
    steps = [sum(found[i : i + 3]) for i in range(0, 30, 3)]
    assert [i for i, count in enumerate(steps) if count] == [6], "the reading, and it is seen"


@pytest.mark.parametrize(("scaled", "every"), [(False, 50), (True, 1)])
def test_what_is_noted_on_a_device_stays_there(scaled: bool, every: int) -> None:
    """Meta tensors have no numbers that could be read."""
    device = torch.device("meta")
    check = finite.FiniteCheck("stop", None, device, scaled=scaled)
    assert check.every == every
    check._note(torch.zeros((), device=device), [torch.zeros(3, device=device)], 5)
    with pytest.raises(RuntimeError, match="meta"):
        int(check._first)


def test_after_an_interruption_the_copy_is_made_anew() -> None:
    class Interrupt(SupervisedPlugin):
        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            if strategy.clock.train_iterations == 4:
                strategy.clock.train_iterations += 1
                raise KeyboardInterrupt

    model, spoil = bare(), Spoil("views", 8)
    run = made(model, spoil, Interrupt(), check_finite_every=50)
    benchmark = stream()
    with pytest.raises(KeyboardInterrupt):
        run.train(benchmark.train_stream[0])
    assert not same(spoil.states[0], spoil.states[4])
    with pytest.raises(NonFiniteLossError, match="step 3; the model keeps the weights of 3 steps"):
        run.train(benchmark.train_stream[0])
    assert same(model.state_dict(), spoil.states[5])


def counted(call: Any, found: list[int]) -> Any:
    def watched(**kwargs: Any) -> None:
        with Readings() as readings:
            call(**kwargs)
        found.append(readings.count)

    return watched


@pytest.mark.parametrize(("minutes", "saved"), [(1e-9, 2), (None, None)])
def test_nothing_is_saved_that_was_not_looked_at(
    minutes: float | None, saved: int | None, tmp_path: Path
) -> None:
    """Neither when it is time to, nor when the loader fails two steps after a bad one."""
    model, spoil = bare(), Spoil("loss", 12)
    checkpoints = Checkpoints(tmp_path, every_minutes=minutes)
    run = made(model, spoil, checkpoints, check_finite_every=50)
    whole, made_so_far = run.views, itertools.count()

    def views(image: Any) -> Any:
        if next(made_so_far) >= 14 * 5 + 1:  # one more is made to see that there are views
            raise ViewsError("no view")
        return whole(image)

    run.views = views
    with pytest.raises(NonFiniteLossError, match="epoch 1, step 2"):
        run.train(stream().train_stream[0])
    assert len(spoil.states) == (13 if minutes else 14)
    *_, midway = checkpoints.folder.newest()
    assert (midway and midway["iterations"]) == saved
    assert is_finite(model)


@pytest.mark.parametrize("every", [1, 7])
def test_the_copy_is_in_no_checkpoint(every: int) -> None:
    run = made(bare(), check_finite_every=every)
    known = within([vars(run), *run.plugins])
    run.train(stream().train_stream[0])
    run.finite.before_forward(run)
    assert run._last_good and "_last_good" not in snapshot(run, {}, known)["strategy"]


@pytest.mark.slow
def test_a_run_goes_on_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(runs.TRAINING, "check_finite_every", 7)
    what = {2: runs.kill, 11: runs.ask(signal.SIGTERM)}
    runs.check("branch_tuning", "byol", tmp_path, what, every_epochs=1)


# ---- skip


@pytest.mark.parametrize("kind", KINDS)
def test_skipped_steps_leave_nothing(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Against plain training that never saw them; the first step is one, and two are in a row."""
    bad = (0, 7, 8, 15)
    spoil, expected = Spoil(kind, *bad), bare()
    model = copy.deepcopy(expected)
    run = made(model, spoil, on_non_finite="skip", optimizer_settings={"warmup_epochs": 0})
    with caplog.at_level(logging.WARNING, logger=finite.__name__):
        run.train(stream().train_stream[0])
    assert run.skipped_steps == 4
    assert [r.getMessage() for r in caplog.records if r.name == finite.__name__] == [
        "4 steps were left out; at the first of them "
        + ("a gradient is not finite" if kind == "gradient" else "the loss is nan")
        + " in experience 0, epoch 0, step 0"
    ]
    assert spoil.rates[0] > spoil.rates[1] > spoil.rates[2], "the schedule goes on"
    settings = run.optimizer_settings
    sgd = torch.optim.SGD(
        expected.parameters(), 1.0, momentum=0.9, weight_decay=settings.weight_decay
    )
    for step, (views, rate) in enumerate(zip(spoil.minibatches, spoil.rates, strict=True)):
        if step not in bad:
            sgd.param_groups[0]["lr"] = rate
            sgd.zero_grad()
            expected.loss(views).backward()
            sgd.step()
    assert same(model.state_dict(), expected.state_dict())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_with_few_readings_the_steps_since_the_last_one_are_left_out(optimizer: str) -> None:
    """Of step 0 before the optimizer has a state, and of step 12."""
    model, spoil = bare(), Spoil("views", 0, 12)
    run = made(model, spoil, on_non_finite="skip", check_finite_every=7, optimizer=optimizer)
    run.train(stream().train_stream[0])
    assert run.skipped_steps == 7 + 7
    assert same(spoil.states[7], spoil.states[0]) and same(spoil.states[17], spoil.states[10])
    state = [v for s in run.optimizer.state.values() for v in s.values()]
    assert state and all(v.isfinite().all() for v in state) and is_finite(model)
    if optimizer == "adamw":  # 20 steps of which 14 were left out
        assert {int(s["step"]) for s in run.optimizer.state.values()} == {6}


def test_too_many_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finite, "MOST_IN_A_ROW", 4)
    model, spoil = bare(), Spoil("views", 1, 2, 3, 8, 9, 10, 11)
    run = made(model, spoil, on_non_finite="skip")
    with pytest.raises(NonFiniteLossError, match="epoch 1, step 1, and 4 steps in a row were left"):
        run.train(stream().train_stream[0])
    assert run.skipped_steps == 6 and is_finite(model)


def test_branches_go_on(tmp_path: Path) -> None:
    model, spoil = method("byol"), Spoil("views", 20, 30)
    run = made(
        model,
        spoil,
        BranchTuningPlugin(verbose=False),
        optimizer="lars",
        on_non_finite="skip",
        evaluator=EvaluationPlugin(loggers=[RunRecorder(tmp_path, "run")]),
    )
    for experience in stream().train_stream:
        run.train(experience)
    assert run.skipped_steps == 2 and is_finite(model)
    record = load_run(tmp_path)
    assert record.settings["on non-finite"] == "skip" and record.skipped_steps == 2
    online = [k for k in spoil.states[20] if "momentum" not in k]
    assert online and all(torch.equal(spoil.states[20][k], spoil.states[21][k]) for k in online)


def test_nothing_is_remembered_of_skipped_steps() -> None:
    der, spoil = DERPlugin(memory=40, batch_size=10), Spoil("views", 0, 5, 6)
    run = made(method(), spoil, der, on_non_finite="skip", train_epochs=1)
    run.train(stream().train_stream[0])
    assert run.skipped_steps == 3
    assert len(der.targets) == 35 and all(t.isfinite().all() for t in der.targets)


# ---- the scale


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss scaling as a GPU has it, here on a CPU."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(
        torch.amp, "GradScaler", lambda *args, **kwargs: scaler("cpu", init_scale=1024.0)
    )


@pytest.mark.parametrize("kind", ["loss", "views"])
@pytest.mark.usefixtures("scaled")
def test_the_scale_is_lowered(kind: str) -> None:
    model, spoil = bare(), Spoil(kind, 3, 5)
    run = made(model, spoil, on_non_finite="lower_scale", train_epochs=1)
    run.train(stream().train_stream[0])
    assert run.skipped_steps == 2 and run.scaler.get_scale() == 256.0
    assert same(spoil.states[3], spoil.states[4]) and not same(spoil.states[4], spoil.states[5])


@pytest.mark.parametrize("policy", ["stop", "skip", "lower_scale"])
@pytest.mark.usefixtures("scaled")
def test_infinite_gradients_are_the_scalers(policy: str) -> None:
    """Until no scale is small enough."""
    model, spoil = bare(), Spoil("gradient", *range(2, 30))
    run = made(model, spoil, on_non_finite=policy)
    with pytest.raises(NonFiniteLossError, match="the loss scale fell below 1 in experience 0"):
        run.train(stream().train_stream[0])
    assert len(spoil.states) == 2 + 11 + 1 and run.skipped_steps == 0
    parameters = dict(model.named_parameters())
    assert all(torch.equal(spoil.states[2][n], p) for n, p in parameters.items())


@pytest.mark.usefixtures("scaled")
def test_a_loss_that_is_not_finite_stops_under_a_scale_too() -> None:
    model, spoil = bare(), Spoil("views", 3)
    with pytest.raises(
        NonFiniteLossError, match="the loss is nan in experience 0, epoch 0, step 3"
    ):
        made(model, spoil).train(stream().train_stream[0])
    assert same(model.state_dict(), spoil.states[3])
