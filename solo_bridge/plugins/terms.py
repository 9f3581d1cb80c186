"""What plugins add to the loss, to be read when someone looks at it."""

from __future__ import annotations

from torch import Tensor


class WithTerms:
    """A plugin whose terms of the loss are kept as tensors where they are.

    A number that is taken over from a GPU waits for all that was asked of it: only reading
    :attr:`terms` does.
    """

    @property
    def terms(self) -> dict[str, float]:
        """The terms of the last minibatch, before they are weighted, by name."""
        return {name: float(term) for name, term in vars(self).get("_terms", {}).items()}

    def note(self, name: str, term: Tensor) -> None:
        """Keep a term's value.

        :param name: of the term.
        :param term: scalar.
        """
        vars(self).setdefault("_terms", {})[name] = term.detach()
