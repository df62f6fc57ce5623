"""``python -m bigembed``: the same as ``bigembed``."""

from bigembed.cli import entry

if __name__ == "__main__":
    entry()
