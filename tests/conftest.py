"""Fixtures that all tests share: a private cache, the phantom, and the real data where it is."""

from pathlib import Path

import pytest

from tests.real import real_data, unpack
from toolkit.phantom.archive import write_archive


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
def lidc_scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LIDC-IDRI-0001: 133 slices and the readings of four radiologists."""
    return unpack(real_data("lidc-idri-0001_ct133.tar.xz"), tmp_path_factory.mktemp("lidc"))


@pytest.fixture(scope="session")
def dirty_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What archives really contain."""
    return unpack(real_data("dirty_archive.tar.xz"), tmp_path_factory.mktemp("dirty"))
