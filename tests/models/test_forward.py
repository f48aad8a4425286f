"""Logits of many batches, in the order in which a loader reads them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.loading.stores import InOrder, make_store
from toolkit.loading.augment import preset
from toolkit.loading.fused import FusedLoader
from toolkit.loading.plan import Plan
from toolkit.models.forward import logits
from toolkit.models.registry import build


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(make_store(tmp_path / "s", count=11, side=20, margin=2), InOrder(11, 4), preset("none"), 16)


def test_logits_are_those_of_one_crop_at_a_time(plan: Plan) -> None:
    torch.manual_seed(0)
    model = build("densenet-small", 1, dropout=0.5, measured=("volume", "diameter"))
    torch.nn.init.normal_(model.measured.weight)
    measured = np.random.default_rng(0).normal(size=(11, 2)).astype(np.float32)
    with FusedLoader(plan) as loader:
        index, found = logits(model, loader.epoch(3), measured=measured)
        assert index.tolist() == [*range(3, 11), 0, 1, 2]
        assert (index.dtype, found.dtype) == (np.int64, np.float64)
        model.double().eval()
        for batch in loader.epoch(0):
            for k, i in enumerate(batch.index):
                features = torch.from_numpy(measured[i : i + 1]).double()
                alone = model(batch.image[k : k + 1].double(), features).item()
                assert abs(found[index.tolist().index(i)] - alone) < 1e-4  # float32, a few hundred roundings


def test_the_model_is_left_as_it_was_and_the_loader_can_train(plan: Plan) -> None:
    model = build("densenet-small", 1).train()
    model.features.norm0.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with FusedLoader(plan) as loader:
        logits(model, loader.epoch(0))
        assert model.training
        assert not model.features.norm0.training
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name]), name
        for batch in loader.epoch(1):
            model(batch.image, None).sum().backward()  # a tensor of inference mode would refuse


def test_bfloat16_patches_and_autocast(plan: Plan) -> None:
    torch.manual_seed(0)
    model = build("densenet-small", 1)
    half = Plan(plan.store, plan.sampler, plan.config, plan.size, dtype="bfloat16")
    with FusedLoader(plan) as one, FusedLoader(half) as other:
        _, exact = logits(model, one.epoch(0))
        _, read = logits(model, other.epoch(0))
        _, cast = logits(model, other.epoch(0), amp_dtype=torch.bfloat16)
    spread = np.abs(exact).max()
    assert 0 < np.abs(read - exact).max() < 0.05 * spread
    assert 0 < np.abs(cast - exact).max() < 0.2 * spread
    assert np.abs(cast - read).max() > 0


def test_no_batch_gives_no_logit() -> None:
    index, found = logits(build("densenet-small", 1), [])
    assert index.shape == found.shape == (0,)
