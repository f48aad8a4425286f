#!/usr/bin/env bash
# Style, types and tests on a fresh machine: scripts/test.sh [PYTEST ARGUMENTS]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

cd "$root"
ruff check .
ruff format --check .
mypy
python -m pytest "$@"
