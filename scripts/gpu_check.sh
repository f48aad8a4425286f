#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: every GPU test, then every benchmark of the kernels; minutes.
# scripts/gpu_check.sh [cu12|cu13]   (default: by the driver)
# Without internet: scripts/install_offline.sh FOLDER first, then TOOLKIT_OFFLINE=1 scripts/gpu_check.sh
# Writes benchmarks/results/<device>_<date>_<commit>.jsonl
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

cd "$root"
nvidia-smi --query-gpu=name,driver_version,power.limit --format=csv,noheader
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)
extra=${1:-$([ "${driver%%.*}" -ge 580 ] && echo cu13 || echo cu12)}
[ -n "${TOOLKIT_OFFLINE:-}" ] || pip install --quiet --constraint constraints.txt --editable ".[test,$extra]"

echo "== tests" >&2
python -m pytest -m gpu -ra
echo "== every stage, in per cent of what this GPU can do" >&2
python -m toolkit bench all --device cuda --out benchmarks/results
echo "== GPU and CPU make the same store (within 1 HU)" >&2
python -m benchmarks.gpu
echo "== the training step: eager and compiled, beside MONAI" >&2
python -m benchmarks.step --device cuda
echo "== the fast twin: 32^3 to 96^3, batch 8 to 256, beside MONAI and ours, of what memory allows" >&2
python -m benchmarks.fast --device cuda
echo "== GPU and CPU make the same batches; the loaders' speed, and DALI's" >&2
python -m benchmarks.gpu_augment
echo "== the same work by CuPy, torch, Kornia, MONAI; BatchAug where PYTHONPATH has it" >&2
python -m benchmarks.peers.kernel_gpu
python -m benchmarks.peers.augment --device cuda --rounds 20
echo "== from files to trained-on samples: LUNA25's recipe beside ours" >&2
python -m benchmarks.peers.luna25_recipe --device cuda --phantom --scans 64 --batch 32 --batches 20 --workers 8
echo "== what the step is made of" >&2
python -m benchmarks.profile_step --device cuda
echo "== and what the fast twin's is made of" >&2
python -m benchmarks.profile_step --device cuda --impl fast
