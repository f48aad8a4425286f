#!/usr/bin/env bash
# On a machine without internet: scripts/install_offline.sh FOLDER
# Joins the parts that scripts/pack_offline.sh made, checks every wheel, and installs them over the system's
# torch and CuPy into the environment that the other scripts use.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${TOOLKIT_VENV:-$root/.venv}
folder=$(cd "${1:?scripts/install_offline.sh FOLDER}" && pwd)
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT

cp "$folder"/*.whl "$wheels"
for first in "$folder"/*.part00; do
    [ -e "$first" ] || continue
    cat "${first%00}"?? > "$wheels/$(basename "${first%.part00}")"
done
(cd "$wheels" && sha256sum --quiet --check "$folder/SHA256")
"${TOOLKIT_PYTHON:-python3}" -m venv --system-site-packages "$venv"
"$venv/bin/pip" install --quiet --no-index --no-deps "$wheels"/*.whl
# the checkout is what runs, so that tests and benchmarks measure it
packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$root" > "$packages/checkout.pth"
printf '#!/bin/sh\nexec "%s/bin/python" -m toolkit "$@"\n' "$venv" > "$venv/bin/toolkit"
chmod +x "$venv/bin/toolkit"
touch "$venv/.toolkit-$(cat "$root/pyproject.toml" "$root/constraints.txt" | cksum | tr -d ' ')"
echo "$venv: ready, $(find "$wheels" -name '*.whl' | wc -l) wheels" >&2
