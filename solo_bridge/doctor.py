"""What is installed, what will work, and what to do."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

from avalanche_branchtune.errors import UnsupportedSoloLearnError
from solo_bridge.compat import COMMANDS, find, load

NEEDED = {  # distribution → module; the first group serves the plugin alone
    "avalanche-lib": "avalanche",
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "scikit-learn": "sklearn",
    "matplotlib": "matplotlib",
    "lightning": "lightning",
    "pytorch-lightning": "pytorch_lightning",
    "torchmetrics": "torchmetrics",
    "omegaconf": "omegaconf",
    "timm": "timm",
    "einops": "einops",
    "scipy": "scipy",
    "tqdm": "tqdm",
}


CLI = ("hydra-core", "omegaconf", "hydra-submitit-launcher")
"""What the extra [cli] has."""

TOGETHER = "install torch and torchvision together, both from one index"


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def examine() -> tuple[str, bool]:
    """Examine the installation.

    :return: lines to be printed, and whether the bridge works.
    """
    lines = [f"Python {platform.python_version()}"]
    missing = []
    for distribution, module in NEEDED.items():
        present = "present" if importlib.util.find_spec(module) else "MISSING"
        state = _version(distribution) or present
        if state == "MISSING":
            missing.append(distribution)
        lines.append(f"  {distribution:<18}{state}")
    for module in ("torch", "torchvision"):
        try:
            importlib.import_module(module)
        except Exception as error:  # torchvision of another build fails in words of its own
            what = str(error).splitlines()[0] if str(error) else type(error).__name__
            lines.append(f"To do: {module} cannot be imported ({what}): {TOGETHER}")
            return "\n".join(lines), False
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    lines.append(f"  {'GPU':<18}{gpu}")

    hydra = [f"{name} {_version(name) or 'MISSING'}" for name in CLI]
    sbatch = "found" if shutil.which("sbatch") else "not found"
    lines.append(f"branchtune run: {', '.join(hydra)}; SLURM's sbatch {sbatch}")

    found = find()
    where = "not found" if found.location is None else f"at {found.location}"
    lines.append(f"solo-learn {found.version or ''} {where}".replace("  ", " "))
    if missing:
        lines.append(f"To do: {COMMANDS[0]}   (missing: {', '.join(missing)})")
    try:
        generation = load()
    except UnsupportedSoloLearnError as error:
        lines += ["The plugin avalanche_branchtune works; the bridge does not:", str(error)]
        return "\n".join(lines), False
    from solo_bridge.method import available_methods

    bolts = "a stand-in serves while it is imported" if found.needs_pl_bolts else "not needed"
    if found.needs_pl_bolts and importlib.util.find_spec("pl_bolts"):
        bolts = "installed; a stand-in serves where it does not work"
    methods = available_methods()
    lines += [
        f"API generation: {generation.name}; pl_bolts: {bolts}",
        "methods that work: " + ", ".join(n for n, why in methods.items() if why is None),
    ]
    lines += [f"  not {n}: {why}" for n, why in methods.items() if why is not None]
    return "\n".join(lines), not missing
