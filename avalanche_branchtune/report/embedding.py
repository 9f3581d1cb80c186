"""Features in the plane."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST = 2000
LEAST_FOR_UMAP = 10


@dataclass(frozen=True)
class Embedding:
    """Points of a picture.

    :param points: ``(N, 2)``.
    :param taken: index of each point's sample, ``(N,)``.
    :param method: how they were made, to stand beside them.
    """

    points: np.ndarray
    taken: np.ndarray
    method: str


def embed(features: np.ndarray, most: int = MOST) -> Embedding:
    """Place features in the plane: by UMAP if it is installed, else by PCA.

    The same features give the same points.

    :param features: ``(N, D)``.
    :param most: of more samples, as many are taken at equal distances.
    :return: the points.
    """
    taken = np.unique(np.linspace(0, len(features) - 1, min(most, len(features))).astype(int))
    chosen = np.asarray(features, dtype=np.float64)[taken]
    umap = _umap()
    if umap is None or len(chosen) < LEAST_FOR_UMAP:
        return Embedding(*_pca(chosen, taken))
    neighbours = min(15, len(chosen) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one thread because of the seed: meant
        points = umap(n_components=2, n_neighbors=neighbours, random_state=0).fit_transform(chosen)
    return Embedding(np.asarray(points), taken, f"UMAP with {neighbours} neighbours")


def _umap() -> Any:
    try:
        from umap import UMAP
    except ImportError:
        return None
    return UMAP


def _pca(chosen: np.ndarray, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    points = np.zeros((len(chosen), 2))
    axes = min(2, *chosen.shape)
    spread = float(chosen.var(axis=0).sum())
    if axes == 0 or spread == 0:
        return points, taken, "PCA: the features do not vary"
    centred = chosen - chosen.mean(axis=0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    ahead = np.sign(directions[np.arange(axes), np.abs(directions[:axes]).argmax(axis=1)])
    points[:, :axes] = centred @ (ahead[:, None] * directions[:axes]).T
    share = float((lengths[:axes] ** 2).sum() / (lengths**2).sum())
    return points, taken, f"PCA, whose two axes hold {share:.0%} of the variance"
