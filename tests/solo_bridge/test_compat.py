"""Finding, importing and refusing solo-learn."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from avalanche_branchtune.errors import UnsupportedSoloLearnError
from solo_bridge import SoloMethod, available_methods
from solo_bridge.compat import find, load
from solo_bridge.compat.detect import Found, pl_bolts_for
from solo_bridge.compat.schedule import WarmupCosine
from tests.selfsupervised import METHODS, backbone, method


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, where solo-learn can be hidden or replaced."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


HIDE = """
    import importlib.util, sys
    real = importlib.util.find_spec
    importlib.util.find_spec = lambda n, *a: None if n.split(".")[0] == "solo" else real(n, *a)
"""


def test_importing_without_solo_learn_gives_the_exact_command() -> None:
    result = run(HIDE + "    from solo_bridge import SoloMethod")
    assert result.returncode == 1
    assert "UnsupportedSoloLearnError: solo_bridge needs solo-learn" in result.stderr
    assert "pip install --no-deps solo-learn==1.0.2" in result.stderr
    assert 'pip install "avalanche-branchtune[solo]"' in result.stderr


def test_doctor_runs_without_solo_learn() -> None:
    result = run(HIDE + "    from solo_bridge.cli import main\n    sys.exit(main(['doctor']))")
    assert result.returncode == 1, result.stderr
    assert "solo-learn not found" in result.stdout
    assert "pip install --no-deps solo-learn==1.0.2" in result.stdout


def test_doctor_with_solo_learn() -> None:
    command = [sys.executable, "-m", "solo_bridge", "doctor"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"API generation: {load().name}" in result.stdout
    assert "simclr" in result.stdout
    assert f"torch             {torch.__version__.split('+')[0]}" in result.stdout


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("class BaseMethod:\n    def __init__(self, options): ...", "has an API that is not known"),
        ("import a_module_that_is_missing", "cannot be imported: No module named"),
    ],
)
def test_unsupported_solo_learn_is_refused(tmp_path: Path, base: str, message: str) -> None:
    package = tmp_path / "solo" / "methods"
    package.mkdir(parents=True)
    (tmp_path / "solo" / "__init__.py").touch()
    (package / "__init__.py").write_text("METHODS = {}")
    (package / "base.py").write_text(base)
    code = f"""
    import sys
    sys.path.insert(0, {str(tmp_path)!r})
    from solo_bridge import build
    """
    result = run(code)
    assert "UnsupportedSoloLearnError" in result.stderr
    assert message in result.stderr
    assert str(tmp_path) in result.stderr


def test_stand_in_for_pl_bolts_is_there_only_during_the_import() -> None:
    asks = Found(Path("."), "1.0.2", needs_pl_bolts=True)
    assert "pl_bolts" not in sys.modules
    with pl_bolts_for(asks):
        from pl_bolts.optimizers.lr_scheduler import (  # type: ignore[import-not-found]
            LinearWarmupCosineAnnealingLR,
        )

        assert LinearWarmupCosineAnnealingLR is WarmupCosine
    assert not any(n.split(".")[0] == "pl_bolts" for n in sys.modules)
    with pl_bolts_for(Found(Path("."), "1.0.6", needs_pl_bolts=False)):
        assert "pl_bolts" not in sys.modules


def test_a_real_pl_bolts_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["pl_bolts", "pl_bolts.optimizers", "pl_bolts.optimizers.lr_scheduler"]
    real = {n: types.ModuleType(n) for n in names}
    for n, m in real.items():
        monkeypatch.setitem(sys.modules, n, m)
    with pl_bolts_for(Found(Path("."), "1.0.2", needs_pl_bolts=True)):
        assert sys.modules["pl_bolts"] is not real["pl_bolts"], "it lacks the name: not used"
    assert sys.modules["pl_bolts"] is real["pl_bolts"], "and is put back"
    real[names[-1]].LinearWarmupCosineAnnealingLR = object  # type: ignore[attr-defined]
    with pl_bolts_for(Found(Path("."), "1.0.2", needs_pl_bolts=True)):
        assert sys.modules["pl_bolts"] is real["pl_bolts"]


def test_what_was_found() -> None:
    found = find()
    assert found.location is not None
    assert found.location.name == "solo"
    assert found.needs_pl_bolts == (load().name == "release 1.0.2")


def test_available_methods() -> None:
    methods = available_methods()
    assert {n for n, why in methods.items() if why is None} >= set(METHODS)
    assert "base" not in methods
    assert "linear" not in methods
    assert len(methods) == {"release 1.0.2": 14, "main branch": 19}[load().name]


@pytest.mark.parametrize("steps", [(10, 100), (0, 50), (1, 7), (5.0, 40.0)])
def test_warmup_cosine_closed_form(steps: tuple[float, float]) -> None:
    warmup, total = steps
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = WarmupCosine(optimizer, warmup, total, warmup_start_lr=0.5, eta_min=0.1)
    rates = []
    for _ in range(int(total) + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    expected = [
        0.5 + 1.5 * t / max(1, warmup - 1)
        if t < warmup
        else 0.1 + 1.9 * (1 + math.cos(math.pi * (t - warmup) / (total - warmup))) / 2
        for t in range(int(total) + 1)
    ]
    assert rates == pytest.approx(expected)


def test_warmup_cosine_against_the_main_branchs_own() -> None:
    if load().name != "main branch":
        pytest.skip("needs solo-learn's main branch, which has this scheduler")
    rates: list[list[float]] = []
    for make in (WarmupCosine, load().warmup_cosine):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
        settings = {"warmup_epochs": 5, "max_epochs": 30, "warmup_start_lr": 0.5, "eta_min": 0.1}
        scheduler: Any = make(optimizer, **settings)
        rates.append([])
        for _ in range(30):
            rates[-1].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    assert rates[0] == pytest.approx(rates[1])


@pytest.mark.parametrize("name", METHODS)
def test_method_can_be_copied_and_pickled(name: str) -> None:
    model = method(name).eval()
    views = [torch.randn(6, 3, 8, 8) for _ in range(2)]
    expected = model.loss(views)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.loss(views), expected)
        with torch.no_grad():
            twin.backbone[0].weight.zero_()
        assert torch.equal(model.loss(views), expected)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("size", "stem"), [(32, (3, 3)), (96, (7, 7))])
def test_resnet_stem_follows_the_image_size(name: str, size: int, stem: tuple[int, int]) -> None:
    net = SoloMethod(name, "resnet18", image_size=size, num_classes=10)
    assert net.backbone.conv1.kernel_size == stem
    assert net.features_dim == 512
    assert net.eval()(torch.randn(2, 3, size, size)).shape == (2, 512)


def test_own_backbone_is_used_itself_and_copied_for_momentum() -> None:
    own = backbone()
    model = SoloMethod("byol", own, image_size=8)
    assert model.backbone is own
    online, momentum = model.solo.momentum_pairs[0]
    assert online is own
    assert momentum is not own
    pairs = zip(own.parameters(), momentum.parameters(), strict=True)
    assert all(torch.equal(a, b) and b is not a for a, b in pairs)
    assert model.features_dim == 8


def test_error_is_an_import_error() -> None:
    assert issubclass(UnsupportedSoloLearnError, ImportError)


def test_vision_transformer_is_branch_tuned_with_linear_branches() -> None:
    from avalanche_branchtune import BranchTuningPlugin
    from tests.selfsupervised import VIEW, strategy, stream

    torch.manual_seed(0)
    sized = {"img_size": 8, "patch_size": 4}
    model = SoloMethod(
        "simclr", "vit_tiny", image_size=8, augmentations=[VIEW], backbone_kwargs=sized
    )
    plugin = BranchTuningPlugin(
        linear=4, norms=("LayerNorm",), norm_scope="solo", pretrained=True, verbose=False
    )
    run = strategy(model, [plugin], train_epochs=1)
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    run.train(stream().train_stream[0])
    after = model.backbone.state_dict()
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    summary = plugin.summaries[0]
    assert summary.layers == 1 + 12 * 4, "patch embedding, and qkv, proj, fc1, fc2 of each block"
    assert summary.norms == 25
    assert {k for k in moved if "norm" in k} == set()
    weights = {k for k in before if k.endswith("weight") and "norm" not in k}
    assert weights <= moved
    assert not {k for k in moved if k.endswith("bias")}
