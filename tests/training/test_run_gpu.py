"""Training on a GPU: every number type, compiled, resumed, and read on a CPU."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.runs import Killed, Watcher, config, make_store, run
from toolkit.evaluation.predictions import read_predictions
from toolkit.models.folder import load_model
from toolkit.models.registry import build
from toolkit.store import Store
from toolkit.training.balance import Balancing
from toolkit.training.learner import Learner
from toolkit.training.precision import Decision, Impl, Mode
from toolkit.training.record import read_records

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]

STEPS = 4


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "store"
    make_store(path)
    return path


@pytest.mark.parametrize("amp", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("compiled", ["off", "default"])
def test_it_learns_in_every_number_type(store: Path, tmp_path: Path, amp: str, compiled: str) -> None:
    settings = config(epochs=12, compute={"amp": amp, "compile": compiled})
    run(store, tmp_path / "run", settings, device="cuda")
    assert read_records(tmp_path / "run" / "metrics.jsonl")[-1].val.auroc.value > 0.95


def test_the_model_says_the_same_on_a_cpu(store: Path, tmp_path: Path) -> None:
    settings = config(epochs=12, compute={"amp": "float32", "compile": "off"})
    run(store, tmp_path / "run", settings, device="cuda")
    predictions = read_predictions(tmp_path / "run" / "predictions_val.csv")
    _, model = load_model(tmp_path / "run" / "model", "cpu")
    opened = Store.open(store)
    number = {each.nodule_id: k for k, each in enumerate(opened.nodules)}
    images = np.stack(
        [opened.image(number[name])[2:18, 2:18, 2:18] for name in predictions.nodule_id.tolist()]
    )
    with torch.no_grad():
        logit = model(torch.from_numpy((images.astype(np.float32) + 1000) / 1400)[:, None], None).numpy()
    # TF32 keeps ten bits of a product
    np.testing.assert_allclose(logit, predictions.logit, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("graph", [False, True])
def test_it_resumes(store: Path, tmp_path: Path, graph: bool) -> None:
    settings = config(epochs=3, compute={"graph": graph})
    with pytest.raises(Killed):
        run(store, tmp_path / "run", settings, Watcher(die_at=12), device="cuda")
    watcher = Watcher()
    run(store, tmp_path / "run", settings, watcher, device="cuda")
    assert any(note.startswith("resumes at epoch") for note in watcher.notes)
    assert len(read_records(tmp_path / "run" / "metrics.jsonl")) == 3


def taught_by(decision: Decision) -> Learner:
    torch.manual_seed(0)
    network = build("densenet-small", 1, dropout=0.3, fast=decision.impl == "fast")
    balance = Balancing("none", 0.5, 0.5)
    return Learner(network, config(), balance, decision, torch.device("cuda"), STEPS)


@pytest.mark.filterwarnings("ignore")  # of the compiler itself
@pytest.mark.parametrize("compiled", ["off", "default"])
@pytest.mark.parametrize("impl", ["plain", "fast"])
def test_a_recorded_step_is_the_step(impl: Impl, compiled: Mode) -> None:
    """The same draws of dropout, rates and averages; rounding may differ, which Adam amplifies."""
    torch.compiler.reset()
    image, target = torch.rand(8, 1, 32, 32, 32, device="cuda"), (torch.arange(8, device="cuda") % 2).float()
    image = image.contiguous(memory_format=torch.channels_last_3d)
    found = []
    for graph in (False, True):
        learner = taught_by(Decision("float32", compiled, "", impl, graph=graph))
        begun = _flat(learner.parameters)
        for step in range(STEPS):
            learner.step(0, step, image * (1 + step), target)
        average = _flat(learner.average.module.parameters())
        moved = [_flat(learner.parameters) - begun, average - begun]
        found.append([*moved, _flat(learner.model.buffers()), learner.losses])
    for one, other in zip(*found, strict=True):
        assert float((one - other).norm()) <= 0.02 * float(one.norm())
        assert one.isfinite().all()


def _flat(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.cat([each.detach().double().flatten() for each in tensors])


@pytest.mark.parametrize("graph", [False, True])
def test_a_step_waits_for_nothing(graph: bool) -> None:
    learner = taught_by(Decision("bfloat16", "off", "", graph=graph))
    image = torch.rand(8, 1, 32, 32, 32, device="cuda", dtype=torch.bfloat16)
    image = image.contiguous(memory_format=torch.channels_last_3d)
    target = torch.ones(8, device="cuda")
    learner.step(0, 0, image, target)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner.step(0, 1, image, target)
        learner.step(0, 2, image, target)
    finally:
        torch.cuda.set_sync_debug_mode("default")
