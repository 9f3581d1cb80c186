"""Linear probe of a frozen network, in two protocols."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.evaluation.probe import Fitted, Probe, ProbeResult, run_probe
from avalanche_branchtune.options import at_least_one, one_of, positive

PROTOCOLS = ("lbfgs", "sgd")
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Inverse regularisations C from which the L-BFGS protocol chooses."""


@dataclass(frozen=True)
class LinearProbe(Probe):
    """A linear classifier on frozen features, trained offline.

    ``"lbfgs"``: standardised features, multinomial logistic regression by
    scikit-learn, its regularisation chosen on a fifth of the training data and
    then fitted on all of it.  ``"sgd"``: solo-learn's recipe (SGD with momentum
    0.9, no weight decay, rate divided by 10 after 60 % and 80 % of the epochs),
    on features without augmentation.

    Solo-learn's code: vturrisi/solo-learn 9187ea3, solo/methods/linear.py, LinearModel; settings:
    scripts/linear/imagenet-100/simclr.yaml and byol.yaml.
    Differs: solo-learn's classifier sees augmented images, ours fixed features.
    Differs: solo-learn's starts as ``nn.Linear`` does, ours at zero.
    Differs: solo-learn's rate is scaled by batch / 256, ours is not.

    :param protocol: ``"lbfgs"`` or ``"sgd"``.
    :param lr: rate of ``"sgd"``; solo-learn has 1.0 for SimCLR, 0.3 for BYOL.
    :param epochs: epochs of ``"sgd"``.
    :param batch_size: samples in a minibatch of ``"sgd"``.
    :param seed: of the held-out part and of SGD.
    :raises UnknownOptionError: for an unknown protocol, and a number that cannot be.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.evaluation import LinearProbe
        >>> x, y = torch.tensor([[0.0], [1.0], [4.0], [5.0]]), torch.tensor([2, 2, 7, 7])
        >>> fitted = LinearProbe("lbfgs").fit(x, y)
        >>> fitted.predict(torch.tensor([[-3.0], [2.0], [3.0]])).tolist()
        [2, 2, 7]
        >>> fitted.found
        {'C': '0.1 (the middle: a class has fewer than 5 samples)'}
    """

    protocol: str = "lbfgs"
    lr: float = 1.0
    epochs: int = 100
    batch_size: int = 256
    seed: int = 0
    name = "linear"
    least_classes = 2

    def __post_init__(self) -> None:
        """Check the options."""
        _check("LinearProbe", self.protocol, self.lr, self.epochs, self.batch_size)

    def settings(self) -> dict[str, Any]:
        """Return what decides the accuracy."""
        if self.protocol == "lbfgs":
            how: dict[str, Any] = {
                "optimizer": "L-BFGS (logistic regression)",
                "regularisation": f"C of {list(STRENGTHS)}, chosen on a held-out fifth",
            }
        else:
            first, second = self._steps
            how = {
                "optimizer": f"SGD (lr {self.lr:g}, momentum 0.9, no weight decay)",
                "epochs": self.epochs,
                "batch": self.batch_size,
                "schedule": f"rate / 10 after {first} and {second}",
            }
        return {"probe": "linear probe, offline", **how}

    @property
    def _steps(self) -> tuple[int, int]:
        return int(self.epochs * 0.6), int(self.epochs * 0.8)

    def fit(self, features: Tensor, labels: Tensor) -> Fitted:
        """Train the classifier.

        :param features: ``(N, D)``.
        :param labels: ``(N,)``.
        :raises ProbeError: if SGD diverges.
        """
        if self.protocol == "lbfgs":
            return _lbfgs(features, labels, self.seed)
        return self._sgd(features, labels)

    def _sgd(self, x: Tensor, y: Tensor) -> Fitted:
        classes, targets = torch.unique(y, return_inverse=True)
        generator = torch.Generator().manual_seed(self.seed)
        weight = torch.zeros(len(classes), x.shape[1], requires_grad=True)
        bias = torch.zeros(len(classes), requires_grad=True)
        optimizer = torch.optim.SGD([weight, bias], lr=self.lr, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(self._steps), 0.1)
        for _ in range(self.epochs):
            order = torch.randperm(len(x), generator=generator)
            for part in torch.split(order, self.batch_size):
                optimizer.zero_grad()
                with torch.enable_grad():
                    loss = F.cross_entropy(F.linear(x[part], weight, bias), targets[part])
                torch.autograd.backward(loss)
                optimizer.step()
            scheduler.step()
        if not torch.isfinite(weight).all():
            raise ProbeError(
                f'linear_probe(protocol="sgd", lr={self.lr}): diverged; use a smaller lr'
            )

        def predict(queries: Tensor) -> Tensor:
            with torch.no_grad():
                return classes[F.linear(queries, weight, bias).argmax(dim=1)]

        return Fitted(predict, {})


def linear_probe(
    model: nn.Module,
    train: Any,
    test: Any,
    *,
    protocol: str = "lbfgs",
    lr: float = 1.0,
    epochs: int = 100,
    seed: int = 0,
    batch_size: int = 256,
    **options: Any,
) -> ProbeResult:
    """Train a linear classifier on the frozen features of a training set, judge it on a test set.

    :param model: maps images to features ``(N, D)``; used frozen, in eval mode.
    :param train: labelled data set.
    :param test: labelled data set, of the stream's or of another one (transfer).
    :param protocol: see :class:`LinearProbe`.
    :param lr: see :class:`LinearProbe`.
    :param epochs: see :class:`LinearProbe`.
    :param seed: of the labels that are chosen, the held-out part and SGD.
    :param batch_size: images in a forward pass, samples in a minibatch of SGD.
    :param options: ``classes``, ``label_share``, ``cache``, ``device`` …
        of :func:`~avalanche_branchtune.evaluation.probe.run_probe`.
    :return: accuracy, predictions and protocol.
    :raises ProbeError: for fewer than two classes, and see ``run_probe``.
    :raises UnknownOptionError: for an unknown protocol.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.evaluation import linear_probe
        >>> images = torch.tensor([[2.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 3.0]])
        >>> train = torch.utils.data.TensorDataset(images, torch.tensor([0, 0, 1, 1]))
        >>> test = torch.utils.data.TensorDataset(images, torch.tensor([0, 1, 1, 1]))
        >>> result = linear_probe(torch.nn.Identity(), train, test, protocol="sgd", epochs=10)
        >>> result.accuracy, result.settings["schedule"]
        (0.75, 'rate / 10 after 6 and 8')
    """
    _check("linear_probe", protocol, lr, epochs, batch_size)
    probe = LinearProbe(protocol, lr, epochs, batch_size, seed)
    return run_probe(probe, model, train, test, seed=seed, batch_size=batch_size, **options)


def _check(where: str, protocol: str, lr: float, epochs: int, batch_size: int) -> None:
    one_of(f"{where}(protocol=…)", protocol, PROTOCOLS)
    positive(f"{where}(lr=…)", lr)
    at_least_one(f"{where}(epochs=…)", epochs)
    at_least_one(f"{where}(batch_size=…)", batch_size)


def _lbfgs(x: Tensor, y: Tensor, seed: int) -> Fitted:
    scaler = StandardScaler().fit(x.double().numpy())
    features, labels = scaler.transform(x.double().numpy()), y.numpy()
    strength = STRENGTHS[len(STRENGTHS) // 2]
    counts = np.unique(labels, return_counts=True)[1]
    chosen = "the middle: a class has fewer than 5 samples"
    if counts.min() >= 5:
        a, b, ya, yb = train_test_split(
            features, labels, test_size=0.2, random_state=seed, stratify=labels
        )
        scores = [_fit(a, ya, c).score(b, yb) for c in STRENGTHS]
        strength = STRENGTHS[int(np.argmax(scores))]
        chosen = "chosen"
    classifier = _fit(features, labels, strength)

    def predict(queries: Tensor) -> Tensor:
        found = classifier.predict(scaler.transform(queries.double().numpy()))
        return torch.from_numpy(np.asarray(found))

    return Fitted(predict, {"C": f"{strength:g} ({chosen})"})


def _fit(x: np.ndarray, y: np.ndarray, strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=1000).fit(x, y)
