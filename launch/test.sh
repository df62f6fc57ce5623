#!/usr/bin/env bash
# bash launch/test.sh [pytest arguments]: sets up what is missing and runs the tests in two processes, in the checkout's root.
set -euo pipefail

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
bash "$here/setup.sh" test
cd -- "$here/.."
exec .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
