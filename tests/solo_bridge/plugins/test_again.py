"""An experience that is trained again, for an error came after it, counts once in every memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from solo_bridge.plugins import (
    CaSSLePlugin,
    CLRPlugin,
    DERPlugin,
    KaizenPlugin,
    LUMPPlugin,
    PeriodicFineTuningPlugin,
    SelfSupervisedEWCPlugin,
    SelfSupervisedMASPlugin,
    SelfSupervisedSIPlugin,
    replay,
)
from tests.selfsupervised import method, strategy, stream, weights


class Fail(SupervisedPlugin):
    """Raise when experience 1 has ended, after the other plugins and before Avalanche's clock."""

    def __init__(self) -> None:
        super().__init__()
        self.armed = True

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if self.armed and strategy.experience.current_experience == 1:
            self.armed = False
            raise KeyboardInterrupt


MEMORIES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "replay": (lambda: replay("first_per_class"), lambda p: sorted(p.storage_policy.seen.items())),
    "der": (lambda: DERPlugin(memory=1000), lambda p: len(p.images)),
    "lump": (lambda: LUMPPlugin(memory=1000), lambda p: len(p.images)),
    "periodic": (
        lambda: PeriodicFineTuningPlugin(every=3, steps=1, memory=1000),
        lambda p: (len(p.storage.buffer), p.fine_tunings),
    ),
    "clr": (lambda: CLRPlugin(verbose=False), lambda p: (sorted(p.tasks), p.extra_parameters())),
    "ewc": (
        lambda: SelfSupervisedEWCPlugin(1.0),
        lambda p: (p._count, sorted(p.saved_params), sorted(p.importances)),
    ),
    "ewc_online": (
        lambda: SelfSupervisedEWCPlugin(1.0, mode="online", decay_factor=1.0),
        lambda p: (p._count, sorted(p.saved_params), sorted(p.importances)),
    ),
    "mas": (SelfSupervisedMASPlugin, lambda p: p._count),
    "si": (lambda: SelfSupervisedSIPlugin(1.0), lambda p: p._count),
}


def train(plugins: list[Any], fail: bool) -> Any:
    run = strategy(method(), plugins, train_epochs=1, lr=0.1)
    torch.manual_seed(0)
    for experience in stream(5).train_stream[:3]:
        try:
            run.train(experience)
        except KeyboardInterrupt:
            assert fail
            run.train(experience)
    return run


@pytest.mark.parametrize("name", list(MEMORIES))
def test_memories_take_it_up_once(name: str) -> None:
    make, held = MEMORIES[name]
    plain, again = make(), make()
    train([plain], fail=False)
    fail = Fail()
    train([again, fail], fail=True)
    assert not fail.armed
    assert held(again) == held(plain)


@pytest.mark.parametrize("make", [CaSSLePlugin, KaizenPlugin])
def test_the_teacher_is_the_one_of_the_experience_before(make: Any) -> None:
    plugin, seen = make(hidden=16), []

    class Look(SupervisedPlugin):
        def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            if strategy.clock.train_epoch_iterations == 0:
                teacher = plugin.teacher
                classifier = getattr(plugin, "_old_classifier", None)
                parts = [p for p in (teacher, classifier) if p is not None]
                found: list[Tensor] = [weights(p) for p in parts]
                seen.append((strategy.experience.current_experience, found))

    train([plugin, Look(), Fail()], fail=True)
    assert [index for index, _ in seen] == [0, 1, 1, 2]
    first, again, last = (parts for _, parts in seen[1:])
    assert first and all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(again[0], last[0])
