#!/usr/bin/env bash
# `toolkit train` on the GPUs of one node or several, taken up again where a scheduler cut it short.
#
#   sbatch --nodes=2 --gpus-per-node=4 scripts/slurm/train.sh STORE RUN --config settings.toml
#
# Store and run lie on a disk that all nodes share; the batch divides by the number of GPUs. A rank that dies is
# started again by torchrun, with all others, from the last checkpoint; SIGTERM saves the step. torchrun itself
# then ends with 1, not 75, so what the job was told decides whether it is put into the queue again.
#SBATCH --job-name=toolkit-train
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -uo pipefail

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))
srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" --max-restarts 3 \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$head:$port" \
    -m toolkit train "$@" &
run=$!
told=
trap 'told=TERM; kill -TERM $run 2>/dev/null' TERM # bash would wait for the end of a command in the foreground
wait $run
code=$?
if kill -0 $run 2>/dev/null; then # the trap cut the wait short
    wait $run
    code=$?
fi

if [ -n "$told" ] && [ $code -ne 0 ]; then
    code=75
    if [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
fi
exit $code
