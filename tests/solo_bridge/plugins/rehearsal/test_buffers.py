"""Which samples are remembered, and how they are replayed."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.storage_policy import ReservoirSamplingBuffer
from torch import Tensor

from avalanche_branchtune import BranchTuningPlugin, is_expanded
from avalanche_branchtune.errors import (
    BatchSizeError,
    IncompatiblePluginError,
    LabelError,
    UnknownOptionError,
    ViewsError,
)
from avalanche_branchtune.streams import (
    ArrayImages,
    class_incremental,
    data_incremental,
    domain_incremental,
    hide_labels,
    without_labels,
)
from solo_bridge import EvalTransform
from solo_bridge.plugins.distillation.cassle import CaSSLePlugin
from solo_bridge.plugins.distillation.kaizen import KaizenPlugin
from solo_bridge.plugins.rehearsal.buffers import (
    BalancedClassesBuffer,
    FirstPerClassBuffer,
    MinimumRedundancyBuffer,
    least_redundant,
)
from solo_bridge.plugins.rehearsal.replay import POLICIES, WholeBatchReplay, replay
from tests.oracles.replay import minimum_redundancy
from tests.selfsupervised import data, method, small_backbone, strategy, stream, weights

SIX = ("simclr", "byol", "barlow_twins", "mocov2plus", "vicreg", "swav")


def _coded(labels: list[int]) -> ArrayImages:
    """Images of which the first channel says the label and the second the number."""
    images = np.zeros((len(labels), 8, 8, 3), dtype=np.uint8)
    images[..., 0] = np.array(labels)[:, None, None]
    images[..., 1] = np.arange(len(labels))[:, None, None]
    return ArrayImages(images, labels, [0] * len(labels))


def _numbers(buffer: Any) -> list[int]:
    """The numbers of the coded images that a buffer holds."""
    bare = [buffer.eval()[i][0] for i in range(len(buffer))]
    return [int(np.asarray(image)[0, 0, 1]) for image in bare]


def _code_views(image: Any) -> list[Tensor]:
    view = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()
    return [view, view.clone()]


def _experiences(labels: list[list[int]]) -> list[Any]:
    return [data_incremental(_coded(part), _coded(part), 1).train_stream[0] for part in labels]


# ---- the first of each class


def test_first_samples_of_each_class() -> None:
    labels = [3] * 25 + [1] * 15 + [2] * 4 + [3] * 6
    policy = FirstPerClassBuffer(share=0.1)
    for experience in class_incremental(
        _coded(labels), _coded(labels), 3, class_order=[3, 1, 2]
    ).train_stream:
        policy.post_adapt(None, experience)
    # 31 · 0.1 → 3; 15 · 0.1 → 1; 4 · 0.1 → at least one
    assert _numbers(policy.buffer) == [0, 1, 2, 25, 40]
    assert list(policy.buffer.targets) == [3, 3, 3, 1, 2]


def test_shares_are_exact_and_every_domain_adds_its_own() -> None:
    policy = FirstPerClassBuffer(share=0.29)
    (experience,) = _experiences([[0] * 100])
    policy.post_adapt(None, experience)
    assert len(policy.buffer) == 29
    policy = FirstPerClassBuffer(share=0.25)
    sizes = []
    for experience in _experiences([[0] * 8, [0] * 6 + [1], [0] * 2 + [1] * 7]):
        policy.post_adapt(None, experience)
        sizes.append(Counter(int(t) for t in policy.buffer.targets))
    assert sizes == [{0: 2}, {0: 3, 1: 1}, {0: 4, 1: 2}]
    assert _numbers(policy.buffer) == [0, 1, 0, 6, 0, 2]


def test_most_samples_in_all() -> None:
    policy = FirstPerClassBuffer(share=0.5, max_size=7)
    for experience in _experiences([[0] * 10, [1] * 8, [2] * 4]):
        policy.post_adapt(None, experience)
    assert list(policy.buffer.targets) == [0, 0, 0, 1, 1, 2, 2]
    assert _numbers(policy.buffer) == [0, 1, 2, 0, 1, 0, 1]
    policy.resize(None, 2)
    assert list(policy.buffer.targets) == [0, 1]
    policy.post_adapt(None, _experiences([[0] * 3])[0])
    assert len(policy.buffer) == 2


def test_samples_without_a_label_are_one_class() -> None:
    half = hide_labels(_coded([0] * 40 + [1] * 40), 0.5)
    policy = FirstPerClassBuffer(share=0.1)
    policy.post_adapt(None, data_incremental(half, half, 1).train_stream[0])
    assert Counter(int(t) for t in policy.buffer.targets)[-1] == 4
    none = without_labels(_coded([0] * 40 + [1] * 40))
    policy = FirstPerClassBuffer(share=0.1)
    policy.post_adapt(None, data_incremental(none, none, 1).train_stream[0])
    assert _numbers(policy.buffer) == list(range(8))
    with pytest.raises(LabelError, match="no targets"):
        policy.post_adapt(None, SimpleNamespace(dataset=[1, 2]))


@pytest.mark.parametrize("labels", ["all", "none", "half"])
def test_class_balanced_buffer_takes_unlabelled_samples_for_one_class(labels: str) -> None:
    shown: Any = data(200)
    if labels != "all":
        shown = without_labels(shown) if labels == "none" else hide_labels(shown, 0.5)
    plugin = replay("class_balanced", 20, 10)
    assert isinstance(plugin.storage_policy, BalancedClassesBuffer)
    run = strategy(plugins=[plugin], train_epochs=1)
    for experience in data_incremental(shown, data(), 3).train_stream:
        run.train(experience)
    counts = Counter(int(t) for t in plugin.storage_policy.buffer.targets)
    expected = {
        "all": dict.fromkeys(range(10), 2),
        "none": {-1: 20},
        "half": {**dict.fromkeys(range(10), 2), -1: 2},
    }[labels]
    assert len(plugin.storage_policy.buffer) == 20
    assert all(abs(counts[c] - n) <= 1 for c, n in expected.items())
    assert set(counts) == set(expected)


# ---- minimum redundancy


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("count", "size"), [(40, 7), (30, 1), (30, 2), (30, 29), (12, 12), (5, 9)])
def test_least_redundant_is_brute_force(seed: int, count: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    features *= torch.rand(count, 1, generator=generator, dtype=torch.float64) * 9 + 0.1
    assert least_redundant(features, size) == minimum_redundancy(features.tolist(), size)


def test_duplicates_leave_and_outliers_stay() -> None:
    """Copies of three directions, and one of its own: one of each remains, the first."""
    basis = torch.eye(4)
    order = [0, 0, 1, 0, 1, 2, 2, 3, 0, 1, 2]
    assert least_redundant(basis[order], 4) == [0, 2, 5, 7]
    assert len(least_redundant(torch.zeros(6, 2), 3)) == 3


def test_buffer_keeps_what_brute_force_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: features from forward passes of one image each, with the network of that time."""
    monkeypatch.setattr(torch, "randperm", lambda n, **k: torch.arange(n - 1, -1, -1))
    model = method()
    agent = SimpleNamespace(model=model.train(), device="cpu", eval_mb_size=7)
    policy = MinimumRedundancyBuffer(12)
    held: list[Tensor] = []
    for turn, experience in enumerate(stream().train_stream):
        torch.manual_seed(turn)
        for p in model.parameters():  # the network changed in between
            p.data += 0.3 * torch.randn_like(p)
        model(torch.randn(9, 3, 8, 8))  # and its statistics
        modes = {m: m.training for m in model.modules()}
        buffers = copy.deepcopy(dict(model.named_buffers()))
        policy.post_adapt(agent, experience)
        assert modes == {m: m.training for m in model.modules()}
        assert all(torch.equal(b, buffers[n]) for n, b in model.named_buffers())
        frozen = copy.deepcopy(model).eval()
        samples = experience.dataset.eval()
        held += [samples[i][0] for i in reversed(range(len(samples)))]
        with torch.no_grad():
            features = [frozen(x[None])[0].double().tolist() for x in held]
        held = [held[i] for i in minimum_redundancy(features, 12)]
        found = policy.buffer.eval()
        assert len(found) == 12
        key = [sorted(x.flatten().tolist() for x in xs) for xs in (held, [f[0] for f in found])]
        assert key[0] == key[1]
        held = [found[i][0] for i in range(12)]
    policy.resize(agent, 5)
    assert len(policy.buffer) == 5
    policy.resize(agent, 9)
    assert len(policy.buffer) == 5 and policy.max_size == 9


def test_images_are_made_tensors_where_the_stream_has_no_eval_transform() -> None:
    benchmark = data_incremental(data(), data(), 1)
    policy = MinimumRedundancyBuffer(5)
    agent = SimpleNamespace(model=method(), device="cpu", eval_mb_size=50)
    policy.post_adapt(agent, benchmark.train_stream[0])
    assert len(policy.buffer) == 5
    from tests.solo_bridge.test_strategy import Own

    agent.model = Own()
    with pytest.raises(ViewsError, match=r"Own has no image_size.*eval_transform"):
        policy.post_adapt(agent, benchmark.train_stream[0])


# ---- replay


class Joined(SupervisedPlugin):
    """Checks labels against images, and remembers the sizes of batches."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[list[int]] = []
        self.labels: list[set[int]] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.sizes.append([])
        self.labels.append(set())

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        a, b = strategy.mb_x
        assert a[:, 0, 0, 0].tolist() == b[:, 0, 0, 0].tolist() == strategy.mb_y.tolist()
        self.sizes[-1].append(len(a))
        self.labels[-1] |= set(strategy.mb_y.tolist())


def _watched(kind: type, **options: Any) -> Any:
    """A plugin of a class that remembers how many samples its terms were made of."""

    class Watched(kind):  # type: ignore[misc, valid-type]
        def add_terms(self, strategy: Any, student: Any) -> None:
            self.counts = {len(x) for x in (*student.features, *student.embeddings)}
            self.counts |= {len(x) for x in strategy.mb_x} | {len(strategy.mb_y)}
            super().add_terms(strategy, student)

    return Watched(hidden=8, **options)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("policy", POLICIES)
def test_replayed_samples_enter_every_term_with_their_labels(policy: str, workers: int) -> None:
    labels = [i % 6 for i in range(120)]
    benchmark = class_incremental(
        _coded(labels), _coded(labels), 3, class_order=range(6), eval_transform=EvalTransform(8)
    )
    plugin = replay(policy, None if policy == "first_per_class" else 12, 5)
    joined = Joined()
    others = [_watched(KaizenPlugin, num_classes=6), BranchTuningPlugin(verbose=False)]
    run = strategy(
        method(), [plugin, *others, joined], views=_code_views, lr=0.01, train_mb_size=16
    )
    for experience in benchmark.train_stream:
        run.train(experience, num_workers=workers)
    few = 2 if policy == "first_per_class" else 5  # 1 % of 20 is none: one of each class
    assert joined.sizes[0] == [16] * 4
    assert joined.sizes[1] == [16 + few] * 4
    assert set(joined.sizes[2]) == {16 + min(5, len(plugin.storage_policy.buffer) - (few == 2) * 2)}
    assert joined.labels[0] == {0, 1} and {2, 3} < joined.labels[1] and {4, 5} < joined.labels[2]
    assert others[0].counts == {joined.sizes[2][0]}
    assert len(others[1].summaries) == 2 and not is_expanded(run.model)
    assert run.clock.train_iterations == 12


@pytest.mark.parametrize("name", SIX)
def test_methods_beside_other_plugins_in_any_order(name: str) -> None:
    """Batches of 20: 20 new ones, or 12 and 8 old ones."""
    for policy, order in (("reservoir", (0, 1, 2)), ("min_redundancy", (2, 1, 0))):
        plugins = [
            replay(policy, 16, 8, batch_size=12),
            _watched(CaSSLePlugin),
            BranchTuningPlugin(verbose=False),
        ]
        run = strategy(method(name), [plugins[i] for i in order], train_epochs=1, lr=0.1)
        for experience in data_incremental(data(120), data(), 3).train_stream:
            run.train(experience)
        assert plugins[1].counts == {20}
        assert torch.isfinite(weights(run.model)).all() and not is_expanded(run.model)
        assert len(plugins[0].storage_policy.buffer) == 16


def test_batches_that_a_method_cannot_take_are_refused_before_they_are_trained() -> None:
    run = strategy(method("mocov2plus", queue_size=25), [replay("reservoir", 20, 10)])
    benchmark = stream()
    run.train(benchmark.train_stream[0])
    before, steps = weights(run.model), run.clock.train_iterations
    with pytest.raises(
        BatchSizeError, match=r"queue of 25 takes .* 20 new and 10 .*as many as train_mb_size"
    ):
        run.train(benchmark.train_stream[1])
    assert torch.equal(weights(run.model), before) and run.clock.train_iterations == steps
    model = method("wmse", whitening_size=20, backbone=small_backbone("wmse"))
    run = strategy(model, [replay("reservoir", 20, 10)])
    run.train(benchmark.train_stream[0])
    with pytest.raises(BatchSizeError, match="multiple of whitening_size=20"):
        run.train(benchmark.train_stream[1])
    run = strategy(method("wmse"), [replay("reservoir", 20, 10, batch_size=10)])
    for experience in benchmark.train_stream:
        run.train(experience)


def test_small_experiences_and_small_buffers() -> None:
    joined = Joined()
    labels = [i % 4 for i in range(36)]
    benchmark = data_incremental(_coded(labels), _coded(labels), 3)
    plugin = WholeBatchReplay(ReservoirSamplingBuffer(5), batch_size_mem=32)
    run = strategy(plugins=[plugin, joined], views=_code_views, lr=0.01)
    for experience in benchmark.train_stream:
        run.train(experience)
    assert joined.sizes == [[12, 12], [17, 17], [17, 17]]
    assert (plugin.batch_size, plugin.batch_size_mem) == (None, 32), "as they were asked for"


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_grows_over_twenty_experiences(policy: str) -> None:
    plugin = replay(policy, 12, 6)
    run = strategy(plugins=[plugin], train_mb_size=10, train_epochs=1)
    sizes, bytes_ = [], []
    whole = data_incremental(data(400), data(), 20)
    for experience in whole.train_stream:
        run.train(experience)
        sizes.append(len(plugin.storage_policy.buffer))
        bytes_.append(len(pickle.dumps(plugin.storage_policy)))
    assert max(sizes[2:]) <= 12
    assert max(bytes_[10:]) < 1.2 * max(bytes_[5:10])


def test_pickled_policies_go_on() -> None:
    benchmark = stream()
    for policy in POLICIES:
        plugin = replay(policy, 10, 5)
        strategy(plugins=[plugin], train_epochs=1).train(benchmark.train_stream[0])
        revived = pickle.loads(pickle.dumps(plugin))
        run = strategy(plugins=[revived], train_epochs=1)
        run.train(benchmark.train_stream[1])
        assert 5 < len(revived.storage_policy.buffer) <= 10


def test_an_interrupted_experience_leaves_the_buffer() -> None:
    class Stop(SupervisedPlugin):
        armed = True

        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            if self.armed and strategy.clock.train_exp_counter == 1:
                raise KeyboardInterrupt

    for policy in POLICIES:
        stop, plugin = Stop(), replay(policy, 12, 6)
        run = strategy(plugins=[plugin, stop, BranchTuningPlugin(verbose=False)])
        benchmark = stream()
        run.train(benchmark.train_stream[0])
        before = len(plugin.storage_policy.buffer)
        with pytest.raises(KeyboardInterrupt):
            run.train(benchmark.train_stream[1])
        assert len(plugin.storage_policy.buffer) == before
        stop.armed = False
        run.train(benchmark.train_stream[1])
        assert not is_expanded(run.model)
        assert before <= len(plugin.storage_policy.buffer) <= 12


def test_domain_streams() -> None:
    for policy in POLICIES:
        parts = [data(40), data(40), data(40)]
        plugin = replay(policy, 12, 6)
        run = strategy(plugins=[plugin], train_epochs=1)
        for experience in domain_incremental(parts, parts).train_stream:
            run.train(experience)
        assert 10 <= len(plugin.storage_policy.buffer) <= 12


# ---- bad input


def test_options() -> None:
    for wrong, message in (
        (lambda: replay("fifo"), "reservoir, class_balanced, min_redundancy.*got 'fifo'"),
        (lambda: replay("reservoir", 0), "size=….*got 0"),
        (lambda: replay("reservoir", 5, 0), "batch_size_mem=….*got 0"),
        (lambda: replay("reservoir", 5, batch_size=0), r"\(batch_size=….*got 0"),
        (lambda: FirstPerClassBuffer(0.0), "share=….*got 0"),
        (lambda: FirstPerClassBuffer(1.5), "share=….*got 1.5"),
        (lambda: FirstPerClassBuffer(max_size=0), "max_size=….*got 0"),
        (lambda: MinimumRedundancyBuffer(0), "max_size=….*got 0"),
    ):
        with pytest.raises(UnknownOptionError, match=message):
            wrong()


def test_methods_that_know_samples_by_number_are_refused() -> None:
    with pytest.raises(IncompatiblePluginError, match="by their number"):
        strategy(method("deepclusterv2"), [replay("reservoir")])


def test_a_class_balanced_buffer_refers_to_what_it_holds_only() -> None:
    """Avalanche's grows with every experience, by the data sets that it was ever joined of."""
    policy = BalancedClassesBuffer(6)
    for experience in _experiences([[0, 1, 2, 0, 1, 2]] * 12):
        policy.post_adapt(None, experience)
    assert len(policy.buffer) == 6
    assert len(policy.buffer._flat_data._datasets) <= 6
    assert Counter(int(t) for t in policy.buffer.targets) == {0: 2, 1: 2, 2: 2}
    policy.resize(None, 4)
    assert Counter(int(t) for t in policy.buffer.targets) == {0: 2, 1: 1, 2: 1}
