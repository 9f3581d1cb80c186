"""Compiled networks compute what they compute, and notice what is done to them."""

from __future__ import annotations

import copy
import logging
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avalanche_branchtune import expand
from solo_bridge import specification
from solo_bridge.compiling import Compiled
from tests.selfsupervised import method, stream, weights

# torch, when it makes inputs of a graph of what is no leaf.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")

NO_COMPILER = "solo_bridge.compiling.torch.compile"


def trained(spec: str, *, compile: bool, **options: Any) -> tuple[Tensor, Any]:
    torch.manual_seed(0)
    made = specification.build(
        spec,
        method("byol"),
        options=options,
        optimizer="sgd",
        lr=0.05,
        train_mb_size=20,
        train_epochs=1,
        evaluator=None,
        compile=compile,
    )
    torch.manual_seed(1)
    for experience in stream(5).train_stream[:3]:
        made.train(experience)
    return weights(made.model), made


SPECS: dict[str, dict[str, Any]] = {
    "branch_tuning": {"branch_tuning": {"verbose": False}},
    "branch_tuning in eval mode": {"branch_tuning": {"verbose": False, "norm_mode": "eval"}},
    "cassle": {"cassle": {"hidden": 16}},
    "nap": {},
    "clr": {"clr": {"verbose": False}},
    "der": {"der": {"memory": 20, "batch_size": 10}},
}


@pytest.mark.slow  # a compiler runs
@pytest.mark.parametrize("name", SPECS)
def test_weights_are_those_without_compiling_but_for_rounding(name: str) -> None:
    spec = name.split()[0]
    torch._dynamo.reset()
    expected, _ = trained(spec, compile=False, **SPECS[name])
    found, made = trained(spec, compile=True, **SPECS[name])
    assert made.compiled.active
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def backends(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let torch compile without a compiler of machine code; say what was compiled."""
    compiled: list[str] = []
    make = torch.compile

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(str(len(graph.graph.nodes)))
        return graph.forward

    monkeypatch.setattr(
        NO_COMPILER, lambda function, **options: make(function, backend=backend, **options)
    )
    torch._dynamo.reset()
    return compiled


def test_each_form_of_a_network_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = backends(monkeypatch)
    expected, _ = trained("branch_tuning", compile=False, branch_tuning={"verbose": False})
    assert not compiled
    found, made = trained("branch_tuning", compile=True, branch_tuning={"verbose": False})
    torch.testing.assert_close(found, expected)
    # Backbone, momentum backbone and projector; the backbones once more with branches.
    assert len(compiled) == 5
    assert "forward" not in vars(made.model.backbone)
    copied = pickle.loads(pickle.dumps(made.compiled))
    assert copied.active and copy.deepcopy(made.compiled).active


def test_hooks_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    backends(monkeypatch)
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    compiled, seen = Compiled(True), []
    x = torch.randn(4, 2)

    def run() -> None:
        with compiled.networks_of(model):
            model.backbone(x)

    run()
    handle = model.backbone.register_forward_hook(lambda *_: seen.append("outside"))
    run()
    handle.remove()
    inner = model.backbone[0].register_forward_hook(lambda *_: seen.append("inside"))
    run()
    inner.remove()
    run()
    assert seen == ["outside", "inside"]


def test_a_replaced_forward_is_called_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    backends(monkeypatch)
    model, compiled = nn.Module(), Compiled(True)
    model.backbone = nn.Linear(2, 2)
    model.backbone.forward = own = lambda x: x + 1
    with compiled.networks_of(model), compiled.networks_of(model):
        assert torch.equal(model.backbone(torch.zeros(1, 2)), torch.ones(1, 2))
    assert model.backbone.forward is own


def test_a_network_that_is_one_layer_has_its_branches(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_graphs = backends(monkeypatch)
    model, compiled = nn.Module(), Compiled(True)
    model.backbone = nn.Conv2d(3, 4, 3)
    x = torch.randn(2, 3, 5, 5)

    def run() -> Tensor:
        with compiled.networks_of(model), compiled.networks_of(model):
            return model.backbone(x)

    before = run()
    expand(model.backbone)
    model.backbone.branch_1x3.data.fill_(1.0)
    assert not torch.allclose(run(), before)
    torch.testing.assert_close(run(), model.backbone(x))
    assert compiled_graphs and "forward" not in vars(model.backbone)


def test_without_a_compiler_it_says_so_once_and_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make = torch.compile

    def backend(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(
        NO_COMPILER, lambda function, **options: make(function, backend=backend, **options)
    )
    torch._dynamo.reset()
    with caplog.at_level(logging.WARNING):
        found, made = trained("fine_tuning", compile=True)
    assert torch.equal(found, trained("fine_tuning", compile=False)[0])
    assert not made.compiled.active
    assert len([r for r in caplog.records if "No working C++ compiler" in r.message]) == 1
