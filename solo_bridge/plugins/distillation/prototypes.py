"""Prototypes that learn: what scores predicted embeddings in CaSSLe's form for SwAV."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NormedPrototypes(nn.Module):
    """Scores embeddings by K directions v of lengths g: a linear layer under weight norm.

    ``s_k = g_k · ⟨x, v_k⟩ / ‖v_k‖``, begun as ``nn.Linear`` without bias under weight norm (v the
    drawn rows, g their lengths).  Unlike torch's own it can be pickled and deep-copied.

    Authors' code: DonkeyShot21/cassle b5b0929, cassle/distillers/knowledge.py,
    KnowledgeDistillWrapper (distill_prototypes).

    :param width: P, of the embeddings.
    :param prototypes: K.
    """

    def __init__(self, width: int, prototypes: int) -> None:
        """See the class."""
        super().__init__()
        rows = nn.Linear(width, prototypes, bias=False).weight.detach()
        self.lengths = nn.Parameter(rows.norm(dim=1, keepdim=True))
        self.directions = nn.Parameter(rows.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return scores ``(N, K)``.

        :param x: embeddings ``(N, P)``.
        """
        return F.linear(x, torch._weight_norm(self.directions, self.lengths, 0))
