"""Training on a GPU: every number type, compiled, resumed, and read on a CPU."""

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
from toolkit.training.precision import Decision
from toolkit.training.record import read_records

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]


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


def test_it_resumes(store: Path, tmp_path: Path) -> None:
    settings = config(epochs=3)
    with pytest.raises(Killed):
        run(store, tmp_path / "run", settings, Watcher(die_at=12), device="cuda")
    watcher = Watcher()
    run(store, tmp_path / "run", settings, watcher, device="cuda")
    assert any(note.startswith("resumes at epoch") for note in watcher.notes)
    assert len(read_records(tmp_path / "run" / "metrics.jsonl")) == 3


def test_a_step_waits_for_nothing() -> None:
    learner = Learner(
        build("densenet-small", 1),
        config(),
        Balancing("none", 0.5, 0.5),
        Decision("bfloat16", "off", ""),
        torch.device("cuda"),
        4,
    )
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
