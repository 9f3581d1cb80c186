"""Run in an environment that has only the built distribution: do both packages import rightly?"""

import subprocess
import sys

import avalanche_branchtune

print("avalanche_branchtune", avalanche_branchtune.__version__, avalanche_branchtune.__file__)
assert avalanche_branchtune.BranchTuningPlugin  # which loads what the plugin needs
heavy = {"solo", "lightning", "pytorch_lightning", "hydra", "omegaconf"} & set(sys.modules)
assert not heavy, f"the plugin alone must not import {heavy}"

try:
    from solo_bridge import SoloMethod  # noqa: F401
except ImportError as error:
    assert "pip install" in str(error) and "--no-deps solo-learn" in str(error), error
else:
    raise AssertionError("SoloMethod must refuse to be imported without solo-learn")

doctor = subprocess.run(
    [sys.executable, "-m", "branchtune", "doctor"], capture_output=True, text=True, check=False
)
assert doctor.returncode == 1, doctor
assert "solo-learn" in doctor.stdout and "pip install" in doctor.stdout, doctor.stdout
