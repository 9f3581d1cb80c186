"""Steps of whole strategies take over no number, for which a GPU would be waited for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from avalanche.evaluation.metrics import loss_metrics
from avalanche.training.plugins import EvaluationPlugin

from solo_bridge import SelfSupervised, specification
from solo_bridge.mean_loss import EpochLossOnDevice, ExperienceLossOnDevice
from tests.readings import Readings
from tests.selfsupervised import ALL_METHODS, method, small_options, stream

EVENTS = (
    *("_before_training_iteration", "_before_forward", "forward", "_after_forward"),
    *("_before_backward", "backward", "_after_backward"),
    *("_before_update", "optimizer_step", "_after_update", "_after_training_iteration"),
)

ON_THE_CPU = ("/torchvision/transforms/", "/rehearsal/mixing.py", "/rehearsal/remembering.py")
"""Who draws numbers and looks at images of a memory, which are there on any machine."""

SPECS = (
    "branch_tuning",
    "cassle",
    "kaizen",
    "pfr",
    "lwf",
    "feature_distillation",
    "lump",
    "der",
    "replay",
    "ewc",
    "l2",
)
"""All but SI, which is Avalanche's: it copies all weights to the CPU in each step."""


def readings(spec: str, name: str) -> list[str]:
    """Train two experiences; say where steps of the second one take over a number."""
    torch.manual_seed(0)
    made: SelfSupervised = specification.build(
        spec,
        method(name),
        options=small_options(spec),
        optimizer="lars",
        train_mb_size=20,
        train_epochs=1,
        check_finite_every=100,
        evaluator=EvaluationPlugin(EpochLossOnDevice(), ExperienceLossOnDevice(), loggers=[]),
    )
    benchmark, found, events = stream(), [], []
    made.train(benchmark.train_stream[0])
    for event in EVENTS:
        call = getattr(made, event)

        def watched(*args: Any, call: Any = call, event: str = event, **kwargs: Any) -> Any:
            with Readings() as seen:
                result = call(*args, **kwargs)
            events.append(event)
            found.extend(seen.places)
            return result

        setattr(made, event, watched)
    made.train(benchmark.train_stream[1])
    assert set(events) == set(EVENTS) and len(events) == 2 * len(EVENTS)
    return [place for place in found if not any(there in place for there in ON_THE_CPU)]


@pytest.mark.parametrize("spec", ["branch_tuning+cassle", "kaizen", "der"])
def test_no_step_waits(spec: str) -> None:
    assert not readings(spec, "byol")


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
def test_no_step_of_a_strategy_waits(spec: str) -> None:
    assert not readings(spec, "simclr")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch.triangular_solve")  # W-MSE's whitening
@pytest.mark.parametrize("name", ALL_METHODS)
def test_no_step_of_a_method_waits(name: str) -> None:
    assert not readings("fine_tuning", name)


class Step:
    """What a loss metric looks at."""

    def __init__(self, loss: torch.Tensor, samples: int) -> None:
        self.loss = loss
        self.mb_y = torch.zeros(samples)


def test_mean_losses_are_avalanches() -> None:
    theirs: Any = loss_metrics(epoch=True, experience=True)
    ours: Any = [EpochLossOnDevice(), ExperienceLossOnDevice()]
    for a, b in zip(ours, theirs, strict=True):
        assert str(a) == str(b) and a.result() == b.result() == 0.0
        for _ in range(2):
            for i in range(50):
                step = Step(torch.randn(3) * 10.0 ** (i % 7), 1 + i % 5)
                with Readings() as seen:
                    a.update(step)
                assert not seen.count
                b.update(step)
                assert a.result() == b.result()
            a.reset()
            b.reset()
            assert a.result() == 0.0
