#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: every GPU test, then every benchmark, then a profile; minutes.
# scripts/gpu_check.sh [cu12|cu13]   (default: by the driver)
# Without internet: scripts/install_offline.sh FOLDER first, then TOOLKIT_OFFLINE=1 scripts/gpu_check.sh
# Writes benchmarks/results/<device>_<date>_<commit>.jsonl. A part that fails does not keep the next from
# running; what failed is told at the end, and the exit code is 1.
# TOOLKIT_REHEARSE=1 scripts/gpu_check.sh runs what a machine without a GPU can, small, into a temporary folder.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

cd "$root"
failed=()
part() {
    local what=$1
    shift
    echo "== $what" >&2
    "$@" || failed+=("$what")
}

if [ -n "${TOOLKIT_REHEARSE:-}" ]; then
    out=$(mktemp -d)
    record=$out/rehearsal.jsonl
    part "tests" python -m pytest -m gpu -q
    part "every stage" python -m toolkit bench all --quick --device cpu --out "$record"
    part "the training step" python -m benchmarks.step --device cpu --model densenet-small --size 16 --batch 4 \
        --turns 2 --out "$record"
    part "the waterfall" python -m benchmarks.waterfall --device cpu --toy --turns 2 --out "$record"
    part "the profile" python -m benchmarks.profile_step --device cpu --model densenet-small --size 32 --batch 4
    echo "figures: $record" >&2
else
    nvidia-smi --query-gpu=name,driver_version,power.limit --format=csv,noheader
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)
    extra=${1:-$([ "${driver%%.*}" -ge 580 ] && echo cu13 || echo cu12)}
    [ -n "${TOOLKIT_OFFLINE:-}" ] || pip install --quiet --constraint constraints.txt --editable ".[test,$extra]"
    part "tests" python -m pytest -m gpu -ra
    part "every stage, in per cent of what this GPU can do" \
        python -m toolkit bench all --device cuda --out benchmarks/results
    part "GPU and CPU make the same store (within 1 HU)" python -m benchmarks.gpu
    part "GPU and CPU make the same batches; the loaders' speed, and DALI's" python -m benchmarks.gpu_augment
    part "the training step: eager and compiled, beside MONAI" python -m benchmarks.step --device cuda
    part "the fast twin: 32^3 to 96^3, batch 8 to 256, beside MONAI and ours, of what memory allows" \
        python -m benchmarks.fast --device cuda
    part "the training step, a technique at a time, its CUDA graph (compute.graph) among them" \
        python -m benchmarks.waterfall --device cuda
    part "extraction by CuPy and torch" python -m benchmarks.peers.kernel_gpu
    part "augmentation by torch, Kornia, MONAI; BatchAug where PYTHONPATH has it" \
        python -m benchmarks.peers.augment --device cuda --rounds 20
    part "from files to trained-on samples: LUNA25's recipe beside ours" \
        python -m benchmarks.peers.luna25_recipe --device cuda --phantom --scans 64 --batch 32 --batches 20 --workers 8
    part "what the step is made of" python -m benchmarks.profile_step --device cuda
    part "and what the fast twin's is made of" python -m benchmarks.profile_step --device cuda --impl fast
    echo "python -m benchmarks.readme draws the new figures" >&2
fi
for what in "${failed[@]}"; do
    echo "FAILED: $what" >&2
done
[ ${#failed[@]} -eq 0 ]
