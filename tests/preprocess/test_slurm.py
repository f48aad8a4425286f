"""The scripts for Slurm as they stand, on processes of this machine; only Slurm's commands are stand-ins."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.long import long
from tests.preprocess.archives import identity
from tests.preprocess.cluster import ROOT, Made, made, until

SCRIPTS = ROOT / "scripts" / "slurm"
COMMANDS = {
    "toolkit": f'exec {sys.executable} -m toolkit "$@"',
    "dask": f'exec {sys.executable} -m dask "$@"',
    "srun": '"$@" & "$@" & trap "kill $(jobs -p)" TERM; wait; wait',  # two nodes
    "scontrol": 'echo "$@" >>"$REQUEUED"',
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(tmp_path_factory.mktemp("slurm"))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    for name, line in COMMANDS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{line}\n")
        path.chmod(0o755)
    slurm = {"SLURM_CPUS_PER_TASK": "1", "SLURM_JOB_ID": "7", "REQUEUED": str(tmp_path / "requeued")}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **slurm, "PYTHONPATH": path, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}


def job(script: str, one: Made, store: Path, environment: dict[str, str]) -> "subprocess.Popen[str]":
    """Start a script as sbatch would, each option of its header aside."""
    command = ["bash", str(SCRIPTS / script), str(one.archive), str(store), *one.options]
    return subprocess.Popen(
        command,
        cwd=store.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@long
def test_an_array_of_two_tasks_one_of_them_interrupted(
    one: Made, tmp_path: Path, environment: dict[str, str]
) -> None:
    store = one.planned(tmp_path / "store")
    task = {f"SLURM_ARRAY_{name}": value for name, value in {"JOB_ID": "5", "TASK_COUNT": "2"}.items()}
    tasks = [{**environment, **task, "SLURM_ARRAY_TASK_ID": str(k)} for k in range(2)]
    first = job("preprocess_array.sh", one, store, tasks[0])
    until(lambda: store.with_name("store.crosswalk.csv").exists())
    first.send_signal(signal.SIGTERM)  # to bash alone, as #SBATCH --signal=B: does
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 75, said
    assert Path(environment["REQUEUED"]).read_text() == "requeue 5_0\n"
    again = [job("preprocess_array.sh", one, store, task) for task in tasks]
    for run in again:
        said, _ = run.communicate(timeout=120)
        assert run.returncode == 0, said
    assert identity(store) == identity(one.whole)


def test_a_dask_cluster_in_a_job(one: Made, tmp_path: Path, environment: dict[str, str]) -> None:
    store = one.planned(tmp_path / "store")
    run = job("dask.sh", one, store, environment)
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 0, said
    assert said.count("Registered to:") == said.count("tls://") > 0 or "tls://" in said
    assert identity(store) == identity(one.whole)
    assert not list(tmp_path.glob("dask-*"))
    assert not Path(environment["REQUEUED"]).exists()
