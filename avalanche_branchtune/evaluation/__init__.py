"""Evaluation of frozen representations."""

from avalanche_branchtune.evaluation.features import extract_features
from avalanche_branchtune.evaluation.knn import KNNResult, knn_probe, weighted_knn
from avalanche_branchtune.evaluation.linear import LinearResult, linear_probe
from avalanche_branchtune.evaluation.matrix import AccuracyMatrix

__all__ = [
    "AccuracyMatrix",
    "KNNResult",
    "LinearResult",
    "extract_features",
    "knn_probe",
    "linear_probe",
    "weighted_knn",
]
