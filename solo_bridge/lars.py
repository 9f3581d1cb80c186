"""LARS without a look at its numbers: nothing in a step waits for a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """SGD with LARS (You, Gitman, Ginsburg, arXiv 1708.03888), aware of branches.

    For a parameter w with gradient g the rate is
    ``eta · ‖w‖ / (‖g‖ + ‖w‖ · weight_decay + eps)``, as in solo-learn's LARS; where either norm
    is zero it is 1, and nothing decays.  A zero-initialised branch has ‖w‖ = 0: by its own norm it
    first has the raw rate and then, its norm being tiny for long, grows by at most ``eta`` per
    step.  By the norm of its kernel it does not.

    Solo-learn's code: vturrisi/solo-learn 9187ea3, solo/utils/lars.py, LARS, and release 1.0.2's
    LARSWrapper around SGD.
    Authors' code: SmallPigPeppa/ISSL 37827a5, cassle/utils/lars.py, LARSWrapper (Liu et al.).
    Differs: they decide by the norms' values, parameter by parameter, for which a GPU is waited
    for twice each; here all are worked on together, and on a CPU the results are theirs bit by bit.
    Differs: release 1.0.2's leaves scaled gradients behind; here gradients stay as they are.

    :param params: parameters or groups of them.
    :param lr: learning rate.
    :param momentum: momentum.
    :param weight_decay: weight decay, inside the trust ratio.
    :param eta: trust coefficient.
    :param clip: clip the trust ratio's rate at the group's ``lr``.
    :param exclude: leave parameters with one axis out of LARS and weight decay.
    :param eps: for gradients of norm zero.
    :param trust: ``"branch"`` or ``"kernel"``: whose norm ‖w‖ is for a branch.
    :param rounding: ``"main"``, as solo-learn's main branch, or ``"1.0.2"``: they multiply in
        another order.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 0.02,
        clip: bool = True,
        exclude: bool = True,
        eps: float = 1e-8,
        trust: str = "branch",
        rounding: str = "main",
    ) -> None:
        """See the class."""
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "eta": eta,
            "clip": clip,
            "exclude": exclude,
            "eps": eps,
            "trust": trust,
            "rounding": rounding,
        }
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state, also one of solo-learn's LARS or of SGD, whose groups say less."""
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one optimization step.

        :param closure: computes the loss again, or None.
        :return: the closure's result.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[Any, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    left_out = p.ndim == 1 and group["exclude"]
                    alike.setdefault((p.device, p.dtype, left_out), []).append(p)
            for (_, _, left_out), parameters in alike.items():
                gradients: list[Tensor] = [p.grad for p in parameters]  # type: ignore[misc]
                updates = gradients if left_out else _scaled(parameters, gradients, group)
                if group["momentum"]:
                    updates = self._with_momentum(parameters, updates, group["momentum"])
                torch._foreach_add_(parameters, updates, alpha=-group["lr"])
        return loss

    def _with_momentum(
        self, parameters: list[Tensor], updates: list[Tensor], momentum: float
    ) -> list[Tensor]:
        states = [self.state[p] for p in parameters]
        begun = [i for i, state in enumerate(states) if state.get("momentum_buffer") is not None]
        if begun:
            buffers = [states[i]["momentum_buffer"] for i in begun]
            torch._foreach_mul_(buffers, momentum)
            torch._foreach_add_(buffers, [updates[i] for i in begun])
        for state, update in zip(states, updates, strict=True):
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = update.clone()
        return [state["momentum_buffer"] for state in states]


def _scaled(
    parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]
) -> list[Tensor]:
    """Return gradients with weight decay, times the rate of each."""
    of_kernel = group["trust"] == "kernel"
    measured = [getattr(p, "kernel", p) if of_kernel else p for p in parameters]
    norms = torch.stack(torch._foreach_norm(measured))
    gradient_norms = torch.stack(torch._foreach_norm(gradients))
    eta, decay, old = group["eta"], group["weight_decay"], group["rounding"] == "1.0.2"
    scale = gradient_norms + norms * decay + group["eps"]
    rates = eta * norms / scale if old else norms / scale * eta
    if group["clip"]:
        rates = (rates / group["lr"]).clamp(max=1)
    known = (norms != 0) & (gradient_norms != 0)
    rates = torch.where(known, rates, 1.0)
    decaying = known.to(rates.dtype)
    if old:  # it rounds the product, which an addition with a factor does not
        decayed = torch._foreach_mul(parameters, (decaying * decay).unbind())
        torch._foreach_add_(decayed, gradients)
    else:
        decayed = torch._foreach_mul(parameters, decaying.unbind())
        decayed = torch._foreach_add(gradients, decayed, alpha=decay)
    torch._foreach_mul_(decayed, rates.unbind())
    return list(decayed)
