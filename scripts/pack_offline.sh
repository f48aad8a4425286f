#!/usr/bin/env bash
# For a GPU machine without internet: scripts/pack_offline.sh OUT [PYTHON] [CUDA] [MIB]
# Collects this project and what it needs as wheels for the target's Python (default 3.12) and CUDA (13), in
# parts of at most MIB mebibytes (default 60). torch and CuPy are left out: such a machine brings them along.
# There: scripts/install_offline.sh OUT, then TOOLKIT_OFFLINE=1 scripts/gpu_check.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

out=$(realpath -m "${1:?scripts/pack_offline.sh OUT [PYTHON] [CUDA] [MIB]}")
python=${2:-3.12} cuda=${3:-13} mib=${4:-60}
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
target=(--only-binary :all: --implementation cp --python-version "$python"
    --abi "cp${python/./}" --abi abi3 --abi none)
for platform in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux_2_12 manylinux2010 manylinux1; do
    target+=(--platform "${platform}_x86_64")
done

cd "$root"
echo "== wheels for Python $python, CUDA $cuda" >&2
python3 - "$cuda" > "$wheels/needed.txt" << 'PYTHON'
import sys, tomllib
with open("pyproject.toml", "rb") as file:
    needed = tomllib.load(file)["project"]["dependencies"]
print("\n".join(each for each in needed if not each.startswith("torch")))
print(f"nvidia-dali-cuda{sys.argv[1]}0>=2.4\nnumba-cuda>=0.20\npytest\nhypothesis\npsutil\nhighdicom\nsimpleitk")
PYTHON
pip download --quiet --dest "$wheels" --constraint constraints.txt "${target[@]}" --requirement "$wheels/needed.txt"
# MONAI and Kornia ask for torch, which is there
pip download --quiet --dest "$wheels" --constraint constraints.txt "${target[@]}" --no-deps monai einops kornia kornia-rs

mkdir -p "$out"
rm -f "$out"/*.part?? "$out"/*.whl "$out/SHA256"
(cd "$wheels" && sha256sum -- *.whl) > "$out/SHA256"
for wheel in "$wheels"/*.whl; do
    if [ "$(stat -c %s "$wheel")" -gt $((mib * 1048576)) ]; then
        split --bytes "${mib}M" --numeric-suffixes "$wheel" "$out/$(basename "$wheel").part"
    else
        cp "$wheel" "$out"
    fi
done
echo "$out: $(wc -l < "$out/SHA256") wheels, $(du -sm "$out" | cut -f1) MiB" >&2
