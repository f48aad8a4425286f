"""The published recipe beside ours at toy size: what it draws and cuts, every side, and gates that go red."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import gate, luna25_baseline, luna25_recipe, luna25_sides
from benchmarks.peers.luna25_data import Archive, phantom_image, write_archive
from toolkit.bench.record import Figure
from toolkit.store import Store

pytest.importorskip("SimpleITK", reason="SimpleITK is absent: install the extra `peers` or `test`")
TOY = luna25_sides.Settings("densenet-small", size=16, batch=4, batches=1, workers=0, turns=1)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_archive(*phantom_image(0), 4, tmp_path_factory.mktemp("luna25") / "archive")


@pytest.fixture(scope="module")
def measured(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Figure], Path]:
    work = tmp_path_factory.mktemp("luna25")
    return {found.name: found for found in luna25_recipe.measure(archive, work, TOY)}, work


def test_every_side_is_measured(measured: tuple[dict[str, Figure], Path]) -> None:
    figures, work = measured
    for side in luna25_sides.SIDES:
        train, ten = (figures[f"luna25/{side}/{what}"].value for what in ("train", "10-epochs"))
        once = 0.0 if side == "scans" else figures[f"luna25/{side}/once"].value / 1e3
        assert ten == pytest.approx(10 / (once + 10 / train), rel=1e-3)  # a nodule, seen ten times
    assert figures["luna25/toolkit/once"].value > 0
    assert figures["luna25/ratio/1-epochs/toolkit / blocks"].n == 1
    assert figures["luna25/difference/blocks/largest"].value <= luna25_recipe.EQUAL_HU
    assert figures["luna25/difference/toolkit/mean"].value > 5  # voxels of 3 mm: ours filters
    left = sorted(path.name for path in work.iterdir())
    assert all(name.startswith("fine") for name in left), left


def test_the_gate_is_red_when_a_patch_is_half_a_voxel_off(
    archive: Archive, measured: tuple[dict[str, Figure], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, right = Store.open(measured[1] / "fine"), luna25_baseline.affine_of
    luna25_recipe.gate(archive, store, store.spacing_mm, TOY)

    def wrong(image: object) -> np.ndarray:
        affine = right(image)
        affine[:3, 3] += affine[:3, :3] @ [0, 0, 0.5]
        return affine

    monkeypatch.setattr(luna25_baseline, "affine_of", wrong)
    with pytest.raises(gate.UnequalError, match="scans: patches differ by"):
        luna25_recipe.gate(archive, store, store.spacing_mm, TOY)
    monkeypatch.setattr(luna25_recipe.step, "BOUND", 0.0)
    with pytest.raises(gate.UnequalError, match="logits"):
        luna25_recipe.gate(archive, store, store.spacing_mm, TOY)


def test_a_block_gives_the_patch_of_its_scan(archive: Archive, tmp_path: Path) -> None:
    whole = luna25_sides.sources(archive)[1]
    block = luna25_baseline.cut_block(whole, str(tmp_path / "block.npy"))
    assert np.load(block.path).shape == luna25_baseline.BLOCK_ZYX
    for seed in range(3):
        patches = [
            luna25_baseline.patch(source, 16, 2.0, np.random.default_rng(seed)) for source in (whole, block)
        ]
        assert np.abs(patches[0] - patches[1]).max() < 1e-6
        assert patches[0].std() > 0.05


def test_draws_are_those_that_were_published() -> None:
    rng = np.random.default_rng(0)
    drawn = [luna25_baseline.draw(rng) for _ in range(2000)]
    turns = np.array([turn for turn, _ in drawn])
    assert np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max() < 1e-12
    assert np.linalg.det(turns).min() == pytest.approx(1)
    angle = np.degrees(np.arccos((np.trace(turns, axis1=1, axis2=2) - 1) / 2))
    # three angles of at most 20 degrees; ours, uniform up to 35, is as large in root mean square
    assert angle.max() < 60
    ours = luna25_sides.AUGMENTED.rotation_degrees / np.sqrt(3)
    assert np.sqrt(np.mean(angle**2)) == pytest.approx(ours, rel=0.03)
    length = np.linalg.norm([shift for _, shift in drawn], axis=1)
    assert length.max() <= luna25_baseline.SHIFT_MM
    assert length.mean() == pytest.approx(luna25_baseline.SHIFT_MM / 2, rel=0.05)
