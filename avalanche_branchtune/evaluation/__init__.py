"""Evaluation of frozen representations."""

from avalanche_branchtune.evaluation.features import ProbeResult, extract_features
from avalanche_branchtune.evaluation.knn import knn_probe, weighted_knn
from avalanche_branchtune.evaluation.linear import linear_probe
from avalanche_branchtune.evaluation.matrix import AccuracyMatrix

__all__ = [
    "AccuracyMatrix",
    "ProbeResult",
    "extract_features",
    "knn_probe",
    "linear_probe",
    "weighted_knn",
]
