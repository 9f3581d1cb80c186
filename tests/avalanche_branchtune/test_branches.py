"""Branches against the three-convolution oracle, on random convolutions."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from avalanche_branchtune import (
    BranchConv2d,
    BranchLinear,
    compress,
    expand,
    folded_state_dict,
    is_expanded,
)
from avalanche_branchtune.branches import branch_shapes
from avalanche_branchtune.errors import (
    ExpansionError,
    NothingToBranchError,
    UnbranchableLayerError,
    UnknownOptionError,
)
from avalanche_branchtune.folding import folded_once
from tests.oracles.three_convolutions import branched_forward, merged_kernel, random_branches


def inner(kernel: tuple[int, int]) -> list[tuple[int, int]]:
    """A callable branch: up to two boxes, one of them a single tap."""
    return list(dict.fromkeys([(max(1, kernel[0] - 1), kernel[1]), (1, 1)]))


@st.composite
def convolutions(draw: Any) -> tuple[nn.Conv2d, Tensor]:
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    padding = draw(
        st.one_of(
            st.sampled_from(["same", "valid"]), st.tuples(st.integers(0, 3), st.integers(0, 3))
        )
    )
    stride = (1, 1) if padding == "same" else draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    conv = nn.Conv2d(
        4,
        draw(st.sampled_from([4, 8])),
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=mode,
        dtype=draw(st.sampled_from([torch.float32, torch.float64])),
    )
    if draw(st.booleans()):
        conv = conv.to(memory_format=torch.channels_last)
    size = [d * (k - 1) + draw(st.integers(4, 7)) for d, k in zip(dilation, kernel, strict=True)]
    return conv, torch.randn(2, 4, *size, dtype=conv.weight.dtype)


def relative_error(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm().clamp_min(1e-300)).item()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(convolutions(), st.sampled_from(["1x1", "1x3+3x1", "3x3", inner]), st.integers(0, 99))
def test_random_convolutions_against_three_convolutions(
    case: tuple[nn.Conv2d, Tensor], branch: Any, seed: int
) -> None:
    check_against_three_convolutions(case, branch, seed)


def check_against_three_convolutions(
    case: tuple[nn.Conv2d, Tensor], branch: Any, seed: int
) -> None:
    conv, x = case
    tolerance = 1e-5 if x.dtype == torch.float32 else 1e-12
    weight, bias = conv.weight, conv.bias
    keys = list(conv.state_dict())
    before = conv(x)

    expand(conv, branch)
    assert isinstance(conv, BranchConv2d)
    assert torch.equal(conv(x), before), "expansion must be bit-equal"
    assert not weight.requires_grad
    assert conv.weight is weight

    branches = list(conv.branches.values())
    random_branches(branches, seed)
    x64 = x.double().requires_grad_()
    b64 = [b.detach().double().requires_grad_() for b in branches]
    w64 = weight.detach().double()
    expected = branched_forward(conv, w64, None if bias is None else bias.double(), b64, x64)
    x.requires_grad_()
    y = conv(x)
    assert relative_error(y.double(), expected) <= tolerance

    direction = torch.randn_like(expected)
    got = torch.autograd.grad(y, [x, *branches], direction.to(y.dtype))
    want = torch.autograd.grad(expected, [x64, *b64], direction)
    for g, w in zip(got, want, strict=True):
        assert relative_error(g.double(), w) <= 10 * tolerance

    expanded_output = conv(x).detach()
    kernel = merged_kernel(weight.detach().double(), [b.detach() for b in b64])
    assert compress(conv) == ("",)
    assert relative_error(conv(x).detach(), expanded_output) <= tolerance
    assert relative_error(conv.weight.detach().double(), kernel) <= tolerance
    assert type(conv) is nn.Conv2d
    assert conv.weight is weight
    assert conv.bias is bias
    assert list(conv.state_dict()) == keys
    assert all(p.requires_grad for p in conv.parameters())


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )


def train_branches(model: nn.Module, x: Tensor) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()


def test_shapes() -> None:
    assert branch_shapes((3, 3), "1x3+3x1") == ((1, 3), (3, 1))
    assert branch_shapes((5, 7), "1x3+3x1") == ((1, 7), (5, 1))
    assert branch_shapes((5, 7), "3x3") == ((5, 7),)
    assert branch_shapes((1, 3), "1x3+3x1") == ((1, 3),)
    assert all(branch_shapes((1, 1), b) == ((1, 1),) for b in ("1x1", "1x3+3x1", "3x3"))
    assert branch_shapes((1, 1), lambda k: [(1, k[1]), (k[0], 1)]) == ((1, 1),)


@pytest.mark.parametrize("branch", ["2x2", "", None, 3])
def test_unknown_branch_is_refused(branch: Any) -> None:
    model = net()
    with pytest.raises(UnknownOptionError, match=r"1x1, 1x3\+3x1, 3x3"):
        expand(model, branch)
    assert not is_expanded(model)


@pytest.mark.parametrize("sizes", [[], [(4, 1)], [(0, 1)]])
def test_bad_callable_is_refused_before_any_change(sizes: Any) -> None:
    model = net()
    with pytest.raises(UnknownOptionError, match="callable returned"):
        expand(model, lambda kernel: sizes)
    assert not is_expanded(model)
    assert all(p.requires_grad for p in model.parameters())


def test_whole_model_round_trip_restores_everything() -> None:
    model = net()
    model[3].weight.requires_grad_(False)  # frozen by the user: stays so, and so does its branch
    calls: list[str] = []
    model[0].register_forward_hook(lambda *a: calls.append("hook"))
    x = torch.randn(4, 3, 9, 9)
    model.eval()
    before = model(x)
    objects = {n: id(p) for n, p in model.named_parameters()}
    grads = {n: p.requires_grad for n, p in model.named_parameters()}
    types = [type(m) for m in model.modules()]
    attributes = [list(vars(m)) for m in model.modules()]

    expansion = expand(model)
    assert expansion.branched == {
        "0": ("branch_1x3", "branch_3x1"),
        "3": ("branch_1x3", "branch_3x1"),
        "4": ("branch_1x1",),
    }
    names = [n for n, _ in model.named_parameters()]
    assert [n for n in names if "branch" not in n] == list(objects)
    assert torch.equal(model(x), before)
    assert not any(b.requires_grad for b in model[3].branches.values())
    model.train()
    train_branches(model, x)
    model.eval()
    learnt = model(x)
    assert not torch.allclose(learnt, before)
    compress(model)
    assert relative_error(model(x), learnt) <= 1e-6
    assert {n: id(p) for n, p in model.named_parameters()} == objects
    assert {n: p.requires_grad for n, p in model.named_parameters()} == grads
    assert [type(m) for m in model.modules()] == types
    assert [list(vars(m)) for m in model.modules()] == attributes
    assert len(calls) > 3
    assert compress(model) == ()


def test_gradients_reach_layers_before_a_frozen_kernel() -> None:
    model = net()
    x = torch.randn(4, 3, 9, 9)
    expand(model)
    model(x).sum().backward()
    assert all(b.grad.abs().sum() > 0 for b in model[0].branches.values())
    assert model[0].weight.grad is None


def test_nested_expansion_is_refused() -> None:
    model = net()
    expand(model, scope="0")
    with pytest.raises(ExpansionError, match="nested"):
        expand(model, scope="3")


@pytest.mark.parametrize("expanded", [False, True])
def test_copies_and_pickles_are_independent_in_every_state(expanded: bool) -> None:
    model = net()
    x = torch.randn(2, 3, 9, 9)
    if expanded:
        expand(model)
        random_branches([p for n, p in model.named_parameters() if "branch" in n], 1)
    model.eval()
    expected = model(x)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(buffer, weights_only=False),
    ]
    for twin in copies:
        assert torch.equal(twin(x), expected)
        assert is_expanded(twin) == expanded
        compress(twin)
        assert not is_expanded(twin)
        assert is_expanded(model) == expanded
        assert relative_error(twin(x), expected) <= 1e-6
        with torch.no_grad():
            twin[0].weight.zero_()
    assert torch.equal(model(x), expected)


def test_an_average_of_weights_follows_an_expanded_model() -> None:
    model, x = net(), torch.randn(4, 3, 9, 9)
    average, plain = AveragedModel(model, avg_fn=lambda a, w, n: 0.9 * a + 0.1 * w), net()
    expand(model, linear=1)
    by_hand = {n: v.clone() for n, v in model.state_dict().items() if n in plain.state_dict()}
    assert list(folded_state_dict(plain)) == list(plain.state_dict())
    for _ in range(3):
        train_branches(model, x)
        plain.load_state_dict(folded_state_dict(model))
        if average.n_averaged == 0:
            average.update_parameters(plain)  # the first is a copy
            by_hand = {n: v.clone() for n, v in plain.state_dict().items()}
            continue
        average.update_parameters(plain)
        merged = copy.deepcopy(model)
        compress(merged)
        for name, value in merged.named_parameters():
            by_hand[name] = 0.9 * by_hand[name] + 0.1 * value.detach()
    assert list(folded_state_dict(model)) == list(plain.state_dict()) and is_expanded(model)
    for name, value in average.module.named_parameters():
        assert relative_error(value.detach(), by_hand[name]) <= 1e-6
    assert not torch.allclose(by_hand["0.weight"], net()[0].weight)


def test_state_dict_of_an_expanded_model_loads_into_an_expanded_twin() -> None:
    model, twin = net(), net()
    expand(model)
    random_branches([p for n, p in model.named_parameters() if "branch" in n], 2)
    expand(twin)
    twin.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 9, 9)
    assert torch.equal(model.eval()(x), twin.eval()(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_what_the_merged_network_computes(dtype: torch.dtype) -> None:
    model = net().eval()
    x = torch.randn(4, 3, 9, 9)
    expand(model)
    random_branches([p for n, p in model.named_parameters() if "branch" in n], 3)
    with torch.autocast("cpu", dtype=dtype):
        expanded = model(x)
        compress(model)
        assert torch.equal(model(x), expanded)


def test_compiled_model_follows_expansion_and_compression() -> None:
    model = net().eval()
    compiled = torch.compile(model, backend="aot_eager")
    x = torch.randn(4, 3, 9, 9)
    plain = compiled(x)
    expand(compiled)
    assert torch.equal(compiled(x), plain)
    random_branches([p for n, p in model.named_parameters() if "branch" in n], 4)
    expected = model(x)
    with folded_once():
        assert torch.allclose(compiled(x), expected, atol=1e-6)
        compiled(x).sum().backward()
    assert model[0].branches["branch_1x3"].grad is not None
    compress(compiled)
    assert torch.allclose(compiled(x), expected, atol=1e-6)


def test_exportable_after_compression() -> None:
    model = net().eval()
    x = torch.randn(2, 3, 9, 9)
    expand(model)
    random_branches([p for n, p in model.named_parameters() if "branch" in n], 5)
    compress(model)
    program = torch.export.export(model, (x,))
    assert torch.allclose(program.module()(x), model(x), atol=1e-6)


def test_constructed_layer_merges_into_a_plain_one() -> None:
    layer = BranchConv2d(3, 4, 3, padding=1, branch="3x3")
    assert list(layer.branches) == ["branch_3x3"]
    layer.merge()
    assert type(layer) is nn.Conv2d


class PlainSubclass(nn.Conv2d):
    """Only another constructor."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3)


class OwnForward(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.conv2d(input, self.weight)


def test_subclass_without_own_forward_is_branched_and_returns() -> None:
    model = nn.Sequential(PlainSubclass(3))
    expand(model)
    compress(model)
    assert type(model[0]) is PlainSubclass


def shared() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(nn.Conv2d(3, 3, 3), nn.ConvTranspose2d(3, 3, 3)), "ConvTranspose2d"),
        (nn.Sequential(nn.Conv2d(3, 3, 3), OwnForward(3, 3, 3)), "OwnForward has its own forward"),
        (nn.Sequential(nn.Conv2d(3, 3, 3), nn.LazyConv2d(3, 3)), "run one forward pass"),
        (
            nn.Sequential(
                nn.Conv2d(3, 3, 3), nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3))
            ),
            "weight norm",
        ),
        (shared(), "shared"),
    ],
)
def test_unbranchable_layers_are_refused_or_listed(model: nn.Module, reason: str) -> None:
    with pytest.raises(UnbranchableLayerError, match=reason):
        expand(model)
    assert not is_expanded(model)
    if reason != "shared":
        expansion = expand(model, unbranchable="skip")
        assert list(expansion.branched) == ["0"]
        assert reason in expansion.skipped["1"]


def test_model_without_convolutions_is_refused() -> None:
    with pytest.raises(NothingToBranchError, match=r"at least one nn\.Conv2d"):
        expand(nn.Sequential(nn.Linear(3, 3)))


def test_scope_by_name_pattern_and_predicate() -> None:
    model = nn.ModuleDict({"backbone": net(), "projector": net()})
    assert set(expand(model, scope="backbone").branched) == {
        "backbone.0",
        "backbone.3",
        "backbone.4",
    }
    compress(model)
    assert set(expand(model, scope=["*.0", "projector.3"]).branched) == {
        "backbone.0",
        "projector.0",
        "projector.3",
    }
    compress(model)
    depthwise = expand(model, scope=lambda n, m: getattr(m, "groups", 1) > 1)
    assert set(depthwise.branched) == {"backbone.3", "projector.3"}
    compress(model)
    with pytest.raises(UnknownOptionError, match=r"nobody.*backbone, projector"):
        expand(model, scope=["backbone", "nobody"])


@pytest.mark.parametrize("linear", ["full", 1, 2, 99])
def test_linear_branches(linear: Any) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"mlp": nn.Linear(6, 4), "head": nn.Linear(4, 3)}).double()
    model.forward = lambda x: model["head"](model["mlp"](x))  # type: ignore[assignment]
    x = torch.randn(5, 7, 6, dtype=torch.float64)
    before = model(x)
    random_state = torch.get_rng_state()
    expansion = expand(model, linear=linear)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert list(expansion.branched) == ["mlp"], "heads get no branch by default"
    assert torch.equal(model(x), before)
    train_branches(model, x)
    layer = model["mlp"]
    assert isinstance(layer, BranchLinear)
    b = layer.branches
    added = b["branch_full"] if linear == "full" else b["branch_up"] @ b["branch_down"]
    assert added.abs().sum() > 0
    if linear != "full":
        assert b["branch_up"].shape[1] == min(linear, 4)
    parallel = nn.functional.linear(x, layer.weight, layer.bias) + x @ added.T
    assert relative_error(layer(x), parallel) <= 1e-12
    learnt = model(x)
    compress(model)
    assert relative_error(model(x), learnt) <= 1e-12
    assert type(model["mlp"]) is nn.Linear
    assert list(expand(model, linear=linear, scope="head").branched) == ["head"]


def test_linear_option_is_checked() -> None:
    for bad in ("low", 0, -1, True):
        with pytest.raises(UnknownOptionError, match="a rank"):
            expand(net(), linear=bad)


def test_transformer_with_attention_weights_used_behind_the_layer_is_refused() -> None:
    layer = nn.MultiheadAttention(8, 2)
    with pytest.raises(UnbranchableLayerError, match="out_proj"):
        expand(layer, linear="full")
    replaced = nn.Sequential(nn.Conv2d(3, 3, 1))
    replaced[0].forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(UnbranchableLayerError, match="forward was replaced"):
        expand(replaced)
    swin = torchvision.models.SwinTransformer([2, 2], 16, [1, 1], [1, 2], [4, 4], num_classes=6)
    with pytest.raises(UnbranchableLayerError, match=r"attn\.qkv.*ShiftedWindowAttention"):
        expand(swin, linear="full")
    block = nn.TransformerEncoderLayer(8, 2)
    with pytest.raises(UnbranchableLayerError, match=r"linear1.*TransformerEncoderLayer"):
        expand(block, linear="full")


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(convolutions(), st.sampled_from(["1x1", "1x3+3x1", "3x3", inner]), st.integers(0, 99))
def test_many_random_convolutions(case: tuple[nn.Conv2d, Tensor], branch: Any, seed: int) -> None:
    check_against_three_convolutions(case, branch, seed)


@pytest.mark.slow
def test_compiled_with_inductor() -> None:
    model = net().eval()
    compiled = torch.compile(model)
    x = torch.randn(4, 3, 9, 9)
    expand(compiled)
    random_branches([p for n, p in model.named_parameters() if "branch" in n], 4)
    assert torch.allclose(compiled(x), model(x), atol=1e-5)
    compiled(x).sum().backward()
    assert model[0].branches["branch_1x3"].grad is not None
    expected = model(x)
    compress(compiled)
    assert torch.allclose(compiled(x), expected, atol=1e-5)
