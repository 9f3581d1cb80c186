"""Evaluation of frozen representations."""

from avalanche_branchtune.evaluation.features import FeatureCache, extract_features
from avalanche_branchtune.evaluation.knn import KNNProbe, knn_probe, weighted_knn
from avalanche_branchtune.evaluation.linear import LinearProbe, linear_probe
from avalanche_branchtune.evaluation.matrix import AccuracyMatrix
from avalanche_branchtune.evaluation.probe import ClassifierProbe, Probe, ProbeResult
from avalanche_branchtune.evaluation.stream import StreamProbe, StreamResult

__all__ = [
    "AccuracyMatrix",
    "ClassifierProbe",
    "FeatureCache",
    "KNNProbe",
    "LinearProbe",
    "Probe",
    "ProbeResult",
    "StreamProbe",
    "StreamResult",
    "extract_features",
    "knn_probe",
    "linear_probe",
    "weighted_knn",
]
