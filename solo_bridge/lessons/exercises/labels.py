"""Lesson 4: what a classifier learns from few labels, and from its teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from solo_bridge.lessons.exercises.answers import number, wrong_value


def classification(answer: Callable[[Tensor, Tensor], Any]) -> str | None:
    """Check cross-entropy on the samples that have a label.

    :param answer: from scores ``(N, C)`` and labels ``(N,)``, −1 where unknown, to a scalar.
    """
    scores = torch.tensor([[2.0, 0.0, 1.0], [0.5, 0.5, 3.0], [1.0, -1.0, 0.0], [0.0, 2.0, 0.0]])
    scores.requires_grad_()
    labels = torch.tensor([0, -1, 2, -1])
    loss = answer(scores, labels)
    found = number(loss)
    if isinstance(found, str):
        return found
    each = F.cross_entropy(scores, labels, ignore_index=-1, reduction="none").detach()
    right = float(each.sum()) / 2
    hints = {
        float(each.sum()) / 4: "A mean over whom? Samples without a label say nothing.",
        float(each.sum()): "A sum? Then a minibatch with more labels would weigh more.",
        float(F.cross_entropy(scores.detach(), labels % 3)): "Label −1 is no class: leave it out.",
    }
    wrong = wrong_value(found, right, hints, "of four samples, two of them labelled")
    if wrong:
        return wrong
    if not (isinstance(loss, Tensor) and loss.requires_grad):
        return "The number is right, but nothing can learn from it: return the tensor."
    loss = answer(scores, torch.full((4,), -1))
    found = number(loss)
    if found != 0:
        said = found if isinstance(found, str) else f"It gives {found:.4g}."
        return f"Without any label: {said} Such a minibatch should add 0 to the loss."
    if not (isinstance(loss, Tensor) and loss.requires_grad):
        return "Without any label `.backward()` would stop: make the 0 from the scores."
    return None


def class_distillation(answer: Callable[[Tensor, Tensor], Any]) -> str | None:
    """Check cross-entropy with a teacher's probabilities.

    :param answer: from scores ``(N, C)`` of classifier and teacher to a scalar.
    """
    student = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, -1.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, 1.0, 0.0], [3.0, 0.0, 0.0]], requires_grad=True)
    loss = answer(student, teacher)
    found = number(loss)
    if isinstance(found, str):
        return found
    s, t = student.detach(), teacher.detach()
    hints = {
        float(F.cross_entropy(t, s.softmax(1))): "Who teaches whom? The two are exchanged.",
        float(F.cross_entropy(s, t)): "The teacher's scores are no probabilities yet.",
        float(F.cross_entropy(s, t.argmax(1))): "Only the best class? The others are the lesson.",
        float(F.cross_entropy(s, t.softmax(0))): "Probabilities of what? A sample's sum to 1.",
        2 * float(F.cross_entropy(s, t.softmax(1))): "A sum over the samples? Take the mean.",
        float(F.kl_div(s.log_softmax(1), t.softmax(1), reduction="batchmean")): "This is the KL "
        "divergence: as a lesson just as good, but Kaizen's is the cross-entropy.",
    }
    wrong = wrong_value(found, float(F.cross_entropy(s, t.softmax(1))), hints, "of two samples")
    if wrong:
        return wrong
    if not (isinstance(loss, Tensor) and loss.requires_grad):
        return "The number is right, but nothing can learn from it: return the tensor."
    return None
