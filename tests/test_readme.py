"""README's first script runs as it is pasted, without solo-learn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_script_of_an_avalanche_user_runs_as_pasted(tmp_path: Path) -> None:
    section = README.read_text(encoding="utf-8").split("## An Avalanche user")[1]
    script = section.split("```python\n")[1].split("```")[0]
    script += "import sys; assert not {'solo', 'lightning', 'solo_bridge'} & set(sys.modules)\n"
    script = script.replace("samples=600", "samples=96").replace("samples=200", "samples=40")
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Branch-tuning, experience") == 2
    assert done.stdout.count("Top1_Acc_Stream") == 3
