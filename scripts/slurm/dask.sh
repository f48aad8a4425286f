#!/usr/bin/env bash
# A Dask cluster for one Slurm job, and `toolkit preprocess` on it.
#
#   sbatch --nodes=4 scripts/slurm/dask.sh ARCHIVE STORE --id-key FILE
#
# Archive, store and the folder this is called in lie on a disk that all nodes share. Everybody who reaches
# a port of Dask could run code as you, so all of them ask for a certificate that is made for this job.
# With GPUs: `dask cuda worker` (from dask-cuda, one worker a GPU) in place of `dask worker --nworkers 1`, and
# --device cuda behind ARCHIVE STORE. Exit code 75 means interrupted: the job is put into the queue again.
#SBATCH --job-name=toolkit-dask
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@60
set -uo pipefail

folder=$(mktemp -d "$PWD/dask-${SLURM_JOB_ID:-job}-XXXXXX") # for us alone (mode 0700)
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=toolkit \
    -keyout "$folder/key.pem" -out "$folder/cert.pem" 2>"$folder/openssl.log"
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True
export DASK_DISTRIBUTED__COMM__TLS__CA_FILE=$folder/cert.pem
for role in SCHEDULER WORKER CLIENT; do
    export DASK_DISTRIBUTED__COMM__TLS__${role}__KEY=$folder/key.pem
    export DASK_DISTRIBUTED__COMM__TLS__${role}__CERT=$folder/cert.pem
done

dask scheduler --protocol tls --port 0 --no-dashboard --scheduler-file "$folder/scheduler.json" &
scheduler=$!
srun dask worker --nworkers 1 --nthreads "${SLURM_CPUS_PER_TASK:-1}" --protocol tls --no-dashboard \
    --local-directory "${TMPDIR:-/tmp}" --scheduler-file "$folder/scheduler.json" &
workers=$!
toolkit preprocess "$@" --engine dask --scheduler "$folder/scheduler.json" \
    --workers "${SLURM_CPUS_PER_TASK:-1}" &
run=$!
trap 'kill -TERM $run 2>/dev/null' TERM # bash would wait for the end of a command in the foreground
wait $run
code=$?
if kill -0 $run 2>/dev/null; then # the trap cut the wait short
    wait $run
    code=$?
fi

kill $scheduler $workers 2>/dev/null
wait $scheduler $workers 2>/dev/null
rm -r "$folder"
if [ $code -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
