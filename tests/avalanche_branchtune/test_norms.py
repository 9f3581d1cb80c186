from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from avalanche_branchtune import fix_norms, restore_norms
from avalanche_branchtune.errors import ExpansionError, UnknownOptionError
from avalanche_branchtune.norms import check_norms


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.GroupNorm(2, 4),
        nn.Flatten(),
        nn.Linear(4 * 6 * 6, 5),
        nn.BatchNorm1d(5),
        nn.LayerNorm(5),
    )


X = torch.randn(8, 3, 8, 8) * 3 + 1


def learns(model: nn.Module) -> dict[str, bool]:
    return {n: p.requires_grad for n, p in model.named_parameters()}


def test_affine_fixes_weights_and_lets_statistics_run() -> None:
    model = net()
    assert fix_norms(model) == ("1",), "the paper's: BatchNorm2d only"
    assert {n for n, g in learns(model).items() if not g} == {"1.weight", "1.bias"}
    mean = model[1].running_mean.clone()
    model(X)
    assert not torch.equal(model[1].running_mean, mean)
    assert restore_norms(model) == ("1",)
    assert all(learns(model).values())


@pytest.mark.parametrize("twin", ["same", "deepcopy", "pickle"])
def test_eval_holds_whatever_calls_train(twin: str) -> None:
    model = net()
    attributes = [list(vars(m)) for m in model.modules()]
    fix_norms(model, "eval", norms=("BatchNorm1d", "BatchNorm2d"))
    if twin == "deepcopy":
        model = copy.deepcopy(model)
    elif twin == "pickle":
        model = pickle.loads(pickle.dumps(model))
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    model.train()
    model[1].train()
    model[5].training = True
    model(X)
    assert all(torch.equal(b, buffers[n]) for n, b in model.named_buffers())
    expected = nn.functional.batch_norm(
        X.mean((2, 3)) @ torch.eye(3, 4),
        model[1].running_mean,
        model[1].running_var,
        training=False,
    )
    model.train()
    got = model[1](torch.nn.functional.pad(X.mean((2, 3), keepdim=True), (0, 0, 0, 0, 0, 1)))
    assert torch.allclose(got.flatten(1), expected, atol=1e-6)

    assert restore_norms(model) == ("1", "5")
    assert model[1].training and model[5].training
    assert all(learns(model).values())
    assert [list(vars(m)) for m in model.modules()] == attributes
    assert not any(m._forward_pre_hooks for m in model.modules())
    model(X)
    assert not torch.equal(model[1].running_mean, buffers["1.running_mean"])


def test_eval_in_a_compiled_model() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    compiled = torch.compile(model, backend="aot_eager")
    compiled(X)
    fix_norms(model, "eval")
    mean = model[1].running_mean.clone()
    model.train()
    assert torch.allclose(compiled(X), model(X), atol=1e-6)
    model.train()
    compiled(X)
    assert torch.equal(model[1].running_mean, mean)
    restore_norms(model)
    compiled(X)
    assert not torch.equal(model[1].running_mean, mean)


def test_restoring_respects_the_model_mode_and_the_users_own_choices() -> None:
    model = net()
    model[1].weight.requires_grad_(False)
    model[5].eval()
    fix_norms(model, "eval", norms=("BatchNorm1d", "BatchNorm2d"))
    restore_norms(model)
    assert not model[1].weight.requires_grad
    assert model[1].training and not model[5].training
    fix_norms(model, "eval")
    model.eval()
    restore_norms(model)
    assert not model[1].training


@pytest.mark.parametrize(
    ("norms", "fixed"),
    [
        (("GroupNorm", "LayerNorm"), ("2", "6")),
        ((nn.BatchNorm1d,), ("5",)),
        ("BatchNorm2d", ("1",)),
        (("SyncBatchNorm", "BatchNorm3d"), ()),
    ],
)
def test_which_norms_is_a_choice(norms, fixed) -> None:  # type: ignore[no-untyped-def]
    model = net()
    assert fix_norms(model, norms=norms) == fixed
    assert {n.split(".")[0] for n, g in learns(model).items() if not g} == set(fixed)
    restore_norms(model)
    assert fix_norms(model, "none", norms=norms) == ()
    assert all(learns(model).values())


def test_sync_batch_norm_and_3d_are_fixed() -> None:
    model = nn.Sequential(nn.SyncBatchNorm(4), nn.BatchNorm3d(4))
    assert fix_norms(model, norms=("SyncBatchNorm", "BatchNorm3d")) == ("0", "1")
    assert not any(learns(model).values())


def test_scope_limits_what_is_fixed() -> None:
    model = nn.ModuleDict({"backbone": net(), "projector": net()})
    assert fix_norms(model, norms=("BatchNorm1d",), scope="projector") == ("projector.5",)


def test_bad_options_and_fixing_twice() -> None:
    with pytest.raises(UnknownOptionError, match="affine, eval, none"):
        fix_norms(net(), "frozen")
    with pytest.raises(UnknownOptionError, match="BatchNorm2d"):
        fix_norms(net(), norms=("BatchNorm",))
    for no_norm in (nn.Conv2d, nn.Module, nn.Sequential, type("Own", (nn.Linear,), {})):
        with pytest.raises(UnknownOptionError, match="a class of normalisation layers"):
            fix_norms(net(), norms=no_norm)
    own = type("RootMeanSquare", (nn.Module,), {})
    assert len(check_norms("eval", [own, nn.InstanceNorm2d, nn.LocalResponseNorm])) == 3
    model = net()
    fix_norms(model)
    with pytest.raises(ExpansionError, match=r"1 is fixed already"):
        fix_norms(model)
