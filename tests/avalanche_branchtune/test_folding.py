"""Kernels folded once for several uses: against folding at each, and parallel convolutions."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avalanche_branchtune import BranchTuningPlugin, expand
from avalanche_branchtune.branches import BranchConv2d, Branched, BranchLinear
from avalanche_branchtune.folding import folded_once
from tests.oracles.three_convolutions import branched_forward, random_branches
from tests.selfsupervised import method, strategy, stream

VIEWS = 3


def net(dtype: torch.dtype = torch.float64, linear: Any = "full") -> nn.Sequential:
    """Groups, dilation, two memory formats, a 1×1 and a rectangular kernel, a linear layer."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=2, dilation=2),
        nn.Conv2d(8, 8, (3, 5), padding=1, groups=4, stride=2).to(
            memory_format=torch.channels_last
        ),
        nn.Tanh(),
        nn.Conv2d(8, 4, 1, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 6),
    ).to(dtype)
    expand(model, linear=linear, scope=["0", "1", "3", "6"])
    random_branches([p for p in model.parameters() if p.requires_grad], 1)
    return model


def views(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(4, 3, 9, 9, generator=generator).to(dtype) for _ in range(VIEWS)]


def loss_of(call: Callable[[Tensor], Tensor], given: list[Tensor]) -> Tensor:
    outputs = [call(view) for view in given]
    return sum((o.sin().sum() for o in outputs), torch.zeros(())) + (outputs[0] * outputs[1]).sum()


def learning(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


class Folds:
    """Counts how often each layer's kernel is folded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count: dict[int, int] = {}
        for kind in (BranchConv2d, BranchLinear):
            monkeypatch.setattr(kind, "folded_weight", self._counted(kind.folded_weight))

    def _counted(self, fold: Any) -> Any:
        def counted(layer: Branched) -> Tensor:
            self.count[id(layer)] = self.count.get(id(layer), 0) + 1
            kernel: Tensor = fold(layer)
            return kernel

        return counted

    def taken(self) -> list[int]:
        found, self.count = sorted(self.count.values()), {}
        return found


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Folds]:
    yield Folds(monkeypatch)


@pytest.mark.parametrize("linear", ["full", 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loss_is_bit_equal_and_gradients_are_the_slow_ones(
    dtype: torch.dtype, linear: Any, folds: Folds
) -> None:
    found = []
    for keeping, times in ((nullcontext(), VIEWS), (folded_once(), 1)):
        model = net(dtype, linear)
        with keeping:
            loss = loss_of(model, views(dtype))
        assert folds.taken() == [times] * 4
        loss.backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
        found.append((loss.detach(), [p.grad for p in learning(model)]))
    (slow, slow_gradients), (fast, gradients) = found
    assert torch.equal(fast, slow)
    torch.testing.assert_close(gradients, slow_gradients)


def test_gradients_are_those_of_parallel_convolutions() -> None:
    model, given = net(), views()

    def parallel(x: Tensor) -> Tensor:
        for layer in model:
            if isinstance(layer, BranchConv2d):
                x = branched_forward(layer, layer.weight, layer.bias, [*layer.branches.values()], x)
            elif isinstance(layer, BranchLinear):
                x = x @ layer.weight.T + x @ layer.branches["branch_full"].T + layer.bias
            else:
                x = layer(x)
        return x

    expected = torch.autograd.grad(loss_of(parallel, given), learning(model))
    with folded_once():
        loss = loss_of(model, given)
    torch.testing.assert_close(torch.autograd.grad(loss, learning(model)), expected)


def test_gradients_of_gradients_and_a_second_backward_pass() -> None:
    found = []
    for keeping in (nullcontext(), folded_once()):
        model = net()
        with keeping:
            loss = loss_of(model, views())
        first = torch.autograd.grad(loss, learning(model), create_graph=True)
        again = torch.autograd.grad(loss, learning(model), retain_graph=True)
        torch.testing.assert_close(first, again)
        penalty = torch.stack([g.square().sum() for g in first]).sum()
        found.append(torch.autograd.grad(penalty, learning(model)))
    torch.testing.assert_close(*found)


def test_nothing_is_left_behind(folds: Folds) -> None:
    model, (view, *_) = net(), views()
    attributes = [list(vars(m)) for m in model.modules()]
    with folded_once():
        expected = model(view)
        inside = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        assert folds.taken() == [1] * 4
        for twin in inside:
            assert torch.equal(twin(view), expected)
            assert folds.taken() == [1] * 4, "a copy folds its own"
    model(view)
    assert folds.taken() == [1] * 4
    with pytest.raises(KeyError), folded_once():
        model(view)
        raise KeyError
    folds.taken()
    model(view)
    assert folds.taken() == [1] * 4
    assert [list(vars(m)) for m in model.modules()] == attributes


def test_one_within_another_ends_with_the_outer_one(folds: Folds) -> None:
    model, (view, *_) = net(), views()
    with folded_once():
        with folded_once():
            model(view)
        model(view)
    assert folds.taken() == [1] * 4


def test_what_was_folded_without_gradients_is_folded_again_with_them(folds: Folds) -> None:
    model, (view, *_) = net(), views()
    with folded_once():
        with torch.no_grad():
            quiet = model(view)
        output = model(view)
        with torch.no_grad():
            assert not model(view).requires_grad
    assert torch.equal(quiet, output) and folds.taken() == [2] * 4
    output.sum().backward()
    assert all(p.grad is not None for p in learning(model))


def in_place(model: Any) -> None:
    with torch.no_grad():
        model[0].branch_1x3.add_(1.0)


def in_the_kernel(model: Any) -> None:
    model[0].weight.add_(1.0)


def another_tensor(model: Any) -> None:
    model[0].branch_1x3.data = model[0].branch_1x3.data + 1.0


def another_parameter(model: Any) -> None:
    state = {name: value + 1.0 for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


@pytest.mark.parametrize("change", [in_place, in_the_kernel, another_tensor, another_parameter])
def test_what_changes_inside_is_folded_again(change: Callable[[nn.Module], None]) -> None:
    model, (view, *_) = net(), views()
    with folded_once():
        before = model(view)
        change(model)
        after = model(view)
    assert not torch.allclose(after, before)
    assert torch.equal(after, model(view))


def test_a_layer_that_is_frozen_inside_has_no_gradient_from_then_on() -> None:
    model, (view, *_) = net(), views()
    with folded_once():
        model(view)
        model.requires_grad_(False)
        assert not model(view).requires_grad


def test_another_autocast_folds_another_kernel() -> None:
    """A low-rank branch is multiplied in the precision of autocasting."""
    model, (view, *_) = net(torch.float32, 2), views(torch.float32)
    found = []
    for keeping in (nullcontext(), folded_once()):
        with keeping, torch.no_grad():
            with torch.autocast("cpu", torch.bfloat16):
                low = model(view)
            found.append((low, model(view)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_functional_transforms() -> None:
    """Of parameters that take the model's place, and of the model's own by another name."""
    model, (view, *_) = net(), views()
    values = {name: p.detach() + 0.1 for name, p in model.named_parameters()}

    def loss(given: dict[str, Tensor]) -> Tensor:
        a = torch.func.functional_call(model, given, view)
        b = torch.func.functional_call(model, given, 2 * view)
        return (a * b).sum()

    expected = torch.func.grad(loss)(values)
    with folded_once():
        before = model(view)
        found = torch.func.grad(loss)(values)
        assert torch.equal(model(view), before)
    torch.testing.assert_close(found, expected)


def test_checkpointing_folds_for_itself() -> None:
    from torch.utils.checkpoint import checkpoint

    model, given = net(), views()
    expected = torch.autograd.grad(loss_of(model, given), learning(model))
    with folded_once():
        loss = loss_of(lambda x: checkpoint(model, x, use_reentrant=False), given)
    torch.testing.assert_close(torch.autograd.grad(loss, learning(model)), expected)


@pytest.mark.parametrize(("name", "networks"), [("simclr", 1), ("byol", 2)])
def test_a_strategys_step_folds_each_kernel_once(name: str, networks: int, folds: Folds) -> None:
    """And frozen kernels have neither a gradient nor a state in the optimizer."""
    model = method(name)
    run = strategy(model, [BranchTuningPlugin(pretrained=True, verbose=False)], train_epochs=1)
    loss_of, found = run.loss_of, []

    def counted(batch: Any, **kwargs: Any) -> Tensor:
        folds.taken()
        loss = loss_of(batch, **kwargs)
        found.append(folds.taken())
        return loss

    run.loss_of = counted  # type: ignore[method-assign]
    backward, kernels = run.backward, []

    def watched() -> None:
        backward()
        for layer in model.modules():
            if isinstance(layer, Branched):
                assert layer.weight.grad is None and layer.weight not in run.optimizer.state
                kernels.append(layer)

    run.backward = watched  # type: ignore[method-assign]
    run.train(stream().train_stream[0])
    assert found == [[1] * 2 * networks] * 2 and len(kernels) == 2 * networks * 2
