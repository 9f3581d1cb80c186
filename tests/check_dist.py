"""Build wheel and sdist of the last commit, twice: the same bytes, with what belongs there alone.

``python tests/check_dist.py dist`` leaves them in ``dist`` and prints their SHA-256.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = {"avalanche_branchtune", "solo_bridge"}
OF_WHEEL = {*PACKAGES, "branchtune.py"}
OF_SDIST = {
    *OF_WHEEL,
    *("CHANGELOG.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md"),
    *("avalanche_branchtune.egg-info", "pyproject.toml", "setup.cfg", "setup.py"),
}


def git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def built(folder: Path, epoch: int) -> dict[str, bytes]:
    """Build both from the files of the last commit, and return name → content.

    :param folder: empty.
    :param epoch: seconds, of all files' times.
    """
    source, out = folder / "source", folder / "dist"
    source.mkdir()
    git("archive", "--output", str(folder / "source.tar"), "HEAD")
    subprocess.run(["tar", "-xmf", folder / "source.tar", "-C", source], check=True)
    for path in source.rglob("*"):  # whatever the umask is
        path.chmod(0o755 if path.is_dir() else 0o644)
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", out, source],
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    (sdist,) = out.glob("*.tar.gz")
    normalise(sdist, epoch)
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def normalise(sdist: Path, epoch: int) -> None:
    """Write an sdist anew without what differs from build to build: times, owners, order."""
    with tarfile.open(sdist) as old:
        members = [(m, old.extractfile(m)) for m in sorted(old.getmembers(), key=lambda m: m.name)]
        with (
            sdist.with_suffix(".new").open("wb") as raw,
            gzip.GzipFile("", "wb", mtime=epoch, fileobj=raw) as packed,
            tarfile.open(mode="w", fileobj=packed, format=tarfile.PAX_FORMAT) as new,
        ):
            for member, content in members:
                plain = tarfile.TarInfo(member.name)
                plain.type, plain.size, plain.mtime = member.type, member.size, epoch
                plain.mode = 0o755 if member.isdir() else 0o644
                new.addfile(plain, content)
    sdist.with_suffix(".new").replace(sdist)


def check_contents(folder: Path) -> None:
    """Refuse what does not belong there, and what is missing."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    tracked = {
        line
        for line in git("ls-tree", "-r", "--name-only", "HEAD").splitlines()
        if line.partition("/")[0] in OF_WHEEL
    }
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    in_wheel = {name for name in in_wheel if ".dist-info/" not in name}
    assert in_wheel == tracked, f"wheel: {sorted(in_wheel ^ tracked)}"
    with tarfile.open(sdist) as archive:
        files = [m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()]
    in_sdist = {name for name in files if name.partition("/")[0] in PACKAGES | {"branchtune.py"}}
    assert in_sdist == tracked, f"sdist: {sorted(in_sdist ^ tracked)}"
    tops = {name.partition("/")[0] for name in files}
    assert tops == OF_SDIST, f"sdist: {sorted(tops ^ OF_SDIST)}"


def main(out: str) -> None:
    epoch = int(git("log", "-1", "--format=%ct"))
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        first, second = built(Path(one), epoch), built(Path(other), epoch)
    assert first.keys() == second.keys()
    differing = [name for name in first if first[name] != second[name]]
    assert not differing, f"built twice, and not the same: {differing}"
    Path(out).mkdir(parents=True, exist_ok=True)
    for name, content in first.items():
        (Path(out) / name).write_bytes(content)
        print(hashlib.sha256(content).hexdigest(), name)
    check_contents(Path(out))
    if git("status", "--porcelain"):
        print("note: what is not committed is not in them", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1])
