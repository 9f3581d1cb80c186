"""Evaluation of frozen representations."""

from typing import TYPE_CHECKING

from avalanche_branchtune.lazy import exports

if TYPE_CHECKING:
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

__getattr__ = exports(  # records need traces and matrices alone, and no Avalanche
    __name__,
    {
        **dict.fromkeys(("FeatureCache", "extract_features"), "features"),
        **dict.fromkeys(("KNNProbe", "knn_probe", "weighted_knn"), "knn"),
        **dict.fromkeys(("LinearProbe", "linear_probe"), "linear"),
        "AccuracyMatrix": "matrix",
        **dict.fromkeys(("ClassifierProbe", "Probe", "ProbeResult"), "probe"),
        **dict.fromkeys(("StreamProbe", "StreamResult"), "stream"),
        **dict.fromkeys(("StabilityGap", "Trace", "stability_gap"), "traces"),
    },
)
