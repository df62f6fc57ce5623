#!/usr/bin/env bash
# bash launch/train.sh [overrides]: sets up what is missing and trains; without overrides, the default job on one CPU.
# It stays in the caller's folder: a relative path in an override means what it says, and the run's folder lies there.
set -euo pipefail

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
bash "$here/setup.sh" runtime
exec "$here/../.venv/bin/bigembed" train "$@"
