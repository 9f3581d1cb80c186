"""Forms of distillation: distances between predicted and frozen embeddings.

Fini et al. (CaSSLe), arXiv 2112.04215, Section 4: a method's own loss, with the
frozen network in the place of one of the views.  Each function takes a list of
``(N, P)`` tensors, one for each view: ``p`` predicted from the current
embeddings, ``z`` the teacher's, without gradient; and returns a scalar.

Authors' code: DonkeyShot21/cassle b5b0929, cassle/distillers/*.py and cassle/losses/*.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from avalanche_branchtune.errors import expected_one_of

Embeddings = Sequence[Tensor]


def contrastive(p: Embeddings, z: Embeddings, temperature: float = 0.2) -> Tensor:
    """Cross-entropy of each embedding with its own counterpart, mean of both halves.

    ``−log exp(s_ii / T) / Σ_j exp(s_ij / T)`` with cosine similarities s between
    all predicted (rows) and all teacher embeddings (columns) of all views, and
    the same with rows and columns exchanged.

    Authors' code: DonkeyShot21/cassle b5b0929, cassle/distillers/contrastive.py, training_step.

    :param p: predicted, one for each view.
    :param z: the teacher's.
    :param temperature: T.

    Example::

        >>> import torch
        >>> from solo_bridge.plugins.distillation.forms import contrastive
        >>> p, z = [torch.eye(2)], [torch.eye(2)]
        >>> round(contrastive(p, z, temperature=1.0).item(), 4)  # log(1 + exp(−1))
        0.3133
        >>> round(contrastive(p, [z[0].flip(0)], temperature=1.0).item(), 4)
        1.3133
    """
    likeness = _likeness(p, z) / temperature
    return (_own_counterpart(likeness) + _own_counterpart(likeness.T)) / 2


def contrastive_half(p: Embeddings, z: Embeddings, temperature: float = 0.2) -> Tensor:
    """One half of :func:`contrastive`: of each predicted embedding among the teacher's.

    Authors' code: DonkeyShot21/cassle b5b0929, cassle/losses/simclr.py, simclr_distill_loss_func.

    :param p: predicted, one for each view.
    :param z: the teacher's.
    :param temperature: T.

    Example::

        >>> import torch
        >>> from solo_bridge.plugins.distillation.forms import contrastive_half
        >>> p, z = [torch.tensor([[1.0, 0.0], [1.0, 0.0]])], [torch.eye(2)]
        >>> round(contrastive_half(p, z, temperature=1.0).item(), 4)  # mean of .3133 and 1.3133
        0.8133
        >>> round(contrastive_half(z, p, temperature=1.0).item(), 4)  # both alike: log 2
        0.6931
    """
    return _own_counterpart(_likeness(p, z) / temperature)


def negative_cosine(p: Embeddings, z: Embeddings) -> Tensor:
    """``2 − 2 cos(p, z)``, mean over samples and views (BYOL's form).

    Authors' code: DonkeyShot21/cassle b5b0929, cassle/losses/byol.py, byol_loss_func.

    :param p: predicted, one for each view.
    :param z: the teacher's.

    Example::

        >>> import torch
        >>> from solo_bridge.plugins.distillation.forms import negative_cosine
        >>> p, z = [torch.eye(2), torch.eye(2)], [3 * torch.eye(2), torch.eye(2).flip(0)]
        >>> round(negative_cosine(p, z).item(), 4)  # mean of 0 (scaled) and 2 (orthogonal)
        1.0
    """
    return torch.stack(
        [2 - 2 * F.cosine_similarity(a, b, dim=1).mean() for a, b in zip(p, z, strict=True)]
    ).mean()


def mse(p: Embeddings, z: Embeddings) -> Tensor:
    """Mean squared difference over all entries, samples and views (VICReg's form).

    Authors' code: DonkeyShot21/cassle b5b0929, cassle/losses/vicreg.py, invariance_loss.

    :param p: predicted, one for each view.
    :param z: the teacher's.

    Example::

        >>> import torch
        >>> from solo_bridge.plugins.distillation.forms import mse
        >>> mse([torch.zeros(2, 2)], [torch.tensor([[1.0, 2.0], [3.0, 4.0]])]).item()  # 30 / 4
        7.5
    """
    return torch.stack([F.mse_loss(a, b) for a, b in zip(p, z, strict=True)]).mean()


def cross_correlation(
    p: Embeddings, z: Embeddings, off_diagonal: float = 0.005, scale: float = 0.1
) -> Tensor:
    """``scale · (Σ_i (1 − c_ii)² + λ Σ_{i≠j} c_ij²)``, mean over views (Barlow Twins' form).

    c is the cross-correlation of the two embeddings, each entry standardised
    over the minibatch (biased variance, + 1e-5, as BatchNorm does).

    Authors' code: DonkeyShot21/cassle b5b0929, cassle/losses/barlow.py, barlow_loss_func; λ and
    scale: cassle/distillers/decorrelative.py.

    :param p: predicted, one for each view.
    :param z: the teacher's.
    :param off_diagonal: λ.
    :param scale: of the whole.

    Example::

        >>> import torch
        >>> from solo_bridge.plugins.distillation.forms import cross_correlation
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> [round(cross_correlation([p], [z]).item(), 3) for p in (z, -z)]
        [0.0, 0.8]
        >>> round(cross_correlation([z], [z.flip(1)]).item(), 3)  # 0.1 · (1 + 1 + 0.005 · (1 + 1))
        0.201
    """
    losses = []
    for a, b in zip(p, z, strict=True):
        c = _standardised(a).T @ _standardised(b) / len(a)
        diagonal = c.diagonal()
        losses.append(
            (1 - diagonal).square().sum()
            + off_diagonal * (c.square().sum() - diagonal.square().sum())
        )
    return scale * torch.stack(losses).mean()


def cross_entropy(p: Embeddings, z: Embeddings, temperature: float = 0.1) -> Tensor:
    """Cross-entropy between softmax scores over prototypes, mean over samples and views.

    ``−Σ_k softmax(z / T)_k · log softmax(p / T)_k``.

    Authors' code: DonkeyShot21/cassle b5b0929, cassle/distillers/knowledge.py, cross_entropy.

    :param p: scores of the predicted embeddings on prototypes.
    :param z: scores of the teacher's embeddings on the teacher's prototypes.
    :param temperature: T.

    Example::

        >>> import torch
        >>> from solo_bridge.plugins.distillation.forms import cross_entropy
        >>> z = [torch.tensor([[8.0, 0.0], [0.0, 8.0]])]
        >>> round(cross_entropy([torch.zeros(2, 2)], z).item(), 4)  # log 2
        0.6931
        >>> round(cross_entropy(z, z).item(), 4), round(cross_entropy([-z[0]], z).item(), 4)
        (0.0, 80.0)
    """
    return torch.stack(
        [
            F.cross_entropy(a / temperature, (b / temperature).softmax(dim=1))
            for a, b in zip(p, z, strict=True)
        ]
    ).mean()


def _likeness(p: Embeddings, z: Embeddings) -> Tensor:
    """Return the cosine similarities of all p (rows) and all z (columns)."""
    return F.normalize(torch.cat(list(p)), dim=1) @ F.normalize(torch.cat(list(z)), dim=1).T


def _own_counterpart(scores: Tensor) -> Tensor:
    """Return the mean cross-entropy of each row with the column of its number."""
    return F.cross_entropy(scores, torch.arange(len(scores), device=scores.device))


def _standardised(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()


@dataclass(frozen=True)
class Form:
    """A form of distillation.

    :param distance: one of the functions above.
    :param weight: λ in CaSSLe's and Kaizen's runs.  Authors' code: DonkeyShot21/cassle b5b0929,
        cassle/distillers/*.py, ``--distill_lamb``, which no script overrides.
    :param on_prototypes: whether embeddings are compared by their scores on
        prototypes.

    Example::

        >>> import torch
        >>> from solo_bridge.plugins.distillation.forms import Form, mse
        >>> form = Form(mse, weight=25.0)
        >>> form.weight * form.distance([torch.zeros(2, 2)], [torch.full((2, 2), 2.0)]).item()
        100.0
        >>> form.on_prototypes
        False
    """

    distance: Callable[[Embeddings, Embeddings], Tensor]
    weight: float = 1.0
    on_prototypes: bool = False


FORMS = {
    "contrastive": Form(contrastive),
    "cosine": Form(negative_cosine),
    "mse": Form(mse, weight=25.0),
    "cross-correlation": Form(cross_correlation),
    "prototypes": Form(cross_entropy, on_prototypes=True),
}

FORM_OF = {
    **dict.fromkeys(
        ("simclr", "mocov2plus", "mocov3", "nnclr", "all4one", "ressl", "supcon"), "contrastive"
    ),
    **dict.fromkeys(("byol", "simsiam", "nnbyol", "nnsiam"), "cosine"),
    **dict.fromkeys(("vicreg", "vibcreg", "wmse"), "mse"),
    "barlow_twins": "cross-correlation",
    **dict.fromkeys(("swav", "dino", "deepclusterv2"), "prototypes"),
}
"""The form of each of solo-learn's methods.

Authors' code: DonkeyShot21/cassle b5b0929, bash_files/continual, the scripts ``…_distill.sh``, for
SimCLR, SupCon, MoCo v2+, BYOL, VICReg, Barlow Twins and SwAV.  The others have no published form:
here they have that of the loss they are built on.  MAE has no projector, hence none.
"""

NORMALISED = frozenset({"mocov2plus"})
"""Methods whose embeddings are predicted from after they are scaled to length 1.

Authors' code: DonkeyShot21/cassle b5b0929, cassle/methods/mocov2plus.py, training_step ("z").
"""


def form_of(method: str) -> Form:
    """Return the form of a method.

    :param method: solo-learn's name.
    :raises UnknownOptionError: if it has none.

    Example::

        >>> from solo_bridge.plugins.distillation.forms import form_of
        >>> form_of("vicreg").distance.__name__, form_of("vicreg").weight
        ('mse', 25.0)
        >>> form_of("swav").on_prototypes
        True
    """
    if method not in FORM_OF:
        raise expected_one_of(f"distillation form of {method!r}", method, sorted(FORM_OF))
    return FORMS[FORM_OF[method]]
