"""Linear centered kernel alignment (CKA): how alike two sets of features are.

Kornblith et al., arXiv 1905.00414, with the unbiased HSIC estimator of Song et
al. (JMLR 2012), averaged over minibatches as in Nguyen, Raghu, Kornblith,
arXiv 2010.15327, Equations 2 and 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from avalanche_branchtune.errors import ProbeError


def linear_gram(features: Tensor) -> Tensor:
    """Return the matrix of inner products between samples, in float64.

    :param features: ``(N, …)``; all axes but the first are flattened.
    :return: ``(N, N)``.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.analysis.cka import linear_gram
        >>> linear_gram(torch.tensor([[1.0, 2.0], [3.0, 0.0]])).tolist()
        [[5.0, 3.0], [3.0, 9.0]]
    """
    flat = features.detach().flatten(1).double()
    return flat @ flat.T


def hsic(k: Tensor, l: Tensor, *, unbiased: bool = True) -> Tensor:  # noqa: E741
    """Estimate the Hilbert-Schmidt independence criterion of two Gram matrices.

    Unbiased (Song et al., Equation 5), with K and L of zero diagonal:
    ``[tr(KL) + 1ᵀK1 · 1ᵀL1 / ((n−1)(n−2)) − 2 · 1ᵀKL1 / (n−2)] / (n(n−3))``.
    Biased: ``tr(KHLH) / (n−1)²`` with the centring matrix H.

    Authors' code: SmallPigPeppa/CKA 041bab7, cka.py, linear_hsic (Liu et al.).

    :param k: ``(n, n)``, symmetric.
    :param l: ``(n, n)``, symmetric.
    :param unbiased: which estimator; the unbiased one needs n ≥ 4.
    :return: scalar.
    :raises ProbeError: for matrices of different sizes or too few samples.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.analysis.cka import hsic, linear_gram
        >>> gram = linear_gram(torch.tensor([[-2.0], [-1.0], [0.0], [1.0], [2.0]]))
        >>> round(hsic(gram, gram, unbiased=False).item(), 4)  # (4 + 1 + 0 + 1 + 4)² / 4²
        6.25
        >>> round(hsic(gram, gram).item(), 4)  # (66 + 10² / 12 − 2 · 34 / 3) / 10
        5.1667
    """
    n = len(k)
    least = 4 if unbiased else 2
    if k.shape != l.shape or n < least:
        raise ProbeError(
            f"HSIC of Gram matrices {tuple(k.shape)} and {tuple(l.shape)}: expected two of one "
            f"size, of at least {least} samples"
        )
    if not unbiased:
        centred = k - k.mean(0) - k.mean(1, keepdim=True) + k.mean()
        return (centred * l).sum() / (n - 1) ** 2
    k, l = k - k.diag().diag(), l - l.diag().diag()  # noqa: E741
    rows_k, rows_l = k.sum(0), l.sum(0)
    total = (k * l).sum() + rows_k.sum() * rows_l.sum() / ((n - 1) * (n - 2))
    return (total - 2 * (rows_k @ rows_l) / (n - 2)) / (n * (n - 3))


def linear_cka(x: Tensor, y: Tensor, *, unbiased: bool = False) -> Tensor:
    """Return the linear CKA of two sets of features of the same samples.

    1 for features that agree up to rotation and scale.  For independent ones near 0 only if N is
    much larger than the number of features: about 0.4 for 64 normal ones of 100 samples.  With
    ``unbiased`` it is near 0 for any number of them, and may fall below.

    Authors' code: google-research/google-research 10bf941, representation_similarity/Demo.ipynb,
    cka (Kornblith et al.; ``unbiased`` is their ``debiased``).

    :param x: ``(N, …)``.
    :param y: ``(N, …)``, same N.
    :param unbiased: which HSIC estimator, see :func:`hsic`.
    :return: scalar in float64.
    :raises ProbeError: see :func:`hsic`; also for features that do not vary.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.analysis import linear_cka
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        >>> round(linear_cka(x, 3 * x.flip(1)).item(), 6)  # turned and scaled
        1.0
        >>> round(linear_cka(x, x[:, :1]).item(), 6)
        0.707107
    """
    return _ratio(*_three(linear_gram(x), linear_gram(y), unbiased))


class MinibatchCKA:
    """CKA from minibatches: the HSIC terms are averaged, then divided.

    Memory does not grow with the number of samples.  Equal in expectation to
    the unbiased CKA of all samples, whatever the size of the minibatches.

    Authors' code: google-research/google-research 30adf0e,
    do_wide_and_deep_networks_learn_the_same_things/efficient_CKA.py, MinibatchCKA (Nguyen et al.);
    SmallPigPeppa/CKA 041bab7, cka.py, CKA_Minibatch (Liu et al.).
    Differs: Google's leaves the factor 1 / (n(n−3)) out, ours and Liu's have it: the same where all
    minibatches are of one size.

    Example::

        >>> import torch
        >>> from avalanche_branchtune.analysis import MinibatchCKA
        >>> x, y = torch.arange(8.0).reshape(8, 1), torch.arange(8.0).reshape(8, 1).square()
        >>> cka = MinibatchCKA()
        >>> for start in (0, 4):
        ...     cka.update(x[start : start + 4], y[start : start + 4])
        >>> round(cka.compute(), 4)
        0.7537
    """

    def __init__(self) -> None:
        """See the class."""
        self.terms = torch.zeros(3, dtype=torch.float64)
        self.batches = 0

    def update(self, x: Tensor, y: Tensor) -> None:
        """Take the features of one minibatch.

        :param x: ``(N, …)``, N ≥ 4.
        :param y: ``(N, …)``, of the same samples.
        """
        self.update_grams(linear_gram(x), linear_gram(y))

    def update_grams(self, k: Tensor, l: Tensor) -> None:  # noqa: E741
        """Take the Gram matrices of one minibatch.

        :param k: ``(N, N)``.
        :param l: ``(N, N)``.
        """
        self.terms += torch.stack(_three(k, l, unbiased=True)).cpu()
        self.batches += 1

    def compute(self) -> float:
        """Return the CKA of all minibatches so far.

        :raises ProbeError: if there were none, or the features do not vary.
        """
        if not self.batches:
            raise ProbeError("MinibatchCKA: no minibatch of at least 4 samples was given")
        return float(_ratio(*(self.terms / self.batches)))


def _three(k: Tensor, l: Tensor, unbiased: bool) -> tuple[Tensor, Tensor, Tensor]:  # noqa: E741
    return (
        hsic(k, l, unbiased=unbiased),
        hsic(k, k, unbiased=unbiased),
        hsic(l, l, unbiased=unbiased),
    )


def _ratio(both: Tensor, first: Tensor, second: Tensor) -> Tensor:
    if not (first > 0 and second > 0):
        raise ProbeError(
            "CKA is not defined: the features of a network do not vary over these samples (or "
            f"are not finite); HSIC {float(first):.3g} and {float(second):.3g}"
        )
    return both / (first * second).sqrt()
