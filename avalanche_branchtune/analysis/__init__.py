"""Stability and plasticity of what was learnt."""
