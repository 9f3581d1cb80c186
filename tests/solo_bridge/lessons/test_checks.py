"""What the checks say to right and wrong answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from avalanche_branchtune.errors import UnknownOptionError
from solo_bridge.lessons import check
from solo_bridge.lessons.checks import EXERCISES

Rows = list[list[float]]


def drops(rows: Rows, best: Callable[[Rows, int], float], last: int = 1) -> list[float]:
    return [best(rows, i) - rows[-1][i] for i in range(len(rows) - last)]


def ever(rows: Rows, i: int) -> float:
    return max(row[i] for row in rows)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def centred(x: Tensor) -> Tensor:
    return x - x.mean(dim=0)


def cka(x: Tensor, y: Tensor) -> Tensor:
    return (x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())


def in_place(x: Tensor, y: Tensor) -> Tensor:
    x -= x.mean(dim=0)
    return cka(x, centred(y))


def at_the_corner(branch: Tensor, k: int) -> Tensor:
    return F.pad(branch, (0, k - branch.shape[3], 0, k - branch.shape[2]))


def repeated(branch: Tensor, k: int) -> Tensor:
    return branch.expand(-1, -1, k, k) if 1 in branch.shape[2:] else branch


def of_labelled(scores: Tensor, labels: Tensor, nothing: Any) -> Any:
    known = labels >= 0
    return F.cross_entropy(scores[known], labels[known]) if known.any() else nothing


def way(now: list[Tensor], earlier: list[Tensor]) -> list[Tensor]:
    return [(p - q).square() for p, q in zip(now, earlier, strict=True)]


WRONG: list[tuple[str, Any, str]] = [
    ("forgetting", lambda rows: ..., "no answer"),
    ("forgetting", lambda rows: "0.2", "it"),
    ("forgetting", lambda rows: -mean(drops(rows, ever)), "sign"),
    ("forgetting", lambda rows: sum(drops(rows, ever)), "sum"),
    ("forgetting", lambda rows: 100 * mean(drops(rows, ever)), "Percent"),
    ("forgetting", lambda rows: mean(drops(rows, ever, last=0)), "last experience"),
    ("forgetting", lambda rows: mean(drops(rows, lambda r, i: r[i][i])), "ever better"),
    ("forgetting", lambda rows: max(drops(rows, ever)), "worst"),
    ("forgetting", lambda rows: mean(drops(rows, lambda r, i: ever(r[:-1], i))), "be negative"),
    ("forgetting", lambda rows: mean(drops(rows, lambda r, i: ever(r[i:-1], i))), "be negative"),
    ("forgetting", lambda rows: mean(drops(rows, lambda r, i: ever(r[i:], i))), "to come"),
    ("forgetting", lambda rows: rows[5][5], "IndexError"),
    ("alignment", lambda x, y: None, "no answer"),
    ("alignment", lambda x, y: x.T @ y, "shape (5, 4)"),
    ("alignment", cka, "moved by 5"),
    ("alignment", lambda x, y: cka(centred(x.T).T, centred(y.T).T), "Each feature has its own"),
    ("alignment", lambda x, y: cka(centred(x), centred(y)).sqrt(), "root"),
    ("alignment", in_place, "changes the features"),
    ("stability of a frozen network", 0.9, "What changed"),
    ("stability of a frozen network", None, "put a number in place of None"),
    ("branch as a kernel", lambda branch, k: branch, "shape"),
    ("branch as a kernel", at_the_corner, "in the middle"),
    ("branch as a kernel", repeated, "should be zero"),
    ("branch as a kernel", lambda branch, k: 1.0, "a tensor is asked for"),
    ("merge", lambda kernel, branches: kernel.clone(), "where are the branches"),
    ("merge", lambda kernel, branches: kernel + sum(branches), "corner"),
    ("merge", lambda kernel, branches: kernel + F.pad(branches[0], (0, 0, 1, 1)), "how many"),
    ("merge", lambda kernel, branches: kernel.add_(1), "changes the kernel"),
    (
        "merge",
        lambda kernel, branches: F.pad(branches[0], (0, 0, 1, 1)) + F.pad(branches[1], (1, 1)),
        "the kernel itself",
    ),
    ("how many numbers learn", lambda i, o, k: i * o * k * k, "the kernel's own"),
    ("how many numbers learn", lambda i, o, k: 2 * k, "How many pairs"),
    ("how many numbers learn", lambda i, o, k: 2 * k * i * o, "same 1×1 kernel"),
    ("how many numbers learn", lambda i, o, k: i + o, "shape of each branch"),
    ("classification", lambda s, y: F.cross_entropy(s, y), "IndexError"),
    ("classification", lambda s, y: F.cross_entropy(s, y % 3), "no class"),
    (
        "classification",
        lambda s, y: F.cross_entropy(s, y, ignore_index=-1),
        "Without any label: It gives nan. Such a minibatch should add 0",
    ),
    ("classification", lambda s, y: of_labelled(s, y, 1.0), "Without any label: It gives 1. Such"),
    ("classification", lambda s, y: of_labelled(s, y, 0), "make the 0 from the scores"),
    ("classification", lambda s, y: of_labelled(s, y, torch.tensor(0.0)), "from the scores"),
    (
        "classification",
        lambda s, y: F.cross_entropy(s, y, ignore_index=-1, reduction="sum"),
        "A sum",
    ),
    (
        "classification",
        lambda s, y: F.cross_entropy(s, y, ignore_index=-1, reduction="none").mean(),
        "over whom",
    ),
    ("classification", lambda s, y: F.cross_entropy(s, y, ignore_index=-1).item(), "learn from"),
    ("class distillation", lambda s, t: F.cross_entropy(t, s.softmax(1)), "Who teaches"),
    ("class distillation", lambda s, t: F.cross_entropy(s, t), "no probabilities"),
    ("class distillation", lambda s, t: F.cross_entropy(s, t.argmax(1)), "Only the best"),
    ("class distillation", lambda s, t: F.cross_entropy(s, t.softmax(0)), "sum to 1"),
    ("anchor by importance", lambda p, q, w: sum(x.sum() for x in way(p, q)) / 2, "alike"),
    (
        "anchor by importance",
        lambda p, q, w: sum((x * i).sum() for x, i in zip(way(p, q), w, strict=True)),
        "half",
    ),
    ("anchor by importance", lambda p, q, w: 16.5, "pulled back"),
]


@pytest.mark.parametrize(("exercise", "answer", "hint"), WRONG)
def test_a_wrong_answer_hears_what_to_look_at(
    exercise: str, answer: Any, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check(exercise, answer)
    said = capsys.readouterr().out
    assert said.startswith(f"{exercise}: not yet. ") and hint in said


def test_every_exercise_has_wrong_answers() -> None:
    assert {exercise for exercise, _, _ in WRONG} == EXERCISES.keys()


def test_an_unknown_exercise_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownOptionError, match="did you mean forgetting"):
        check("forgeting", 1.0)
