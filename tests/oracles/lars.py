"""LARS parameter by parameter, deciding by the norms' values; and solo-learn's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from solo_bridge.compat import load


class SlowLARS(Optimizer):
    """As solo-learn's main branch; ``trust="kernel"`` takes the norm of a branch's kernel."""

    def __init__(self, params: Any, trust: str = "branch", **settings: Any) -> None:
        super().__init__(params, {"eps": 1e-8, **settings})
        self.trust = trust

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
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

    def _scaled(self, p: Any, group: dict[str, Any]) -> Tensor:
        gradient: Tensor = p.grad
        if p.ndim == 1 and group["exclude"]:
            return gradient
        measured = getattr(p, "kernel", p) if self.trust == "kernel" else p
        norm, gradient_norm = torch.norm(measured), torch.norm(gradient)
        if norm == 0 or gradient_norm == 0:
            return gradient
        decay = group["weight_decay"]
        rate = norm / (gradient_norm + norm * decay + group["eps"])
        rate *= group["eta"]
        if group["clip"]:
            rate = min(rate / group["lr"], 1)
        return gradient.add(p, alpha=decay) * rate


def solo_learns(groups: Any, **settings: Any) -> Any:
    """solo-learn's own LARS, of the generation that is installed."""
    generation = load().short  # first: solo-learn is imported there
    from solo.utils import lars

    clip, exclude = settings.pop("clip"), settings.pop("exclude")
    if generation == "main":
        return lars.LARS(groups, clip_lr=clip, exclude_bias_n_norm=exclude, **settings)
    eta = settings.pop("eta")
    sgd = torch.optim.SGD(groups, **settings)
    return lars.LARSWrapper(sgd, eta=eta, clip=clip, exclude_bias_n_norm=exclude)
