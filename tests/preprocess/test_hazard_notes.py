"""What voxels look like is judged where they are read, and reaches the ledger."""

from pathlib import Path

import pytest

from tests.preprocess.archives import grid, identity, run, scan, write_itk
from toolkit.store.format import shard_name
from toolkit.store.ledger import read_ledger


def noted(store: Path) -> list[str]:
    (entry,) = read_ledger(store, shard_name(0))
    assert entry.status == "done"
    return [code for code, _ in entry.facts["notes"]]


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii.gz"])
@pytest.mark.parametrize(("shift", "expected"), [(0, []), (1024, ["W-HU-010"])])
def test_volumes_that_were_shifted_are_noted(tmp_path: Path, suffix: str, shift: int, expected: list) -> None:
    geometry = grid((40, 48, 48), (1.0, 1.0, 1.0))
    hu, mask = scan(geometry)
    archive = tmp_path / "archive"
    archive.mkdir()
    write_itk(archive / f"a{suffix}", hu + shift, geometry)
    write_itk(archive / f"a_mask{suffix}", mask, geometry)
    assert run(archive, tmp_path / "s").done == 1
    assert noted(tmp_path / "s") == expected
    again = run(archive, tmp_path / "t", index_cache=tmp_path / "index")  # findings from the index
    assert again.done == 1
    assert identity(tmp_path / "t") == identity(tmp_path / "s")
