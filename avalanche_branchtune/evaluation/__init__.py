"""Evaluation of frozen representations."""

from avalanche_branchtune.evaluation.features import FeatureCache, extract_features
from avalanche_branchtune.evaluation.knn import KNNProbe, knn_probe, weighted_knn
from avalanche_branchtune.evaluation.linear import LinearProbe, linear_probe
from avalanche_branchtune.evaluation.matrix import AccuracyMatrix
from avalanche_branchtune.evaluation.probe import ClassifierProbe, Probe, ProbeResult
from avalanche_branchtune.evaluation.stream import StreamProbe, StreamResult
from avalanche_branchtune.evaluation.traces import StabilityGap, Trace, stability_gap

__all__ = [
    "AccuracyMatrix",
    "ClassifierProbe",
    "FeatureCache",
    "KNNProbe",
    "LinearProbe",
    "Probe",
    "ProbeResult",
    "StabilityGap",
    "StreamProbe",
    "StreamResult",
    "Trace",
    "extract_features",
    "knn_probe",
    "linear_probe",
    "stability_gap",
    "weighted_knn",
]
