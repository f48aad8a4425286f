# Sourced by the scripts: a virtual environment with the pinned versions, made once, used again.
# TOOLKIT_PYTHON names another interpreter, TOOLKIT_VENV another place for the environment.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${TOOLKIT_VENV:-$root/.venv}
stamp=$venv/.toolkit-$(cat "$root/pyproject.toml" "$root/constraints.txt" | cksum | tr -d ' ')

if [ ! -f "$stamp" ]; then
    echo "setting up $venv (once)" >&2
    "${TOOLKIT_PYTHON:-python3}" -m venv "$venv"
    # torch first: a build that is installed already is not replaced by a larger one
    "$venv/bin/pip" install --quiet --constraint "$root/constraints.txt" torch
    "$venv/bin/pip" install --quiet --constraint "$root/constraints.txt" --editable "$root[test]"
    # without its dependencies: it asks for a backport of dataclasses that breaks Python's own
    "$venv/bin/pip" install --quiet --constraint "$root/constraints.txt" --no-deps rt-utils
    touch "$stamp"
fi
PATH=$venv/bin:$PATH
