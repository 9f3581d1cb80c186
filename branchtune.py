"""``python -m branchtune``: the command ``branchtune``, also for ``torchrun -m branchtune``."""

import sys

from solo_bridge.cli import main

if __name__ == "__main__":
    sys.exit(main())
