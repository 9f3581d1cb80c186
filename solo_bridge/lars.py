"""LARS whose trust ratio takes the norm of the kernel that a branch is added to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class KernelNormLARS(Optimizer):
    """SGD with LARS (You, Gitman, Ginsburg, arXiv 1708.03888), aware of branches.

    For a parameter w with gradient g the rate is
    ``eta · ‖w‖ / (‖g‖ + ‖w‖ · weight_decay + eps)``, as in solo-learn's LARS.
    A zero-initialised branch has ‖w‖ = 0, so solo-learn's LARS first gives it
    the raw rate and then, its norm being tiny for long, lets it grow by at
    most ``eta`` per step.  Here ‖w‖ of a branch is the norm of its kernel.
    For other parameters both are the same, bit for bit.

    Solo-learn's code: vturrisi/solo-learn 9187ea3, solo/utils/lars.py, LARS.
    Authors' code: SmallPigPeppa/ISSL 37827a5, cassle/utils/lars.py, LARSWrapper (Liu et al.).
    Differs: both take a branch's own norm, as ``trust="branch"`` does; this class its kernel's.

    :param params: parameters or groups of them.
    :param lr: learning rate.
    :param momentum: momentum.
    :param weight_decay: weight decay, inside the trust ratio.
    :param eta: trust coefficient.
    :param clip: clip the trust ratio's rate at the group's ``lr``.
    :param exclude: leave parameters with one axis out of LARS and weight decay.
    :param eps: for gradients of norm zero.
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
        }
        super().__init__(params, defaults)

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
            for p in group["params"]:
                if p.grad is None:
                    continue
                update = self._scaled(p, group)
                if group["momentum"]:
                    state = self.state[p]
                    if "momentum_buffer" in state:
                        state["momentum_buffer"].mul_(group["momentum"]).add_(update)
                    else:
                        state["momentum_buffer"] = update.clone()
                    update = state["momentum_buffer"]
                p.add_(update, alpha=-group["lr"])
        return loss

    @staticmethod
    def _scaled(p: Tensor, group: dict[str, Any]) -> Tensor:
        gradient: Tensor = p.grad  # type: ignore[assignment]
        if p.ndim == 1 and group["exclude"]:
            return gradient
        norm, gradient_norm = torch.norm(getattr(p, "kernel", p)), torch.norm(gradient)
        if norm == 0 or gradient_norm == 0:
            return gradient
        decay = group["weight_decay"]
        rate = norm / (gradient_norm + norm * decay + group["eps"])
        rate *= group["eta"]
        if group["clip"]:
            rate = min(rate / group["lr"], 1)
        return gradient.add(p, alpha=decay) * rate
