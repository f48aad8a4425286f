#!/usr/bin/env bash
# One store made by the tasks of a Slurm array, each its share of the shards; no task waits for another.
#
#   toolkit index ARCHIVE --index-cache INDEX          # once: the tasks then read no header again
#   sbatch --array=0-15 scripts/slurm/preprocess_array.sh ARCHIVE STORE --index-cache INDEX --id-key FILE
#
# Archive, store and index lie on a disk that all nodes share and whose locks hold across nodes (NFS 4,
# GPFS, Lustre mounted with flock). Exit code 75 means interrupted: such a task is put into the queue again.
#SBATCH --job-name=toolkit-preprocess
#SBATCH --cpus-per-task=8
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@60
set -uo pipefail

toolkit preprocess "$@" \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --workers "${SLURM_CPUS_PER_TASK:-1}" &
run=$!
trap 'kill -TERM $run 2>/dev/null' TERM # bash would wait for the end of a command in the foreground
wait $run
code=$?
if kill -0 $run 2>/dev/null; then # the trap cut the wait short
    wait $run
    code=$?
fi

if [ $code -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit $code
