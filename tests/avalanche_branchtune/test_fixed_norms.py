"""The control for Branch-tuning: norms stand still from the second experience on, only they do."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EWCPlugin, ReplayPlugin
from torch import Tensor, nn

from avalanche_branchtune import BranchTuningPlugin, FixedNormsPlugin
from avalanche_branchtune.errors import IncompatiblePluginError, UnknownOptionError
from tests.supervised import Net, benchmark, strategy

AFFINE = ("features.1.weight", "features.1.bias")
STATISTICS = ("features.1.running_mean", "features.1.running_var")
OTHERS: dict[str, Callable[[], Any]] = {
    "ReplayPlugin": lambda: ReplayPlugin(12),
    "EWCPlugin": lambda: EWCPlugin(1.0),
}


def state(model: nn.Module) -> dict[str, Tensor]:
    return {n: t.detach().clone() for n, t in model.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {n for n in before if not torch.equal(before[n], after[n])}


def learning(model: nn.Module) -> list[tuple[bool, ...]]:
    modules = [(m.training, len(m._forward_pre_hooks) == 0) for m in model.modules()]
    return [*modules, *((p.requires_grad,) for p in model.parameters())]


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("mode", ["affine", "eval"])
def test_norms_stand_still_while_all_else_learns(mode: str, other: str) -> None:
    ends: list[list[tuple[bool, ...]]] = []

    class End(SupervisedPlugin):
        def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
            ends.append(learning(strategy.model))

    plugin = FixedNormsPlugin(mode, verbose=False)
    model = Net().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    run = strategy([End(), OTHERS[other](), plugin], model, optimizer)
    states, start = [state(model)], learning(model)
    for experience in benchmark().train_stream:
        run.train(experience)
        states.append(state(model))
    assert moved(*states[:2]) == set(states[0]), "the first experience trains everything"
    counted = "features.1.num_batches_tracked"
    still = {*AFFINE, *(() if mode == "affine" else (*STATISTICS, counted))}
    for before, after in pairwise(states[1:]):
        assert moved(before, after) == set(states[0]) - still, "momentum and decay do not move them"
    assert ends == [start] * 3, "others see the network as it was, in any order"
    assert learning(model.train()) == start
    summary = plugin.summary
    assert (summary.experience, summary.norms) == (2, ("features.1",))


def test_what_is_pretrained_has_its_norms_fixed_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    model = Net()
    run = strategy([FixedNormsPlugin(pretrained=True)], model)
    before = state(model)
    run.train(benchmark().train_stream[0])
    assert moved(before, state(model)) == set(before) - set(AFFINE)
    kernels_and_head = (6 * 3 * 9 + 6) + (8 * 6 * 9 + 8) + (32 * 6 + 6)
    says = f"experience 0: 1 fixed norms, {kernels_and_head} trainable and 12 frozen parameters"
    assert says in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["affine", "eval"])
def test_an_interrupted_experience_is_trained_again(mode: str) -> None:
    class Interrupt(SupervisedPlugin):
        armed = False

        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            if self.armed:
                raise KeyboardInterrupt

    interrupt, plugin = Interrupt(), FixedNormsPlugin(mode, verbose=False)
    run = strategy([interrupt, plugin])
    model, experiences = run.model, benchmark().train_stream
    run.train(experiences[0])
    before, start = state(model), learning(model)
    interrupt.armed = True
    with pytest.raises(KeyboardInterrupt):
        run.train(experiences[1])
    assert not model.features[1].weight.requires_grad
    interrupt.armed = False
    run.train(experiences[1])
    assert moved(before, state(model)) >= {"features.0.weight", "features.3.weight", "fc.weight"}
    assert not moved(before, state(model)) & set(AFFINE)
    assert learning(model) == start and plugin.under_way is None
    for _ in range(2):
        plugin.close(run, finished=False)
        assert learning(model) == start


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: [FixedNormsPlugin(), BranchTuningPlugin()], IncompatiblePluginError, "norm_mode="),
        (lambda: [BranchTuningPlugin(), FixedNormsPlugin()], IncompatiblePluginError, "norm_mode="),
        (lambda: [FixedNormsPlugin(), FixedNormsPlugin()], IncompatiblePluginError, "keep one"),
        (lambda: [FixedNormsPlugin(norms=["LayerNorm"])], UnknownOptionError, "nothing to fix"),
        (lambda: [FixedNormsPlugin(norm_scope=["fc"])], UnknownOptionError, "nothing to fix"),
        (lambda: [FixedNormsPlugin("none")], UnknownOptionError, "affine, eval"),
        (lambda: [FixedNormsPlugin(norms=["Batchnorm2d"])], UnknownOptionError, "mean BatchNorm2d"),
        (lambda: [FixedNormsPlugin(verbose=2)], UnknownOptionError, "verbose"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained(
    make: Callable[[], Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=rf"FixedNormsPlugin.*{says}"):
        strategy(make()).train(benchmark().train_stream[0])
