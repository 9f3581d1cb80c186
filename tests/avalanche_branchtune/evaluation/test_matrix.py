from __future__ import annotations

import pytest

from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.evaluation import AccuracyMatrix


def matrix() -> AccuracyMatrix:
    m = AccuracyMatrix(3, random=[0.1, 0.2, 0.3])
    for row in ([0.8, 0.3, 0.2], [0.9, 0.7, 0.5], [0.6, 0.5, 0.4]):
        m.add(row)
    return m


def test_by_hand() -> None:
    m = matrix()
    assert m.final_accuracy == pytest.approx((0.6 + 0.5 + 0.4) / 3)
    assert m.average_accuracy(0) == pytest.approx(0.8)
    assert m.average_accuracy(1) == pytest.approx((0.9 + 0.7) / 2)
    assert m.average_accuracy() == pytest.approx(0.5)
    assert m.continual_accuracy == pytest.approx((0.8 + 0.8 + 0.5) / 3)
    assert m.forgetting == pytest.approx(((0.9 - 0.6) + (0.7 - 0.5)) / 2)
    assert m.backward_transfer == pytest.approx(((0.6 - 0.8) + (0.5 - 0.7)) / 2)
    assert m.forward_transfer == pytest.approx(((0.3 - 0.2) + (0.5 - 0.3)) / 2)
    assert m.values.shape == (3, 3)
    assert m.complete


def test_a_partial_run_says_so() -> None:
    m = AccuracyMatrix(3)
    with pytest.raises(ProbeError, match="needs 1 experiences"):
        m.average_accuracy()
    m.add([0.8, 0.3, 0.2])
    m.add([0.9, 0.7, 0.5])
    assert not m.complete
    assert m.average_accuracy() == pytest.approx(0.8)
    assert m.continual_accuracy == pytest.approx(0.8)
    for name in ("final_accuracy", "forgetting", "backward_transfer", "forward_transfer"):
        with pytest.raises(ProbeError, match="partial: 2 of 3"):
            getattr(m, name)


def test_bad_input() -> None:
    with pytest.raises(ProbeError, match="at least one"):
        AccuracyMatrix(0)
    with pytest.raises(ProbeError, match="expected 3 accuracies"):
        AccuracyMatrix(3).add([0.5])
    with pytest.raises(ProbeError, match=r"row 0: 50\.0 is no accuracy"):
        AccuracyMatrix(2).add([0.5, 50])
    with pytest.raises(ProbeError, match="random: nan"):
        AccuracyMatrix(1, random=[float("nan")])
    with pytest.raises(ProbeError, match="already"):
        matrix().add([0.1, 0.1, 0.1])
    single = AccuracyMatrix(1)
    single.add([0.5])
    with pytest.raises(ProbeError, match="needs 2"):
        _ = single.forgetting
    no_random = AccuracyMatrix(2)
    no_random.add([0.5, 0.5])
    no_random.add([0.5, 0.5])
    with pytest.raises(ProbeError, match="random"):
        _ = no_random.forward_transfer
