"""Surgery and norms, stopped at every line and done again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avalanche_branchtune import compress, expand, fix_norms, is_expanded, restore_norms
from tests.interruptions import Stop, every_line, signalled
from tests.oracles.three_convolutions import random_branches


def small() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    return with_gradients(model)


def large() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, (1, 5), groups=2, bias=False),
        nn.GroupNorm(2, 4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    model[2].weight.requires_grad_(False)
    model[1].bias.requires_grad_(False)
    return with_gradients(model)


def with_gradients(model: nn.Module) -> nn.Module:
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    return model


IMAGES = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def learnt(model: nn.Module) -> nn.Module:
    """With values in its branches."""
    random_branches([p for n, p in model.named_parameters() if "branch_" in n], 1)
    return model


def described(model: nn.Module) -> list[Any]:
    """Everything but values: classes, names, objects, what learns, hooks, modes."""
    return [
        (
            type(m),
            list(vars(m)),
            [(n, id(p), p.requires_grad) for n, p in m._parameters.items() if p is not None],
            list(m._forward_pre_hooks.values()),
            len(m._forward_hooks),
            m.training,
        )
        for m in model.modules()
    ]


def gradients(model: nn.Module) -> list[Tensor | None]:
    return [p.grad for p in model.parameters()]


def same_values(a: nn.Module, b: nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return list(x) == list(y) and all(torch.equal(x[n], y[n]) for n in x)


Interrupt = Callable[[Callable[[], Any]], None]
Check = Callable[[Callable[[], nn.Module], Interrupt], None]


def expanding(make: Callable[[], nn.Module], attempt: Interrupt) -> None:
    """What was not expanded is as it was, and can be."""
    model = make()
    before, values, grads = described(model), make(), gradients(model)
    output = model.eval()(IMAGES)
    model.train()
    attempt(lambda: expand(model, linear="full"))
    if not is_expanded(model):
        assert described(model) == before and same_values(model, values)
        assert all(a is b for a, b in zip(gradients(model), grads, strict=True))
        expand(model, linear="full")
    assert torch.equal(model.eval()(IMAGES), output)
    model.train()
    compress(model)
    assert described(model) == before and same_values(model, values)


def compressing(make: Callable[[], nn.Module], attempt: Interrupt) -> None:
    """What was half merged computes the same, and is merged once by the next call."""
    model, twin = make(), make()
    plain = described(model)
    expand(model, linear="full")
    expand(twin, linear="full")
    learnt(model).eval(), learnt(twin).eval()
    expected = model(IMAGES)
    compress(twin)
    attempt(lambda: compress(model))
    assert torch.allclose(model(IMAGES), expected, atol=1e-6)
    compress(model.train())
    assert described(model) == plain and same_values(model, twin)
    assert compress(model) == ()


def compressing_the_expanding(make: Callable[[], nn.Module], attempt: Interrupt) -> None:
    """Compress takes away what an expansion left, too."""
    model = make()
    before, values = described(model), make()
    attempt(lambda: expand(model, linear=2))
    compress(model)
    assert described(model) == before and same_values(model, values)


def fixing(mode: str) -> Check:
    def check(make: Callable[[], nn.Module], attempt: Interrupt) -> None:
        model = make()
        before, grads = described(model), gradients(model)
        done: list[Any] = []
        attempt(lambda: done.append(fix_norms(model, mode, norms=["BatchNorm2d", "GroupNorm"])))
        if not done and described(model) == before:
            assert all(a is b for a, b in zip(gradients(model), grads, strict=True))
            fix_norms(model, mode)
        assert not model[1].weight.requires_grad and model[1].training == (mode == "affine")
        restore_norms(model)
        assert described(model) == before

    return check


def restoring(mode: str) -> Check:
    def check(make: Callable[[], nn.Module], attempt: Interrupt) -> None:
        model = make()
        before = described(model)
        fix_norms(model, mode, norms=["BatchNorm2d", "GroupNorm"])
        attempt(lambda: restore_norms(model))
        restore_norms(model)
        assert described(model) == before

    return check


CHECKS: dict[str, Check] = {
    "expand": expanding,
    "expand, then compress": compressing_the_expanding,
    "compress": compressing,
    "fix_norms affine": fixing("affine"),
    "fix_norms eval": fixing("eval"),
    "restore_norms affine": restoring("affine"),
    "restore_norms eval": restoring("eval"),
}


def by_line(check: Check, make: Callable[[], nn.Module]) -> Callable[[Stop], None]:
    def run(stop: Stop) -> None:
        def attempt(operation: Callable[[], Any]) -> None:
            try:
                with stop.watching():
                    operation()
            except KeyboardInterrupt:
                pass

        check(make, attempt)

    return run


@pytest.mark.parametrize("name", CHECKS)
def test_stopped_at_every_line_of_a_small_network(name: str) -> None:
    lines, failed = every_line(by_line(CHECKS[name], small))
    print(f"small {name}: {lines} lines, {len(failed)} failed")
    assert lines > 5 and not failed, "\n".join(failed)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_stopped_at_every_line(name: str) -> None:
    lines, failed = every_line(by_line(CHECKS[name], large))
    print(f"{name}: {lines} lines, {len(failed)} failed")
    assert lines > 20 and not failed, "\n".join(failed)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_stopped_by_a_signal(name: str) -> None:
    """Anywhere, also inside torch: a signal after each of 400 delays."""
    check, took, failed, stopped = CHECKS[name], [0.0], [], 0

    def timed(operation: Callable[[], Any]) -> None:
        begin = time.perf_counter()
        operation()
        took[0] = time.perf_counter() - begin

    for _ in range(3):
        check(large, timed)
    for i in range(400):

        def attempt(operation: Callable[[], Any], after: float = (i + 1) / 400 * took[0]) -> None:
            nonlocal stopped
            try:
                with signalled(after):
                    operation()
            except KeyboardInterrupt:
                stopped += 1

        try:
            check(large, attempt)
        except Exception as error:
            failed.append(f"{i}: {type(error).__name__}: {str(error)[:200]}")
        torch.set_grad_enabled(True)  # torch's own context managers can be stopped, too
    print(f"{name}: {stopped} stopped, {len(failed)} failed")
    assert stopped > 100 and not failed, "\n".join(failed)
