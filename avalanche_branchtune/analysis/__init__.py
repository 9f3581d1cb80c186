"""Stability and plasticity of what was learnt."""

from avalanche_branchtune.analysis.cka import MinibatchCKA, linear_cka
from avalanche_branchtune.analysis.stability import (
    StabilityPlasticity,
    analysed_layers,
    layerwise_cka,
    stability_plasticity,
)

__all__ = [
    "MinibatchCKA",
    "StabilityPlasticity",
    "analysed_layers",
    "layerwise_cka",
    "linear_cka",
    "stability_plasticity",
]
