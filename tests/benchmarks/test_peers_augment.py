"""Kornia, BatchAug and torch make our patches, and a matrix in another order is found out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.peers import augment, augment_batched
from benchmarks.peers.gate import UnequalError

pytestmark = pytest.mark.filterwarnings("default")  # of other people's libraries


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SIZE": 12, "SIDE": 20, "BATCH": 2, "CROPS": 4}.items():
        monkeypatch.setattr(augment, name, value)


def test_who_is_installed_is_measured() -> None:
    pytest.importorskip("kornia")
    figures = {found.name: found for found in augment.measure("mask", 1, 2)}
    assert {"augment/mask/fused", "augment/mask/kornia", "augment/mask/torch"} <= {*figures}
    assert all(found.value > 0 and found.n == 2 for found in figures.values())
    ours, theirs = (figures[f"augment/mask/{name}"].samples for name in ("fused", "kornia"))
    ratio = figures["augment/mask/ratio/fused / kornia"]
    assert ratio.samples[0] == pytest.approx(ours[0] / theirs[0], rel=1e-4)


@pytest.mark.parametrize("name", ["torch_grid_sample", "kornia", "batchaug"])
def test_whole_batches_are_equal_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU runs, tried on a CPU: the crops are tensors, and nothing is cut into samples."""
    if name != "torch_grid_sample":
        pytest.importorskip(name)
    monkeypatch.setattr(augment_batched, "spread", lambda batch, threads: lambda work: batch(work)[:, 0])
    for group in ("plain", "mask") if name == "batchaug" else ("plain", "mask", "gamma"):
        work = augment.works(group)[0]
        ours = augment.fused(1)(work).copy()
        there = replace(work, images=torch.from_numpy(work.images), masks=torch.from_numpy(work.masks))
        make = getattr(augment_batched, name)
        augment.check(group, {"fused": lambda work, ours=ours: ours, name: make(1, group)}, there)


def test_matrices_about_the_middle() -> None:
    table = augment.works("plain")[0].table
    voxel = np.array([3.0, 7.0, 2.0])
    expected = table.matrix[:, :, :3] @ voxel + table.matrix[:, :, 3]
    found = augment_batched.about_the_middle(table, 20) @ [*(voxel - 5.5), 1.0]
    assert np.abs(found[:, :3] + 9.5 - expected).max() < 1e-5  # float32 of numbers below 20
    with pytest.raises(ValueError, match="no middle place"):
        augment_batched.about_the_middle(table, 21)


def test_the_gate_is_red_when_axes_are_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kornia")
    right = augment_batched.source_to_target_xyz
    monkeypatch.setattr(augment_batched, "source_to_target_xyz", lambda matrix: right(matrix)[:, ::-1].copy())
    runs = {"fused": augment.fused(1), "kornia": augment_batched.kornia(1, "plain")}
    with pytest.raises(UnequalError, match="kornia differs by"):
        augment.check("plain", runs, augment.works("plain")[0])
