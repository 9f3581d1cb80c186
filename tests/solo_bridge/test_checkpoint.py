"""Checkpoints of solo-learn, read and written."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader

from avalanche_branchtune import compress, expand
from avalanche_branchtune.errors import CheckpointError
from solo_bridge import SoloMethod
from solo_bridge.checkpoint import (
    load_solo_checkpoint,
    save_backbone,
    save_solo_checkpoint,
)
from solo_bridge.compat import MethodSettings, load
from solo_bridge.compat.checkpoint_keys import MADE_IN_TRAINING
from solo_bridge.defaults import DEFAULTS
from solo_bridge.files import CHECKSUM
from tests.oracles.solo_training import BATCH, Views, bare, fit
from tests.selfsupervised import (
    ALL_METHODS,
    METHODS,
    backbone,
    method,
    small,
    strategy,
    stream,
)
from tests.solo_bridge.states import lightning_file, same, trained, values

MAIN = load().name == "main branch"
needs_main = pytest.mark.skipif(not MAIN, reason="solo-learn's main branch is not installed")
X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def without_classifier(model: SoloMethod) -> dict[str, Tensor]:
    return {n: t for n, t in values(model.solo).items() if "classifier" not in n}


# ---- reading


@pytest.mark.parametrize("generation", ["main", "1.0.2"])
@pytest.mark.parametrize("name", ALL_METHODS)
def test_a_method_comes_back_whole(tmp_path: Path, name: str, generation: str) -> None:
    source, model = trained(name), method(name, seed=2)
    path = save_solo_checkpoint(source, tmp_path / "a.ckpt", generation=generation)
    classifier = values(model.solo.classifier)
    report = load_solo_checkpoint(model, path, strict=True)
    assert same(without_classifier(model), without_classifier(source))
    assert same(values(model.solo.classifier), classifier), "it is not trained, so left alone"
    n = len(without_classifier(model))
    assert str(report).startswith(f"matched {n} of {n} tensors with {path}")
    assert report.complete and set(report.matched) == set(without_classifier(model))


@pytest.mark.parametrize("name", ALL_METHODS)
def test_what_solo_learn_wrote_after_training_is_complete(tmp_path: Path, name: str) -> None:
    """SwAV, DeepClusterV2 and All4One hold more then than their constructors make."""
    module = bare(name, "none")
    views = Views(True, DEFAULTS[name].large_views)
    fit(module, DataLoader(views, batch_size=BATCH, drop_last=True))
    path = tmp_path / "a.ckpt"
    if MAIN:
        module.trainer.save_checkpoint(path)
    else:
        lightning_file(path, values(module))
    fresh, before = method(name, seed=2), method(name, seed=2)
    report = load_solo_checkpoint(fresh, path, strict=True)
    kept = without_classifier(fresh)
    assert same(kept, {n: t for n, t in values(module).items() if n in kept})
    assert kept.keys() == without_classifier(before).keys(), "nothing is added to the model"
    made = MADE_IN_TRAINING.get(name, frozenset())
    assert made <= set(report.ignored) and made <= values(module).keys()
    if made:  # a method that was trained has them too, and files of others need not
        strategy(fresh, train_epochs=1).train(stream().train_stream[0])
        assert load_solo_checkpoint(fresh, path, strict=True).complete
        untrained = save_solo_checkpoint(before, tmp_path / "b.ckpt")
        assert load_solo_checkpoint(fresh, untrained, strict=True).complete


@pytest.mark.parametrize("part", ["encoder", "backbone"])
def test_a_backbone_starts_from_a_checkpoint_of_cassle(tmp_path: Path, part: str) -> None:
    source, model = backbone(), backbone()
    state = {f"{part}.{n}": t for n, t in values(source).items()}
    others = {f"frozen_{part}.{n}": t + 1 for n, t in values(source).items()}
    others |= {"projector.0.weight": torch.ones(2, 2), "classifier.bias": torch.ones(3)}
    report = load_solo_checkpoint(model, lightning_file(tmp_path / "a.ckpt", {**others, **state}))
    assert same(values(model), values(source))
    assert report.matched == tuple(values(source))
    assert report.complete and report.ignored == tuple(others)
    assert str(report).startswith("matched 8 of 8 tensors")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_plain_weights(tmp_path: Path, suffix: str) -> None:
    source = trained()
    path = save_backbone(source, tmp_path / f"new/folder/weights{suffix}")
    model, other = backbone(), method(seed=2)
    projector = values(other.solo.projector)
    assert load_solo_checkpoint(model, path, strict=True).complete
    assert same(values(model), values(source.backbone))
    report = load_solo_checkpoint(other, path)
    assert same(values(other.backbone), values(source.backbone))
    assert same(values(other.solo.projector), projector)
    assert report.missing == tuple(f"projector.{n}" for n in projector)


def test_momentum_networks_follow_a_backbone_that_was_loaded(tmp_path: Path) -> None:
    """Else the teacher would be a random network, which the pretrained student is to imitate."""
    source, model = trained("byol"), method("byol", seed=2)
    pairs = dict(model.solo.momentum_pairs)
    head = values(pairs[model.solo.projector])
    report = load_solo_checkpoint(model, save_backbone(source, tmp_path / "a.pt"))
    assert same(values(pairs[model.backbone]), values(source.backbone))
    assert same(values(pairs[model.solo.projector]), head)
    momentum = f"momentum_{'backbone' if MAIN else 'encoder'}"
    assert report.copied == tuple(f"{momentum}.{n}" for n in values(source.backbone))
    assert not set(report.copied) & set(report.missing)
    assert "copied from the online network: momentum_" in str(report)
    # A teacher of its own in the file is kept.
    path = save_solo_checkpoint(source, tmp_path / "b.ckpt")
    assert load_solo_checkpoint(model, path).copied == ()
    assert same(values(pairs[model.backbone]), values(source.solo.momentum_pairs[0][1]))


def test_names_that_begin_with_encoder_may_be_the_models_own(tmp_path: Path) -> None:
    """As torchvision's vision transformers have them."""

    def net() -> nn.Module:
        return nn.ModuleDict({"encoder": nn.Linear(2, 3), "stem": nn.Linear(2, 2)})

    source, model = net(), net()
    report = load_solo_checkpoint(model, save_backbone(source, tmp_path / "a.pt"), strict=True)
    assert report.complete and same(values(model), values(source))


def test_half_precision_and_devices_of_the_file_do_not_matter(tmp_path: Path) -> None:
    source, model = backbone().half(), backbone()
    load_solo_checkpoint(model, save_backbone(source, tmp_path / "a.pt"))
    assert torch.equal(values(model)["0.weight"], values(source)["0.weight"].float())
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_report_says_what_does_not_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, model = backbone(), backbone()
    source.add_module("fc", nn.Linear(8, 10))
    model.add_module("fc", nn.Linear(8, 4, bias=False))
    state = values(source)
    del state["1.bias"]
    before, path = values(model), lightning_file(tmp_path / "a.ckpt", state)
    with pytest.raises(CheckpointError, match=r"strict, but matched 7 of 9") as refused:
        load_solo_checkpoint(model, path, strict=True)
    assert same(values(model), before)
    report = load_solo_checkpoint(model, path)
    assert report.missing == ("1.bias",) and report.unexpected == ("fc.bias",)
    assert report.mismatched == {"fc.weight": ((10, 8), (4, 8))}
    assert not report.complete
    text = str(report)
    assert "missing in the file: 1.bias" in text
    assert "unknown to the model: fc.bias" in text
    assert "of another shape: fc.weight (10, 8) instead of (4, 8)" in text
    assert text in str(refused.value) and text in caplog.text, "nothing is left out silently"
    changed = {n for n, t in values(model).items() if not torch.equal(t, before[n])}
    assert changed == {"0.weight", "3.weight", "3.bias"}, "whatever differs in the file, and fits"


def test_a_backbone_of_another_shape_is_refused(tmp_path: Path) -> None:
    model, state = backbone(), values(backbone())
    state["3.weight"] = torch.zeros(8, 8, 5, 5)
    before, path = values(model), lightning_file(tmp_path / "a.ckpt", state)
    with pytest.raises(CheckpointError, match=r"cifar_stem(?s:.*)3.weight \(8, 8, 5, 5\)"):
        load_solo_checkpoint(model, path)
    assert same(values(model), before)


def test_a_file_of_another_width_is_refused(tmp_path: Path) -> None:
    """Only counters of batches fit; they do not count."""
    model = method(seed=2)
    before = values(model)
    path = save_backbone(backbone(16), tmp_path / "a.pt")
    shapes = r"width: \w+\.0\.weight \(16, 3, 3, 3\) instead of \(8, 3, 3, 3\)"
    with pytest.raises(CheckpointError, match=shapes) as error:
        load_solo_checkpoint(model, path)
    assert same(values(model), before) and str(path) in str(error.value)


def test_a_file_without_a_tensor_that_fits_is_refused(tmp_path: Path) -> None:
    model = method(seed=2)
    before = values(model)
    path = save_backbone(torchvision.models.resnet18(), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="no tensor that fits the backbone") as error:
        load_solo_checkpoint(model, path)
    assert same(values(model), before)
    there, here = str(error.value).split("the model has")
    assert str(path) in there and "conv1.weight" in there and ".0.weight" in here


@needs_main
def test_a_checkpoint_that_lightning_wrote(tmp_path: Path) -> None:
    """SimSiam's holds a whole scheduler and optimizer beside the tensors."""
    from lightning.pytorch import Trainer

    module = load().construct(
        "simsiam",
        MethodSettings(backbone=featured(backbone()), method_kwargs=small("simsiam")),
    )
    module.scheduler = "warmup_cosine"
    trainer = Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, DataLoader([(i, [X[i], X[i] + 1], i) for i in range(4)], batch_size=4))  # type: ignore[arg-type]
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    names = torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / "a.ckpt")
    assert "solo.methods.base.static_lr" in names and "builtins.getattr" in names
    model = method("simsiam", seed=2)
    load_solo_checkpoint(model, tmp_path / "a.ckpt", strict=True)
    expected = {n: t for n, t in values(module).items() if "classifier" not in n}
    assert same(without_classifier(model), expected)


def featured(net: nn.Module) -> nn.Module:
    net.num_features = 8  # type: ignore[assignment]
    return net


def test_expanded_models_are_refused(tmp_path: Path) -> None:
    model = method()
    path = save_solo_checkpoint(model, tmp_path / "a.ckpt")
    expand(model)
    tasks = (load_solo_checkpoint, save_solo_checkpoint, save_backbone)
    for task in tasks:
        with pytest.raises(CheckpointError, match=rf"{task.__name__}: .* compress it first"):
            task(model, path)  # type: ignore[operator]
    compress(model)
    load_solo_checkpoint(model, path, strict=True)


# ---- writing


def read_as_main_linear_does(path: Path, net: nn.Module) -> list[str]:
    """main_linear.py of the main branch: names with "backbone", less "backbone."."""
    state = torch.load(path, map_location="cpu")["state_dict"]
    kept = {n.replace("backbone.", ""): t for n, t in state.items() if "backbone" in n}
    return net.load_state_dict(kept, strict=False).missing_keys


def read_as_1_0_2_does(path: Path, net: nn.Module) -> list[str]:
    """main_linear.py of release 1.0.2: names with "encoder", less "encoder."."""
    state = torch.load(path)["state_dict"]
    kept = {n.replace("encoder.", ""): t for n, t in state.items() if "encoder" in n}
    return net.load_state_dict(kept, strict=False).missing_keys


def as_main_linear_builds(name: str) -> nn.Module:
    """solo-learn's backbone for CIFAR, of the generation that is installed."""
    if MAIN:
        from solo.methods.base import BaseMethod

        net: nn.Module = BaseMethod._BACKBONES[name](method="byol", **sizes(name))
    else:
        from solo.utils import backbones

        make = torchvision.models.resnet18 if name == "resnet18" else getattr(backbones, name)
        net = make(**sizes(name))
    if name == "resnet18":
        net.fc = nn.Identity()
        net.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=2, bias=False)
        net.maxpool = nn.Identity()
    return net


def sizes(name: str) -> dict[str, int]:
    return {"img_size": 8, "patch_size": 4} if name == "vit_tiny" else {}


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny"])
def test_solo_learns_linear_evaluation_reads_every_tensor(tmp_path: Path, name: str) -> None:
    # With a momentum network, whose names hold the backbone's.
    source = trained("byol", backbone=name, backbone_kwargs=sizes(name))
    readers = {"main": read_as_main_linear_does, "1.0.2": read_as_1_0_2_does}
    for generation, read in readers.items():
        path = save_solo_checkpoint(
            source, tmp_path / generation / "last.ckpt", generation=generation
        )
        net = as_main_linear_builds(name)
        assert read(path, net) == []
        assert same(values(net), values(source.backbone))
        other = readers["1.0.2" if generation == "main" else "main"]
        assert set(other(path, net)) >= dict(net.named_parameters()).keys(), "so there is a choice"
        written = torch.load(path)
        lightnings = {"epoch", "global_step", "pytorch-lightning_version", "state_dict"}
        assert set(written) == {*lightnings, CHECKSUM}
        assert len(written["state_dict"]) == len(values(source.solo))


@needs_main
@pytest.mark.parametrize("name", METHODS)
def test_solo_learns_knn_builds_the_method_and_reads_every_tensor(
    tmp_path: Path, name: str
) -> None:
    from solo.methods import METHODS as CLASSES

    source = trained(name, backbone="resnet18", num_classes=100)
    save_solo_checkpoint(source, tmp_path / "run/last.ckpt")
    folder = tmp_path / "run"
    assert sorted(os.listdir(folder)) == ["args.json", "last.ckpt"]
    # main_knn.py: the first checkpoint of the folder, and the settings beside it.
    path = next(folder / f for f in os.listdir(folder) if f.endswith(".ckpt"))
    args = json.loads((folder / "args.json").read_text())
    cls = CLASSES[args["method"]]
    model = cls.load_from_checkpoint(path, strict=False, cfg=OmegaConf.create(args))
    assert same(values(model), values(source.solo))
    model.eval(), source.eval()
    out = model(X)
    torch.testing.assert_close(out["feats"], source(X))
    torch.testing.assert_close(out["z"], source.solo.projector(source(X)))


@pytest.mark.parametrize(("there", "asked"), [("meta", None), ("cpu", "meta"), ("cpu", None)])
def test_tensors_are_written_where_the_method_is(
    tmp_path: Path, there: str, asked: str | None
) -> None:
    """Lightning moves a method to the device of its file; here meta stands for a GPU."""
    source = method("byol").to(there)
    written = torch.load(save_solo_checkpoint(source, tmp_path / "a.ckpt", device=asked))
    devices = {t.device.type for t in written["state_dict"].values()}
    assert devices == {asked or there}
    assert {t.device.type for t in values(source).values()} == {there}


def test_args_say_what_the_method_was_built_from(tmp_path: Path) -> None:
    model = method("byol", tau=(0.9, 1.0), num_classes=100)
    args = {"data": {"dataset": "imagenet100"}, "seed": 5, "path": Path("a")}
    save_solo_checkpoint(model, tmp_path / "a.ckpt", args=args)
    main = json.loads((tmp_path / "args.json").read_text())
    assert main["method"] == "byol" and main["momentum"] == {"base_tau": 0.9, "final_tau": 1.0}
    assert main["method_kwargs"] == {**small("byol")}
    assert main["backbone"]["name"] == "Sequential"
    assert main["data"] == {
        "dataset": "imagenet100",
        "num_classes": 100,
        "num_large_crops": 2,
        "num_small_crops": 0,
    }
    assert main["seed"] == 5 and main["path"] == "a"
    save_solo_checkpoint(model, tmp_path / "a.ckpt", generation="1.0.2")
    flat = json.loads((tmp_path / "args.json").read_text())
    assert flat["encoder"] == "Sequential" and flat["backbone_args"]["cifar"] is True
    assert flat["base_tau_momentum"] == 0.9 and flat["proj_hidden_dim"] == 16
    assert flat["optimizer"] == "sgd" and flat["lars"] is True


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_other_libraries_load_a_backbone_strictly(tmp_path: Path, suffix: str) -> None:
    source = trained(backbone="resnet18", cifar_stem=False)
    source.to(memory_format=torch.channels_last)
    path = save_backbone(source, tmp_path / f"a{suffix}")
    if suffix == ".pt":
        state = torch.load(path, weights_only=True)
    else:
        from safetensors.torch import load_file

        state = load_file(path)
    assert all(t.is_contiguous() for t in state.values())
    plain = torchvision.models.resnet18()
    plain.fc = nn.Identity()  # type: ignore[assignment]
    source.eval()
    for net in (plain, timm.create_model("resnet18", num_classes=0)):
        net.load_state_dict(state, strict=True)
        torch.testing.assert_close(net.eval()(X), source(X))


def test_names_that_nothing_would_read_are_refused(tmp_path: Path) -> None:
    model = method()
    with pytest.raises(CheckpointError, match=r"a\.pth: expected a name ending in \.ckpt"):
        save_solo_checkpoint(model, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"\.pt or \.pth or \.safetensors"):
        save_backbone(model, tmp_path / "a")
    with pytest.raises(ValueError, match=r"generation=…\): expected one of main, 1\.0\.2"):
        save_solo_checkpoint(model, tmp_path / "a.ckpt", generation="2")
    assert os.listdir(tmp_path) == []


def test_saving_changes_nothing(tmp_path: Path) -> None:
    model = trained("byol")
    before, twin = values(model), copy.deepcopy(model)
    save_solo_checkpoint(model, tmp_path / "a.ckpt")
    save_backbone(model, tmp_path / "a.pt")
    assert same(values(model), before)
    assert torch.equal(model.loss([X, X + 1]), twin.loss([X, X + 1]))


def test_the_state_of_a_method(tmp_path: Path) -> None:
    source, model = trained(seed=1), trained(seed=2)
    torch.save(source.state_dict(), tmp_path / "a.pt")
    load_solo_checkpoint(model, tmp_path / "a.pt")
    assert same(values(model.backbone), values(source.backbone))
