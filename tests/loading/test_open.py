"""Both loaders on the balanced sampler, opened as a training run opens them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.loading.stores import make_store
from toolkit.errors import UsageError
from toolkit.loading.augment import preset
from toolkit.loading.open import open_loader
from toolkit.loading.plan import Plan
from toolkit.loading.sampler import BalancedSampler, members

CONFIG = replace(preset("default"), mask_mode="channel")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("open") / "store", count=24)  # 8 benign, 8 malignant, 8 open


def plan(store, rank=0, ranks=1, config=CONFIG):
    known = members(store.nodules, np.arange(len(store)))
    sampler = BalancedSampler(known, batch=4, positives=2, seed=3, rank=rank, ranks=ranks)
    return Plan(store, sampler, config, 10, seed=7)


def batches(loader, epoch=2):
    with loader:
        return [(b.index.copy(), b.image.clone(), b.label.clone()) for b in loader.epoch(epoch)]


def test_auto_takes_the_fused_loader_and_says_why(store):
    with open_loader(plan(store), device="cpu") as loader:
        assert type(loader).__name__ == "FusedLoader"
        assert "no GPU is used" in loader.reason


def test_fused_and_dali_make_the_same_balanced_batches(store):
    pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    fused = batches(open_loader(plan(store), device="cpu"))
    dali = batches(open_loader(plan(store), "dali", device="cpu"))
    assert len(fused) == len(dali) == 4
    for (index, image, label), (other, theirs, told) in zip(fused, dali, strict=True):
        np.testing.assert_array_equal(index, other)
        assert torch.equal(label, told)
        assert sorted(label.tolist()) == [0, 0, 1, 1]
        assert image.shape == theirs.shape == (4, 2, 10, 10, 10)
        assert image.stride() == theirs.stride()
        assert float((image - theirs).abs().max()) < 1e-3  # of the window; derived in test_dali_graph


def test_the_ranks_together_make_the_batch_of_one(store):
    (whole, *_), *parts = (
        batches(open_loader(plan(store, rank, ranks), device="cpu"))
        for rank, ranks in ((0, 1), (0, 2), (1, 2))
    )
    index, image, _ = whole
    for rank, ((own, made, _), *_) in enumerate(parts):
        np.testing.assert_array_equal(own, index[rank::2])
        assert torch.equal(made, image[rank::2])


def test_what_dali_does_not_have_is_refused_by_name(store):
    pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    with pytest.raises(UsageError, match="elastic_amplitude_mm") as caught:
        open_loader(plan(store, config=preset("strong")), "dali", device="cpu")
    assert caught.value.problem.code == "E-LOAD-022"


def test_a_gpu_that_is_asked_for_and_not_there(store):
    if torch.cuda.is_available():
        pytest.skip("a GPU is there")
    with pytest.raises(UsageError, match="E-DEV-001"):
        open_loader(plan(store), device="cuda")
