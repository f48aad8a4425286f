#!/usr/bin/env bash
# Style, types and tests on a fresh machine: scripts/test.sh [PYTEST ARGUMENTS]
# As many tests at once as there are cores, four at most; TOOLKIT_TEST_PROCESSES=0 runs one after another.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

cd "$root"
ruff check .
ruff format --check .
mypy
export OMP_WAIT_POLICY=passive # threads that wait must not keep the other tests from running
python -m pytest --numprocesses "${TOOLKIT_TEST_PROCESSES:-logical}" --maxprocesses 4 --dist loadfile "$@"
