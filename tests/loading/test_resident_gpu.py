"""The loader of a resident store on a GPU against the one on the CPU: the same rows, the same noise."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.loading.stores import InOrder, make_store
from toolkit.loading.augment import preset
from toolkit.loading.fused import FusedLoader
from toolkit.loading.plan import Plan
from toolkit.loading.resident import ResidentLoader

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]
CONTRACTED = (
    2e-3  # of the window, whose 1,400 HU are crossed within a voxel of this noise: positions move by 1e-6
)


@pytest.mark.parametrize("mode", ["none", "hard", "soft", "channel"])
@pytest.mark.parametrize("space_to_depth", [False, True])
def test_batches_are_those_of_the_cpu(tmp_path, mode, space_to_depth):
    store = make_store(tmp_path / "store")
    config = replace(preset("strong"), mask_mode=mode, edge_mm=0.0 if mode == "hard" else 1.0)
    plan = Plan(store, InOrder(10, 3), config, 12, seed=5, space_to_depth=space_to_depth)
    with FusedLoader(plan) as cpu, ResidentLoader(plan) as gpu:
        for ours, theirs in zip(gpu.epoch(1), cpu.epoch(1), strict=True):
            np.testing.assert_array_equal(ours.index, theirs.index)
            assert torch.equal(ours.label.cpu().nan_to_num(-1), theirs.label.nan_to_num(-1))
            assert ours.image.stride() == theirs.image.stride()
            apart = (ours.image.cpu() - theirs.image).abs()
            decided = apart <= CONTRACTED
            assert decided.float().mean() > (0.999 if mode == "hard" else 1 - 1e-9)  # hard edges may tip over


def test_a_resume_gives_the_rest_and_nothing_waits_for_the_host(tmp_path):
    plan = Plan(make_store(tmp_path / "store"), InOrder(10, 3), preset("default"), 12, dtype="bfloat16")
    with ResidentLoader(plan) as loader:
        whole = [batch.image.clone() for batch in loader.epoch(0)]
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            rest = [batch.image.clone() for batch in loader.epoch(0, first_step=2)]
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], rest, strict=True))
