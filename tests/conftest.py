"""Fixtures that all tests share: a private cache, the phantom, and the real data where it is."""

from pathlib import Path

import pytest

from tests.real import real_data, unpack
from toolkit.phantom.archive import write_archive
from toolkit.preprocess.identity import IdKey
from toolkit.preprocess.plan import Settings
from toolkit.preprocess.run import Job, preprocess
from toolkit.store import Store


@pytest.fixture(autouse=True)
def _private_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's index and id key out of every test (compiled kernels stay shared)."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))


@pytest.fixture(scope="session")
def phantom_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients, three as DICOM with LIDC XML, three as NIfTI with masks."""
    out = tmp_path_factory.mktemp("phantom") / "archive"
    write_archive(out, patients=6, seed=3, formats=("dicom", "nifti"))
    return out


@pytest.fixture(scope="session")
def phantom_store(phantom_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The phantom's crops of 32 voxels with a margin of 4, as training has them."""
    folder = tmp_path_factory.mktemp("phantom-store")
    settings = Settings(spacing_mm=1.0, size=32, margin=4)
    job = Job(
        phantom_archive, folder / "store", IdKey(b"test"), settings=settings, index_cache=folder / "index"
    )
    assert preprocess(job).exit_code == 0
    return Store.open(folder / "store")


@pytest.fixture(scope="session")
def lidc_scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LIDC-IDRI-0001: 133 slices and the readings of four radiologists."""
    return unpack(real_data("lidc-idri-0001_ct133.tar.xz"), tmp_path_factory.mktemp("lidc"))


@pytest.fixture(scope="session")
def dirty_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What archives really contain."""
    return unpack(real_data("dirty_archive.tar.xz"), tmp_path_factory.mktemp("dirty"))
