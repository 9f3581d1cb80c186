"""Files of tensors that are damaged, or made to take more than they are."""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from avalanche_branchtune.errors import CheckpointError
from solo_bridge.checkpoint import load_solo_checkpoint, save_backbone, save_solo_checkpoint
from solo_bridge.comparison import REFERENCE, Comparison
from solo_bridge.files import read_tensors
from tests.selfsupervised import backbone
from tests.solo_bridge.states import lightning_file, same, trained, values

NAN, INF = float("nan"), float("inf")


# ---- single bits


def ours(path: Path) -> None:
    (save_solo_checkpoint if path.suffix == ".ckpt" else save_backbone)(trained(), path)


def others(path: Path) -> None:
    """What torch and safetensors write by themselves; ``old.pt`` has no checksums at all."""
    state = values(trained().backbone)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        new = path.name != "old.pt"
        content = {"state_dict": state} if path.suffix == ".ckpt" else state
        torch.save(content, path, _use_new_zipfile_serialization=new)


def flips_that_load(write: Callable[[Path], None], path: Path, flips: int) -> int:
    """Of files with a bit the other way, how many are read as other tensors."""
    write(path)
    whole, right = path.read_bytes(), {n: t.clone() for n, t in read_tensors(path).items()}
    rng, loaded = np.random.default_rng(0), 0
    for bit in rng.integers(0, 8 * len(whole), flips):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        model = backbone()
        before = values(model)
        try:
            found = read_tensors(path)
            load_solo_checkpoint(model, path)
        except CheckpointError:
            assert same(values(model), before), "a file that is refused changes nothing"
        else:
            loaded += not same(found, right)
    return loaded


@pytest.mark.parametrize("name", ["a.ckpt", "a.pt", "a.safetensors"])
def test_a_flipped_bit_in_our_files_is_found(tmp_path: Path, name: str) -> None:
    assert flips_that_load(ours, tmp_path / name, 100) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.ckpt", "a.pt", "a.safetensors"])
def test_a_flipped_bit_in_our_files_is_always_found(tmp_path: Path, name: str) -> None:
    assert flips_that_load(ours, tmp_path / name, 1000) == 0


@pytest.mark.parametrize("name", ["a.ckpt", "a.pt"])
def test_a_flipped_bit_in_an_archive_of_torch_is_found(tmp_path: Path, name: str) -> None:
    assert flips_that_load(others, tmp_path / name, 100) == 0


def test_archives_without_checksums_are_read(tmp_path: Path) -> None:
    source, model = trained().backbone, backbone()
    told = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(source.state_dict(), tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(told)
    load_solo_checkpoint(model, tmp_path / "a.pt", strict=True)
    assert same(values(model), values(source))


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_tensors_that_are_not_those_of_the_checksum_are_refused(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    ours(path)
    if suffix == ".ckpt":
        content = torch.load(path)
        next(iter(content["state_dict"].values())).view(-1)[0] += 1
        torch.save(content, path)  # its archive's checksums are right
    else:
        whole = bytearray(path.read_bytes())
        whole[-1] ^= 1
        path.write_bytes(whole)
    with pytest.raises(CheckpointError, match="its tensors are not those"):
        load_solo_checkpoint(backbone(), path)


# ---- tensors that cannot be taken over


def refusal(model: nn.Module, path: Path) -> str:
    before = values(model)
    with pytest.raises(CheckpointError) as error:
        load_solo_checkpoint(model, path)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert str(path) in str(error.value) and "weights_only" not in str(error.value)
    return str(error.value).partition(str(path))[2]


def last_of(model: nn.Module) -> str:
    return [n for n, t in model.state_dict().items() if t.is_floating_point() and t.ndim > 1][-1]


def unfit() -> dict[str, tuple[Callable[[Tensor], Tensor], str]]:
    return {
        "sparse": (lambda t: t.to_sparse(), " is a sparse tensor"),
        "csr": (lambda t: t.flatten(1).to_sparse_csr(), " is a sparse tensor"),
        "meta": (lambda t: t.to("meta"), " is a meta tensor"),
        "quantised": (
            lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
            " is a quantised tensor",
        ),
        "integers": (lambda t: t.to(torch.int8), " has torch.int8, the model's own torch.float32"),
        "complex": (lambda t: t.to(torch.complex64), " has torch.complex64"),
        "bool": (lambda t: t > 0, " has torch.bool"),
        "nan": (lambda t: t.clone().fill_(NAN), " values of 576 that are not finite"),
        "one infinity": (
            lambda t: t.clone().view(-1).put_(torch.tensor([5]), torch.tensor([INF])).view_as(t),
            " has 1 values of 576 that are not finite",
        ),
        "too large": (lambda t: t.double() * 1e300, "not finite as torch.float32"),
    }


@pytest.mark.parametrize("kind", list(unfit()))
def test_nothing_is_copied_before_everything_was_checked(tmp_path: Path, kind: str) -> None:
    model = backbone()
    name = last_of(model)
    change, message = unfit()[kind]
    source = values(model)
    state = {n: t + 1 for n, t in source.items()}
    state[name] = change(state[name])
    torch.save(state, tmp_path / "a.pt")
    said = refusal(model, tmp_path / "a.pt")
    assert name in said and message in said


def test_a_mask_of_infinities_that_the_model_has_too_is_no_damage(tmp_path: Path) -> None:
    def net(value: float) -> nn.Module:
        module = nn.Linear(2, 2)
        module.register_buffer("mask", torch.tensor([0.0, value]))
        return module

    torch.save(net(-INF).state_dict(), tmp_path / "a.pt")
    assert load_solo_checkpoint(net(-INF), tmp_path / "a.pt").complete
    assert "mask has 1 values" in refusal(net(INF), tmp_path / "a.pt")


def test_a_damaged_reference_of_a_comparison(tmp_path: Path) -> None:
    comparison = Comparison(samples=20, size=16, experiences=2, epochs=1)
    folder = tmp_path / "joint-0"
    folder.mkdir()
    torch.save({"a": torch.ones(2)}, folder / REFERENCE)
    with pytest.raises(CheckpointError, match=REFERENCE):
        comparison.run("fine_tuning", tmp_path, bar=False)


# ---- files that take more than they are


def archive(content: bytes, **records: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as members:
        members.writestr("a/data.pkl", content)
        members.writestr("a/version", b"3\n")
        for key, value in records.items():
            members.writestr(f"a/data/{key}", value)
    return stream.getvalue()


class Made:
    """Pickles as a call of a function by name."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


STORAGE = object()


def described(numel: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A pickle of a tensor whose storage has 16 bytes."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if value is STORAGE:
                return ("storage", torch.FloatStorage, "0", "cpu", numel)
            return None

    stream = io.BytesIO()
    rebuild = torch._utils._rebuild_tensor_v2
    Pickler(stream, 2).dump({"w": Made(rebuild, STORAGE, offset, size, stride, False, {})})
    return stream.getvalue()


def greedy() -> dict[str, bytes]:
    """Small files, and what they would take: gigabytes, or other processes' memory."""
    many = b"".join(
        b"cbuiltins\nbytearray\n" + pickle.dumps(60_000, 2)[2:-1] + b"\x85R0" for _ in range(9000)
    )
    text = pickle.dumps("x" * 250_000, 2)[2:-1]
    encoded = text + b"0" + b"c_codecs\nencode\nq\x020h\x02h\x00\x85R0" * 20_000
    big = (8 << 30).to_bytes(8, "little")
    ones = np.ones(4, np.float32).tobytes()
    return {
        "bytearray": archive(pickle.dumps({"w": Made(bytearray, 8 << 30)}, 2)),
        "bytes": archive(pickle.dumps({"w": Made(bytes, 8 << 30)}, 2)),
        "many bytearrays": archive(b"\x80\x02" + many + b"}."),
        "encoded": archive(b"\x80\x02" + encoded + b"}."),
        "memo": archive(b"\x80\x02}r\xff\xff\xff\x7f."),
        "declared bytes": archive(b"\x80\x05\x8e" + big + b"abc."),
        "declared bytearray": archive(b"\x80\x05\x96" + big + b"abc."),
        "declared in a row": b"\x80\x05\x96" + big + b"abc.",
        "storage": archive(described(1 << 31, 0, (1 << 31,), (1,)), **{"0": ones}),
        "storage beyond": archive(described(40, 0, (40,), (1,)), **{"0": ones}),
        "offset": archive(described(4, 1 << 40, (2,), (1,)), **{"0": ones}),
        "stride": archive(described(4, 0, (2,), (1 << 40,)), **{"0": ones}),
        "expanded": archive(described(4, 0, (1 << 40,), (0,)), **{"0": ones}),
        "deep": archive(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
        "safetensors header": (1 << 40).to_bytes(8, "little") + b"{}",
        "safetensors data": _header({"w": {"dtype": "F32", "shape": [1 << 31]}}, 1 << 33),
    }


def _header(content: dict[str, Any], end: int) -> bytes:
    content["w"]["data_offsets"] = [0, end]
    text = json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text + b"1234"


READ = """
import resource, sys, time
from pathlib import Path
from avalanche_branchtune.errors import CheckpointError
from solo_bridge.files import read_tensors
status = Path("/proc/self/status").read_text()
now = 1024 * int(status.partition("VmSize:")[2].split()[0])
resource.setrlimit(resource.RLIMIT_AS, (now + (300 << 20), resource.RLIM_INFINITY))
for path in sys.argv[1:]:
    begin = time.perf_counter()
    try:
        read_tensors(Path(path))
    except CheckpointError as error:
        print(Path(path).name, "|", str(error).replace("\\n", " "))
    assert time.perf_counter() - begin < 10, path
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_small_files_take_little(tmp_path: Path) -> None:
    paths = []
    for name, content in greedy().items():
        suffix = ".safetensors" if name.startswith("safetensors") else ".pt"
        paths.append(tmp_path / f"{name}{suffix}")
        paths[-1].write_bytes(content)
        assert len(content) < 800_000
    os.mkfifo(tmp_path / "fifo.pt")
    paths.append(tmp_path / "fifo.pt")
    done = subprocess.run(
        [sys.executable, "-c", READ, *map(str, paths)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert [line.partition(" |")[0] for line in lines] == [path.name for path in paths]
    assert "weights_only" not in done.stdout and "MemoryError" not in done.stdout


def test_the_greedy_pickles_are_pickles() -> None:
    for name in ("bytearray", "many bytearrays", "encoded", "deep"):
        with zipfile.ZipFile(io.BytesIO(greedy()[name])) as members:
            assert list(pickletools.genops(members.read("a/data.pkl")))[-1][0].name == "STOP"


def test_what_surrounds_the_tensors_is_not_read(tmp_path: Path) -> None:
    """Optimizers and parameters of a checkpoint do not matter, and tensors may share memory."""
    source, model = backbone(), backbone()
    state: dict[str, Any] = dict(source.named_parameters()) | dict(source.named_buffers())
    optimizer = torch.optim.Adam(source.parameters())
    for parameter in source.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    path = lightning_file(tmp_path / "a.ckpt", state, optimizer_states=[optimizer.state_dict()])
    load_solo_checkpoint(model, path, strict=True)
    assert same(values(model), values(source))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "dtype",
    [
        "bool",
        "uint8",
        "int8",
        "int16",
        "int32",
        "int64",
        "float16",
        "bfloat16",
        "float64",
        "complex64",
        "complex128",
        "uint16",
        "uint64",
        "float8_e4m3fn",
    ],
)
def test_every_type_of_numbers(tmp_path: Path, dtype: str, old: bool) -> None:
    kind = getattr(torch, dtype)
    whole = torch.arange(-12, 12).abs().reshape(2, 3, 4).to(kind)
    if old and dtype in ("uint16", "uint64", "float8_e4m3fn"):
        pytest.skip("newer than the format")
    state = {
        "a": whole,
        "view": whole[1].t(),
        "one": whole.reshape(-1)[5],
        "none": torch.empty(0, 3, dtype=kind),
        "wide": whole[:1].expand(3, 3, 4),
    }
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=not old)
    expected = torch.load(tmp_path / "a.pt", weights_only=True)
    found = read_tensors(tmp_path / "a.pt")
    assert list(found) == list(state)
    for name, tensor in found.items():
        assert tensor.dtype == kind and tensor.shape == state[name].shape
        assert tensor.tolist() == expected[name].tolist() == state[name].tolist()
