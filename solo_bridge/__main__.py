"""``python -m solo_bridge``: the command ``branchtune``."""

import sys

from solo_bridge.cli import main

if __name__ == "__main__":
    sys.exit(main())
