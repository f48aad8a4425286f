"""What each of the processes of ``torchrun`` does in tests/training/test_ranks.py; not a test itself."""

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.training.runs import config
from toolkit.loading.split import holdout
from toolkit.store import Store
from toolkit.training.config import TrainConfig
from toolkit.training.feed import of_epoch
from toolkit.training.job import Job, Machine
from toolkit.training.learner import Learner
from toolkit.training.loss import objective
from toolkit.training.precision import Decision
from toolkit.training.ranks import Ranks, joined
from toolkit.training.run import _jobs
from toolkit.training.run_folder import RunFolder

STEPS = 4


def job_of(store: Store, settings: TrainConfig, ranks: Ranks) -> Job:
    machine = Machine("cpu", Decision("float32", "off", ""), "auto", ranks)
    return _jobs(store, RunFolder(Path("nowhere")), settings, holdout(store, 0.2, 0.2, 0), machine)[0]


def looked_at(store: Store, ranks: Ranks) -> dict[str, Any]:
    """Return batches, logits, and float64 gradients with batch norm frozen, as this rank sees them."""
    torch.set_num_threads(1)
    job = job_of(store, config(), ranks)
    batches = [
        job.sampler.batch(epoch, step)[0] for epoch in range(2) for step in range(job.sampler.steps(0))
    ]
    network = job.network()
    with job.view(job.sides.validation) as view:
        logits = view.logits(network, torch.device("cpu"))
    model: Any = network.double().eval()  # in evaluation mode batch norm is a fixed line
    if ranks.ranks > 1:
        model = torch.nn.parallel.DistributedDataParallel(model)
    with job.open_loader() as loader:
        batch = next(iter(loader.epoch(0)))
        target = of_epoch(job.sampler, 0, job.sides.target, torch.device("cpu"))[0]
        objective(model(batch.image.double(), None), target.double(), job.balance, 0.0).backward()
    gradients = {name: p.grad.numpy().copy() for name, p in network.named_parameters() if p.grad is not None}
    return {"batches": batches, "logits": logits, "gradients": gradients}


def taught(store: Store, ranks: Ranks, *, fast: bool) -> dict[str, Any]:
    """Return all of a float64 learner's state after `STEPS` steps on this rank's own noise, by name."""
    job = job_of(store, config(model={"dropout": 0.3}), ranks)
    network = job.network(fast=fast).double()
    device, decision = torch.device("cpu"), job.machine.decision
    learner = Learner(network, job.config, job.balance, decision, device, STEPS, ranks)
    draw = torch.Generator().manual_seed(ranks.rank)
    target = torch.tensor([0.0, 1.0, 1.0, 0.0])
    for step in range(STEPS):
        learner.step(0, step, torch.rand(4, 1, 16, 17, 16, generator=draw, dtype=torch.float64), target)
    return {name: value.numpy().copy() for name, value in learner.tensors().items()}


if __name__ == "__main__":
    with joined("cpu") as ranks:
        store = Store.open(sys.argv[1])
        found = looked_at(store, ranks)
        found |= {name: taught(store, ranks, fast=name == "fast") for name in ("plain", "fast")}
        Path(sys.argv[2], f"{ranks.rank}.pickle").write_bytes(pickle.dumps(found))
        assert np.isfinite(found["logits"]).all()
