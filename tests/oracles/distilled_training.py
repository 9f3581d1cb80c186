"""The whole loss of a distilling plugin, recomputed in every minibatch on copies made here."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from tests.oracles import distillation as oracle


@dataclass
class Both:
    """What the copies give for the whole views of a minibatch."""

    model: Any
    old: Any
    predictor: Any
    prototypes: Any
    classifier: Any
    old_classifier: Any
    features: list[Tensor]
    embeddings: list[Tensor]
    old_features: list[Tensor]
    old_embeddings: list[Tensor]
    labels: list[int]


Term = Callable[[Both], Any]


class Recomputed(SupervisedPlugin):
    """Compares ``strategy.loss`` with the method's own loss and a term; listed last.

    :param plugin: the distilling plugin.
    :param term: what it should add from the second experience on.
    :param first: what it should add in the first.
    :param teacher_train: whether the teacher's BN takes the minibatch's statistics.
    """

    def __init__(
        self,
        plugin: Any,
        term: Term,
        first: Term | None = None,
        teacher_train: bool = True,
        tolerance: float = 2e-5,
    ) -> None:
        super().__init__()
        self.plugin = plugin
        self.term = term
        self.first = first
        self.teacher_train = teacher_train
        self.tolerance = tolerance
        self.old: Any = None
        self.old_classifier: Any = None
        self.totals: list[list[tuple[float, float]]] = []
        """By experience: (total, the method's own) of each minibatch."""
        self.gradients_compared = 0

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.totals.append([])
        self.expected: dict[str, Tensor] | None = None

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        self.model = copy.deepcopy(strategy.model)
        self.random = torch.get_rng_state()  # listed last: next is the method's own loss
        self.predictor = copy.deepcopy(getattr(self.plugin, "predictor", None))
        self.prototypes = copy.deepcopy(getattr(self.plugin, "prototypes", None))
        self.classifier = copy.deepcopy(getattr(self.plugin, "classifier", None))

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        # Gradients in one minibatch, in which network and teacher differ already.
        learning = self.old is not None and len(self.totals[-1]) == 1
        with torch.set_grad_enabled(learning):
            projected: list[Tensor] = []
            if self.model.projector is not None:
                hook = self.model.projector.register_forward_hook(
                    lambda module, args, output: projected.append(output)
                )
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(self.random)
                own = self.model.loss(strategy.mb_x, **strategy.minibatch.needed)
            if self.model.projector is not None:
                hook.remove()
            total = own + self._added(strategy, len(projected))
        value = float(total.detach())
        assert abs(strategy.loss.item() - value) < self.tolerance * max(1, abs(value))
        self.totals[-1].append((value, float(own.detach())))
        if learning:
            total.backward()
            self.expected = gradients(self.model, self.predictor, self.prototypes, self.classifier)

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        if self.expected is None:
            return
        got = gradients(
            strategy.model,
            *(getattr(self.plugin, n, None) for n in ("predictor", "prototypes", "classifier")),
        )
        held = {n for n in self.expected if n not in got}  # a method may hold its prototypes still
        assert all("prototypes" in n or "last_layer" in n for n in held), held
        assert set(got) <= set(self.expected)
        largest = max(g.norm() for g in self.expected.values())
        for name, gradient in got.items():  # biases before BN: zero but for rounding
            error = (gradient - self.expected[name]).norm()
            assert error <= 1e-3 * self.expected[name].norm() + 2e-5 * largest, name
        self.expected = None
        self.gradients_compared += 1

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.old = copy.deepcopy(strategy.model)
        self.old_classifier = copy.deepcopy(getattr(self.plugin, "classifier", None))

    def _added(self, strategy: Any, projected: int) -> Any:
        term = self.first if self.old is None else self.term
        if term is None:
            return 0.0
        views = strategy.mb_x[: getattr(strategy.model, "large_views", None)]
        student = self.model.train()
        features = [student.backbone(v) for v in views]
        embeddings = [student.projector(f) for f in features[:projected]]
        old_features: list[Tensor] = []
        old_embeddings: list[Tensor] = []
        if self.old is not None:
            old = copy.deepcopy(self.old).train(self.teacher_train)
            with torch.no_grad():
                old_features = [old.backbone(v) for v in views]
                old_embeddings = [old.projector(f) for f in old_features[:projected]]
        return term(
            Both(
                student,
                self.old,
                self.predictor,
                self.prototypes,
                self.classifier,
                self.old_classifier,
                features,
                embeddings,
                old_features,
                old_embeddings,
                strategy.mb_y.tolist(),
            )
        )


def gradients(*modules: nn.Module | None) -> dict[str, Tensor]:
    return {
        f"{i}.{n}": p.grad.clone()
        for i, module in enumerate(modules)
        if module is not None
        for n, p in module.named_parameters()
        if p.grad is not None
    }


def cassle(
    name: str,
    weight: float | None = None,
    *,
    halves: str = "both",
    prototypes: str = "learnt",
    normalise: bool | None = None,
) -> Term:
    """CaSSLe's term for one of the methods of the oracle's table."""

    def term(both: Both) -> Any:
        new = both.embeddings
        if name == "mocov2plus" if normalise is None else normalise:
            new = [oracle.normalised(e) for e in new]
        p, z = [both.predictor(e) for e in new], both.old_embeddings
        factor = oracle.WEIGHT.get(name, 1.0) if weight is None else weight
        measure = oracle.contrastive_half if halves == "one" else oracle.FORM[name]
        if measure is not oracle.cross_entropy:
            return factor * measure(oracle.numbers(p), oracle.numbers(z))
        distances = []
        old_heads = copy.deepcopy(both.old.prototype_heads)
        for i, old in enumerate(old_heads):
            said = [
                old.requires_grad_(False)(F.normalize(a))
                if prototypes == "teacher"
                else oracle.scores(both.prototypes[i], oracle.normalised(a))
                for a in p
            ]
            meant = [old.requires_grad_(False)(F.normalize(a)) for a in z]
            distances.append(measure(oracle.numbers(said), oracle.numbers(meant)))
        return factor * oracle.mean(distances)

    return term


def classes(both: Both) -> Any:
    """The classifier's loss in Kaizen's first experience."""
    logits = [both.classifier(f.detach()) for f in both.features]
    return oracle.classification(oracle.numbers(logits), both.labels)


def kaizen(name: str, weight: float = 2.0) -> Term:
    """Kaizen's terms from the second experience on."""

    def term(both: Both) -> Any:
        logits = [both.classifier(f.detach()) for f in both.features]
        with torch.no_grad():
            targets = [both.old_classifier(f) for f in both.old_features]
        kept = oracle.soft_cross_entropy(oracle.numbers(logits), oracle.numbers(targets))
        return cassle(name)(both) + classes(both) + weight * kept

    return term


def pfr(both: Both) -> Any:
    p = [both.predictor(f) for f in both.features]
    return oracle.one_minus_cosine(oracle.numbers(p), oracle.numbers(both.old_features))


def lwf(both: Both) -> Any:
    new, old = both.embeddings or both.features, both.old_embeddings or both.old_features
    return 3 * oracle.soft_divergence(oracle.numbers(new), oracle.numbers(old))


def features(both: Both) -> Any:
    return 4 * oracle.mse(oracle.numbers(both.features), oracle.numbers(both.old_features))
