"""Evaluation of frozen representations."""

from avalanche_branchtune.evaluation.features import extract_features
from avalanche_branchtune.evaluation.knn import KNNResult, knn_probe, weighted_knn

__all__ = ["KNNResult", "extract_features", "knn_probe", "weighted_knn"]
