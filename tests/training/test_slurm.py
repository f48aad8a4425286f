"""The script for Slurm, with a scheduler of ours and torchrun's own processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.runs import make_store
from toolkit.training import checkpoint

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_job_that_is_told_to_end_saves_and_goes_back_into_the_queue(tmp_path: Path) -> None:
    store, run, asked = make_store(tmp_path / "store"), tmp_path / "run", tmp_path / "asked"
    commands = {
        "srun": 'exec "$@"',
        "scontrol": f'[ "$1" = show ] && echo 127.0.0.1 || echo "$@" >> {asked}',
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
    }
    (tmp_path / "bin").mkdir()
    for name, does in commands.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{does}\n")
        path.chmod(0o755)
    (tmp_path / "settings.toml").write_text(
        'epochs = 2000\nbatch = 8\ninput.size = 16\nmodel = {name = "densenet-small"}\n'
        'selection = {min_epochs = 2000}\ncompute = {threads = 1, amp = "float32"}\n'
        "logging.tensorboard = false\n"
    )
    given = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_NNODES": "1",
        "SLURM_JOB_NODELIST": "here",
    }
    command = ["bash", str(ROOT / "scripts" / "slurm" / "train.sh"), str(store.path), str(run)]
    command += ["--config", str(tmp_path / "settings.toml"), "--device", "cpu"]
    with (tmp_path / "log").open("w") as log:
        job = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **given}, stdout=log, stderr=log)
    last = run / "checkpoints" / "last.safetensors"
    end = time.monotonic() + 200
    while not last.exists() and job.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    job.send_signal(signal.SIGTERM)
    code = job.wait(100)
    assert code == 75, (tmp_path / "log").read_text()
    assert asked.read_text() == f"requeue {os.getpid()}\n"
    _, state = checkpoint.load(last)
    assert not state["position"]["finished"]
