"""``python -m bigembed``: the same as ``bigembed``."""

import sys

from bigembed.cli import main

if __name__ == "__main__":
    sys.exit(main())
