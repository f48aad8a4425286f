"""Equality before speed: whether the toolkit's crop is the crop that SimpleITK makes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.readers import AIR, Target, sitk_read, sitk_resample
from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_series import DicomSeries, SeriesRules
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.regions import find
from toolkit.preprocess.extract import source_box, target_grid, target_to_source
from toolkit.preprocess.plan import Settings, default_margin
from toolkit.store.reader import Store

EQUAL_HU = 1.0
EQUAL_SHARE = 0.999


class UnequalError(AssertionError):
    """The outputs differ, so no speed may be shown."""


def targets(archive: Path, spacing_mm: float, size: int = 64) -> list[Target]:
    """Return what is asked of every case of an archive: the crop about its first nodule."""
    side = size + 2 * default_margin(size, spacing_mm)
    found = []
    for case in catalog(archive, None, SeriesRules(), IndexCache(None)).cases:
        if not isinstance(case.source, DicomSeries):
            raise ValueError(f"{case.image}: no DICOM series ({case.problem})")
        center = find(case, case.source, Settings().min_diameter_mm)[0][0].center_lps_mm
        matrix = target_to_source(target_grid(center, spacing_mm, side), case.source.geometry)
        box = case.source.reorientation.box(
            source_box(matrix, side, case.source.geometry), case.source.native.shape_zyx
        )
        files = tuple(file.path for file in case.source.files[box.start_zyx[0] : box.stop_zyx[0]])
        found.append(Target(case.image, files, center, spacing_mm, side))
    return found


def differences(store: Path, target: Target) -> Mapping[str, float]:
    """Compare a store's only crop with SimpleITK's of the same files, in HU.

    SimpleITK's volume is clipped to [-1024, 3071] first, as ours is by contract, and resampled to
    float32, since its conversion to int16 cuts off. The voxel that is compared is one whose centre
    lies inside the scan.
    """
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    image = sitk_read(reader.GetGDCMSeriesFileNames(target.folder))
    clipped = sitk.Clamp(image, sitk.sitkInt16, AIR, 3071)
    theirs = sitk.GetArrayFromImage(sitk_resample(clipped, target, sitk.sitkFloat32))
    ours = np.asarray(Store.open(store).image(0))
    if ours.shape != theirs.shape:
        raise UnequalError(f"shapes {ours.shape} and {theirs.shape}")
    inside = sitk.GetArrayFromImage(sitk_resample(image * 0 + 1, target)) == 1
    return summary(ours[inside], theirs[inside])


def summary(ours: NDArray[np.int16], theirs: NDArray[np.float32]) -> Mapping[str, float]:
    """Return how far two crops are apart: the share within 1 HU, the mean and the largest distance."""
    distance = np.abs(ours.astype(np.float64) - theirs)
    return {
        "share_within_1_hu": float((distance <= EQUAL_HU).mean()),
        "mean_hu": float(distance.mean()),
        "p99_hu": float(np.percentile(distance, 99)),
        "largest_hu": float(distance.max()),
        "voxels": float(distance.size),
    }


def check(found: Mapping[str, float]) -> None:
    """Raise `UnequalError` unless nearly all voxels are equal within rounding."""
    if found["share_within_1_hu"] < EQUAL_SHARE or found["voxels"] == 0:
        share = f"{found['share_within_1_hu']:.5f} of {found['voxels']:.0f} voxels"
        raise UnequalError(f"only {share} agree within {EQUAL_HU} HU; largest {found['largest_hu']:.1f} HU")
