"""That warnings are errors in this suite, whoever raises them and how."""

from __future__ import annotations

import warnings

import pytest
import torch
from avalanche._annotations import deprecated


def test_a_warning_is_an_error() -> None:
    for kind in (UserWarning, DeprecationWarning, FutureWarning, ResourceWarning):
        with pytest.raises(kind, match="mine"):
            warnings.warn("mine", kind, stacklevel=1)


def test_a_deprecation_in_avalanche_is_one_and_sets_no_filter_of_its_own() -> None:
    @deprecated(0.7, "use the other")
    def old() -> None: ...

    for _ in range(2):
        with pytest.raises(DeprecationWarning, match=r"function old .*use the other"):
            old()


def test_torch_warns_each_time_not_once_in_a_process() -> None:
    layer = torch.nn.Conv2d(1, 1, 2, padding="same")
    for _ in range(2):
        with pytest.warns(UserWarning, match="padding='same' with even kernel"):
            layer(torch.zeros(1, 1, 4, 4))
