"""The plugin in supervised strategies: what it changes, when, and that it leaves no trace."""

from __future__ import annotations

import copy
import io
import re
import warnings
from typing import Any

import pytest
import torch
from avalanche.benchmarks import split_online_stream
from avalanche.core import SupervisedPlugin
from avalanche.training import Cumulative, JointTraining, Naive
from avalanche.training.plugins import (
    EvaluationPlugin,
    EWCPlugin,
    MIRPlugin,
    RARPlugin,
    RWalkPlugin,
)
from torch import nn

from avalanche_branchtune import (
    BranchConv2d,
    BranchTuningPlugin,
    compress,
    is_expanded,
    restore_norms,
)
from avalanche_branchtune.errors import (
    BranchTuneError,
    EmptyExperienceError,
    IncompatiblePluginError,
    NothingToBranchError,
    OptimizerMismatchError,
    UnknownOptionError,
)
from tests.supervised import Net, benchmark, kernels, strategy


class Watch(SupervisedPlugin):
    """Record the state of the model and the optimizer at every iteration."""

    def __init__(self) -> None:
        super().__init__()
        self.expanded: list[bool] = []
        self.at_end: list[bool] = []
        self.kernels: list[torch.Tensor] = []

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        self.expanded.append(is_expanded(strategy.model))
        self.kernels.append(kernels(strategy.model))

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.at_end.append(is_expanded(strategy.model))


@pytest.mark.parametrize("pretrained", [False, True])
def test_branches_from_the_second_experience_on_or_from_the_first(pretrained: bool) -> None:
    watch, plugin = Watch(), BranchTuningPlugin(pretrained=pretrained, verbose=False)
    run = strategy([watch, plugin])
    stream = benchmark().train_stream
    for i, experience in enumerate(stream):
        before = kernels(run.model)
        watch.expanded, watch.kernels = [], []
        run.train(experience)
        branched = pretrained or i > 0
        assert watch.expanded == [branched] * 4
        standing_still = all(torch.equal(k, before) for k in watch.kernels)
        assert standing_still == branched
        assert not torch.equal(kernels(run.model), before), "what was learnt is merged"
    assert watch.at_end == [False] * 3, "other plugins see the merged network, in any order"
    assert [s.experience for s in plugin.summaries] == [0, 1, 2][0 if pretrained else 1 :]


def test_a_strategy_that_has_trained_already_can_have_it() -> None:
    watch, plugin = Watch(), BranchTuningPlugin(verbose=False)
    run = strategy([watch])
    first, second = benchmark().train_stream[:2]
    run.train(first)
    run.plugins.append(plugin)
    watch.expanded = []
    run.train(second)
    assert watch.expanded == [True] * 4 and [s.experience for s in plugin.summaries] == [1]


def test_summary_counts_scalars(capsys: pytest.CaptureFixture[str]) -> None:
    run = strategy([plugin := BranchTuningPlugin()])
    for experience in benchmark().train_stream:
        run.train(experience)
    summary = plugin.summaries[0]
    branches = 6 * 3 * 6 + 8 * 6 * 6
    head = 32 * 6 + 6
    assert (summary.layers, summary.norms) == (2, 1)
    assert summary.branch_parameters == branches
    assert summary.trainable_parameters == branches + head
    assert summary.frozen_parameters == (6 * 3 * 9 + 6) + (8 * 6 * 9 + 8) + 12
    assert capsys.readouterr().out.count("Branch-tuning, experience") == 2


def test_optimizer_groups_settings_and_state() -> None:
    model = Net()
    optimizer = torch.optim.Adam(
        [
            {"params": model.features[0].parameters(), "lr": 0.01},
            {"params": model.features[1:].parameters(), "lr": 0.02, "weight_decay": 0.1},
            {"params": model.fc.parameters(), "lr": 0.03},
        ]
    )
    seen: list[list[int]] = []

    class Groups(SupervisedPlugin):
        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            held = [{id(p) for p in g["params"]} for g in strategy.optimizer.param_groups]
            seen.append(
                [
                    next(i for i, ids in enumerate(held) if id(b) in ids)
                    for m in strategy.model.modules()
                    if isinstance(m, BranchConv2d)
                    for b in m.branches.values()
                ]
            )

    run = strategy([Groups(), BranchTuningPlugin(verbose=False)], model, optimizer)
    parameters = [[id(p) for p in g["params"]] for g in optimizer.param_groups]
    stream = list(benchmark().train_stream)
    run.train(stream[0])
    state = {p: copy.deepcopy(s) for p, s in optimizer.state.items()}
    run.train(stream[1])
    assert seen[-1] == [0, 0, 1, 1], "a branch learns with its convolution's settings"
    assert [[id(p) for p in g["params"]] for g in optimizer.param_groups] == parameters
    assert set(optimizer.state) == set(state)
    frozen = model.features[0].weight
    assert torch.equal(optimizer.state[frozen]["exp_avg"], state[frozen]["exp_avg"])
    assert optimizer.state[model.fc.weight]["step"] == 2 * state[model.fc.weight]["step"]


@pytest.mark.parametrize("set_to_none", [True, False])
def test_frozen_kernels_do_not_decay(set_to_none: bool) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.5)
    zero = optimizer.zero_grad
    optimizer.zero_grad = lambda: zero(set_to_none=set_to_none)  # type: ignore[method-assign]
    watch = Watch()
    run = strategy([watch, BranchTuningPlugin(verbose=False)], model, optimizer)
    stream = list(benchmark().train_stream)
    run.train(stream[0])
    before = kernels(model)
    watch.kernels = []
    run.train(stream[1])
    assert all(torch.equal(k, before) for k in watch.kernels)


def test_nothing_grows_over_100_experiences() -> None:
    run = strategy([BranchTuningPlugin(verbose=False)], train_epochs=1)
    experience = benchmark(samples=24).train_stream[0]
    sizes = set()
    for i in range(100):
        run.train(experience)
        held = sum(len(g["params"]) for g in run.optimizer.param_groups)
        named = len(run.optimized_param_id)
        sizes.add((held, len(run.optimizer.state), len(list(run.model.parameters())), named))
        if i == 0:
            first = next(iter(sizes))
    assert sizes == {first}


def test_result_equals_training_branches_by_hand() -> None:
    """Oracle: unfolded branches, plain tensors, plain SGD; same batches."""
    import torch.nn.functional as F

    from tests.oracles.three_convolutions import branched_forward, merged_kernel

    batches: list[Any] = []

    class Batches(SupervisedPlugin):
        def before_forward(self, strategy: Any, **kwargs: Any) -> None:
            batches.append((strategy.mb_x.clone(), strategy.mb_y.clone()))

    model = Net().double()
    run = strategy([Batches(), BranchTuningPlugin(verbose=False, pretrained=True)], model, None)
    start = copy.deepcopy(model)
    stream = benchmark().train_stream

    class Double(SupervisedPlugin):
        def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            strategy.mbatch[0] = strategy.mbatch[0].double()

    run.plugins.insert(0, Double())
    run.train(stream[0])

    c1, bn, _, c2 = start.features[:4]
    b1 = [torch.zeros(6, 3, *s, dtype=torch.float64, requires_grad=True) for s in ((1, 3), (3, 1))]
    b2 = [torch.zeros(8, 6, *s, dtype=torch.float64, requires_grad=True) for s in ((1, 3), (3, 1))]
    learning = [*b1, *b2, start.fc.weight, start.fc.bias]
    optimizer = torch.optim.SGD(learning, lr=0.05, momentum=0.9)
    start.train()
    for x, y in batches:
        optimizer.zero_grad()
        h = F.relu(bn(branched_forward(c1, c1.weight.detach(), c1.bias.detach(), b1, x)))
        h = F.relu(branched_forward(c2, c2.weight.detach(), c2.bias.detach(), b2, h))
        F.cross_entropy(start.fc(start.features[5:](h)), y).backward()
        optimizer.step()
    for conv, branches, got in ((c1, b1, model.features[0]), (c2, b2, model.features[3])):
        expected = merged_kernel(conv.weight.detach(), [b.detach() for b in branches])
        assert torch.allclose(got.weight, expected, rtol=1e-12, atol=1e-14)
    assert torch.allclose(model.fc.weight, start.fc.weight, rtol=1e-12, atol=1e-14)
    assert torch.allclose(bn.running_mean, model.features[1].running_mean, rtol=1e-12)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, RuntimeError])
def test_interrupted_experience_leaves_a_usable_model(interrupt: type[BaseException]) -> None:
    class Interrupt(SupervisedPlugin):
        armed = False

        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            if self.armed and strategy.clock.train_exp_iterations == 2:
                raise interrupt()

    interrupter, plugin = Interrupt(), BranchTuningPlugin(verbose=False)
    run = strategy([interrupter, plugin])
    stream = list(benchmark().train_stream)
    run.train(stream[0])
    interrupter.armed = True
    with pytest.raises(interrupt):
        run.train(stream[1])
    assert is_expanded(run.model)
    run.model.eval()
    buffer = io.BytesIO()
    torch.save(run.model, buffer)
    buffer.seek(0)
    x = torch.randn(4, 3, 8, 8)
    learnt = run.model(x)
    twin = torch.load(buffer, weights_only=False)
    assert torch.equal(twin(x), learnt)
    assert compress(twin)
    assert torch.allclose(twin(x), learnt, atol=1e-6)

    interrupter.armed = False
    run.train(stream[1])
    assert not is_expanded(run.model)
    held = {id(p) for g in run.optimizer.param_groups for p in g["params"]}
    assert held == {id(p) for p in run.model.parameters()}
    assert all(p.requires_grad for p in run.model.parameters())


@pytest.mark.parametrize("how", ["compress", "both", "nothing"])
def test_recovery_by_hand_and_the_next_training(how: str) -> None:
    class Interrupt(SupervisedPlugin):
        armed = False

        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            if self.armed:
                raise RuntimeError

    interrupter, ewc = Interrupt(), EWCPlugin(1.0)
    run = strategy([interrupter, ewc, BranchTuningPlugin(verbose=False)])
    stream = list(benchmark().train_stream)
    run.train(stream[0])
    interrupter.armed = True
    with pytest.raises(RuntimeError):
        run.train(stream[1])
    if how != "nothing":
        compress(run.model)
    if how == "both":
        restore_norms(run.model)
    interrupter.armed = False
    run.train(stream[1])
    held = [id(p) for g in run.optimizer.param_groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in run.model.parameters())
    assert set(run.optimizer.state) <= set(run.model.parameters())
    assert all(p.requires_grad for p in run.model.parameters())
    assert "before_backward" not in vars(ewc)


class Bypass(nn.Module):
    """A layer whose weight is read without calling it, in a way that nobody can see beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.bypassed = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.conv2d(self.used(x), self.bypassed.weight, self.bypassed.bias)
        return x.mean((2, 3))


def test_branches_that_no_gradient_reaches_are_named() -> None:
    run = strategy([BranchTuningPlugin(pretrained=True, verbose=False)], Bypass())
    with pytest.warns(UserWarning, match=r"1 layer\(s\): bypassed"):
        run.train(benchmark().train_stream[0])


def test_online_stream_branches_with_the_experiences_it_is_cut_from() -> None:
    seen: list[tuple[int, bool]] = []

    class Look(SupervisedPlugin):
        def before_backward(self, strategy: Any, **kwargs: Any) -> None:
            origin = strategy.experience.origin_experience.current_experience
            seen.append((origin, is_expanded(strategy.model)))

    torch.manual_seed(0)
    model = Net()
    plugin = BranchTuningPlugin(verbose=False)
    run = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=4,
        plugins=[Look(), plugin],
        evaluator=EvaluationPlugin(),
    )
    parts = split_online_stream(
        benchmark().train_stream, experience_size=5, access_task_boundaries=True
    )
    for part in parts:
        run.train(part)
    assert set(seen) == {(0, False), (1, True), (2, True)}
    assert len(seen) == 21
    assert [s.experience for s in plugin.summaries] == [1, 2], "once for each"
    assert not is_expanded(model)
    held = {id(p) for g in run.optimizer.param_groups for p in g["params"]}
    assert held == {id(p) for p in model.parameters()}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"scope": ["fc"]}, NothingToBranchError),
        ({"norm_scope": ["nobody"]}, UnknownOptionError),
        ({"branch": lambda kernel: [(9, 9)]}, UnknownOptionError),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_experience(
    options: dict[str, Any], error: type[Exception]
) -> None:
    run = strategy([BranchTuningPlugin(**options)])
    before = kernels(run.model)
    with pytest.raises(error):
        run.train(benchmark().train_stream[0])
    assert torch.equal(kernels(run.model), before)


@pytest.mark.parametrize("plugin", [MIRPlugin(8, 4, 2), RARPlugin(8), RWalkPlugin()])
def test_plugins_that_need_learning_kernels(plugin: Any) -> None:
    run = strategy([plugin, BranchTuningPlugin()])
    with pytest.raises(IncompatiblePluginError, match=f"{type(plugin).__name__} beside"):
        run.train(benchmark().train_stream[0])


def test_a_module_called_encoder_without_convolutions_is_no_scope() -> None:
    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv_proj = nn.Conv2d(3, 8, 4, stride=4)
            self.encoder = nn.Linear(8, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.encoder(self.conv_proj(x).mean((2, 3)))

    plugin = BranchTuningPlugin(pretrained=True, verbose=False)
    run = strategy([plugin], Transformer())
    run.train(benchmark().train_stream[0])
    assert plugin.summaries[0].layers == 1


def test_evaluation_inside_an_experience_and_after_it() -> None:
    from avalanche.evaluation.metrics import accuracy_metrics

    evaluator = EvaluationPlugin(accuracy_metrics(stream=True))
    run = strategy([BranchTuningPlugin(verbose=False)], evaluator=evaluator, eval_every=1)
    for experience in benchmark().train_stream:
        run.train(experience, eval_streams=[benchmark().test_stream])
    results = run.eval(benchmark().test_stream)
    assert "Top1_Acc_Stream/eval_phase/test_stream" in results


@pytest.mark.parametrize("norm_mode", ["affine", "eval", "none"])
def test_norm_mode_during_and_after(norm_mode: str) -> None:
    statistics: list[torch.Tensor] = []

    class Statistics(SupervisedPlugin):
        def after_forward(self, strategy: Any, **kwargs: Any) -> None:
            statistics.append(strategy.model.features[1].running_mean.clone())
            strategy.model.train()

    run = strategy([Statistics(), BranchTuningPlugin(norm_mode=norm_mode, verbose=False)])
    stream = list(benchmark().train_stream)
    run.train(stream[0])
    weight = run.model.features[1].weight.detach().clone()
    statistics.clear()
    run.train(stream[1])
    moved = not torch.equal(statistics[0], statistics[-1])
    assert moved == (norm_mode != "eval")
    learnt = not torch.equal(run.model.features[1].weight, weight)
    assert learnt == (norm_mode == "none")
    assert all(p.requires_grad for p in run.model.parameters())
    assert run.model.features[1].training


class Paired(nn.Module):
    """An online and a momentum backbone, as in BYOL, and a convolutional projector."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Net()
        self.momentum_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
        self.projector = nn.Conv2d(3, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.backbone(x)


def test_momentum_backbone_is_expanded_alike_and_projector_left_alone() -> None:
    model = Paired()
    pairs: list[list[str]] = []

    class Momentum(SupervisedPlugin):
        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            online = dict(model.backbone.named_parameters())
            momentum = dict(model.momentum_backbone.named_parameters())
            assert list(online) == list(momentum)
            pairs.append(list(online))
            assert not any(p.requires_grad for p in momentum.values())
            assert type(model.projector) is nn.Conv2d
            with torch.no_grad():
                for name, p in momentum.items():
                    p.lerp_(online[name], 0.5)

    run = strategy([Momentum(), BranchTuningPlugin(verbose=False)], model)
    for experience in benchmark().train_stream:
        run.train(experience)
    assert len(pairs[0]) + 4 == len(pairs[-1])
    assert not any(p.requires_grad for p in model.momentum_backbone.parameters())


@pytest.mark.parametrize("template", [Naive, Cumulative, JointTraining])
def test_other_strategies(template: Any) -> None:
    torch.manual_seed(0)
    model = Net()
    run = template(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=8,
        plugins=[BranchTuningPlugin(verbose=False)],
        evaluator=EvaluationPlugin(),
    )
    stream = benchmark().train_stream
    if template is JointTraining:
        run.train(stream)
    else:
        for experience in stream:
            run.train(experience)
    assert not is_expanded(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branch": "2x2"}, r"BranchTuningPlugin: branch: expected one of 1x1, 1x3\+3x1, 3x3"),
        ({"norm_mode": "frozen"}, "affine, eval, none; got 'frozen'"),
        ({"linear": "lora"}, "none, full, a rank"),
        ({"norms": ["Batch"]}, "BatchNorm1d"),
        ({"unbranchable": "ignore"}, "error, skip"),
        ({"norms": nn.Conv2d}, "BranchTuningPlugin: norms: .*a class of normalisation layers"),
        ({"pretrained": "weights.ckpt"}, "BranchTuningPlugin: pretrained: expected True or F"),
        ({"pretrained": 1}, "expected True or False; got 1"),
    ],
)
def test_unknown_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownOptionError, match=message):
        BranchTuningPlugin(**options)


def test_model_without_convolutions() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6))
    run = strategy([BranchTuningPlugin(pretrained=True)], model)
    with pytest.raises(NothingToBranchError, match="no layer of Sequential"):
        run.train(benchmark().train_stream[0])


def test_optimizer_of_another_model() -> None:
    model = Net()
    run = strategy(
        [BranchTuningPlugin()], model, torch.optim.SGD(copy.deepcopy(model).parameters(), lr=0.1)
    )
    with pytest.raises(OptimizerMismatchError, match=r"features.0.weight"):
        run.train(benchmark().train_stream[0])


def test_empty_experience() -> None:
    run = strategy([BranchTuningPlugin()])
    experience = benchmark().train_stream[0]
    experience._dataset = experience.dataset.subset([])
    with pytest.raises(EmptyExperienceError, match="experience 0 has no samples"):
        run.train(experience)


def test_two_of_them() -> None:
    run = strategy([BranchTuningPlugin(), BranchTuningPlugin()])
    with pytest.raises(IncompatiblePluginError, match="keep one"):
        run.train(benchmark().train_stream[0])


def test_every_error_has_one_base() -> None:
    with pytest.raises(BranchTuneError):
        BranchTuningPlugin(branch="x")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scope": nn.Linear(2, 2)}, "got Linear: name the modules"),
        ({"scope": [nn.Linear(2, 2)]}, "expected names or patterns"),
        ({"scope": lambda name: True}, "expected a predicate of (name, module)"),
        ({"scope": "feature"}, "did you mean features?"),
        ({"branch": lambda height, width: [(1, 1)]}, "a callable of one tuple"),
        ({"branch": lambda kernel: "1x1"}, "a callable of one tuple"),
    ],
)
def test_what_is_no_option_is_said_in_the_options_words(options: dict[str, Any], said: str) -> None:
    run = strategy([BranchTuningPlugin(**options)])
    with pytest.raises(UnknownOptionError, match=re.escape(said)):
        run.train(benchmark().train_stream[0])


@pytest.mark.parametrize(
    ("last", "options", "said"),
    [
        (nn.GroupNorm(2, 8), {"scope": "0"}, 'the network has GroupNorm: pass norms=["GroupNorm"]'),
        (nn.BatchNorm2d(8), {"linear": "full"}, "all linear layers have branches, 4 too"),
        (nn.BatchNorm2d(8), {}, "4 learn as usual, 1,200 weights"),
        (nn.BatchNorm2d(8), {"scope": "0"}, None),
        (nn.GroupNorm(2, 8), {"norm_mode": "none", "scope": "0"}, None),
    ],
)
def test_what_is_probably_not_meant_is_warned_of_once(
    last: nn.Module, options: dict[str, Any], said: str | None
) -> None:
    parts = nn.Conv2d(3, 8, 3), last, nn.AdaptiveAvgPool2d(5), nn.Flatten(), nn.Linear(200, 6)
    plugin = BranchTuningPlugin(pretrained=True, verbose=False, **options)
    run = strategy([plugin], nn.Sequential(*parts))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for experience in benchmark().train_stream:
            run.train(experience)
    ours = [str(w.message) for w in found if "Branch-tuning:" in str(w.message)]
    assert len(ours) == (said is not None)
    assert said is None or said in ours[0]
