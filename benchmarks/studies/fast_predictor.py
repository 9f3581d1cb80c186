"""CaSSLe whose predictor learns at ten times the network's rate, for the study of distillation."""

from __future__ import annotations

from typing import Any

from torch import nn

from solo_bridge.plugins import CaSSLePlugin
from solo_bridge.registry import register


@register("cassle_fast_predictor", "CaSSLe, predictor at ten times the rate")
class FastPredictorCaSSLe(CaSSLePlugin):
    def join(self, strategy: Any, module: nn.Module, **settings: Any) -> None:
        rate = 10 * strategy.optimizer.param_groups[0]["lr"]
        super().join(strategy, module, lr=rate, **settings)
