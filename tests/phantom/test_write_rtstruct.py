"""The structure set, read back by rt-utils and by a point-in-polygon test of its own."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rt_utils import RTStructBuilder

from toolkit.phantom.anatomy import PhantomPatient
from toolkit.phantom.outline import contours
from toolkit.phantom.write_dicom import sop_uid, write_dicom
from toolkit.phantom.write_nifti import label_volume
from toolkit.phantom.write_rtstruct import LUNGS, polygon, write_rtstruct

SEED = 5


def covered(polygons: list[NDArray[np.float64]], shape_yx: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels whose centre lies on a polygon (within 1e-4) or inside an odd number of them."""
    y, x = np.mgrid[: shape_yx[0], : shape_yx[1]].astype(float)
    on, odd = np.zeros(shape_yx, bool), np.zeros(shape_yx, bool)
    for points in polygons:
        for (y0, x0), (y1, x1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            along = np.array([y1 - y0, x1 - x0])
            t = ((y - y0) * along[0] + (x - x0) * along[1]) / max(along @ along, 1e-12)
            t = np.clip(t, 0, 1)
            on |= np.hypot(y - y0 - t * along[0], x - x0 - t * along[1]) < 1e-4
            if y0 != y1:
                odd ^= ((y0 <= y) != (y1 <= y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return on | odd


@settings(max_examples=200, deadline=None)
@given(st.tuples(st.integers(1, 24), st.integers(1, 24)), st.integers(0, 1 << 32), st.floats(0.3, 0.8))
def test_contours_give_back_any_mask(shape_yx: tuple[int, int], seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random(shape_yx) < share
    chains = contours(mask)
    for chain in chains:
        steps = np.abs(np.diff([*chain, chain[0]], axis=0)).max(axis=1)
        assert len(chain) == 1 or set(steps) == {1}
    np.testing.assert_array_equal(covered([polygon(chain) for chain in chains], mask.shape), mask)


def test_holes_islands_and_single_pixels() -> None:
    mask = np.zeros((15, 15), bool)
    mask[1:12, 1:12] = True
    mask[3:10, 3:10] = False
    mask[5:8, 5:8] = True
    mask[13, 13] = mask[13, 2] = mask[13, 3] = True
    chains = contours(mask)
    assert len(chains) == 5  # rim, hole, island, one pixel, two pixels
    np.testing.assert_array_equal(covered([polygon(chain) for chain in chains], mask.shape), mask)


def test_a_hole_that_goes_round_a_corner_of_its_rim() -> None:
    rows = ("1110111", "1101010", "1100111", "1000101", "1010111", "1001111", "0111110")
    mask = np.array([[cell == "1" for cell in row] for row in rows])
    np.testing.assert_array_equal(covered([polygon(chain) for chain in contours(mask)], mask.shape), mask)


def read_contours(
    struct: pydicom.Dataset, p: PhantomPatient
) -> Iterator[tuple[str, int, NDArray[np.float64]]]:
    """Yield name, slice and (row, column) points of all contours."""
    names = {roi.ROINumber: roi.ROIName for roi in struct.StructureSetROISequence}
    for roi in struct.ROIContourSequence:
        for contour in roi.ContourSequence:
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            assert len(points) == contour.NumberOfContourPoints >= 3
            index = p.geometry.to_nominal_index(points)
            k = round(index[0, 0])
            np.testing.assert_allclose(index[:, 0], k, atol=1e-4)
            assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID == sop_uid(p, SEED, k)
            yield names[roi.ReferencedROINumber], k, index[:, 1:]


@pytest.mark.parametrize("k", range(4))
def test_voxel_centres_give_back_the_masks(patients: list[PhantomPatient], tmp_path: Path, k: int) -> None:
    p = patients[k]
    write_rtstruct(p, SEED, tmp_path / "s.dcm")
    found = list(read_contours(pydicom.dcmread(tmp_path / "s.dcm"), p))
    labels = label_volume(p)
    for number in range(1, len(p.nodules) + 1):
        for z in range(p.hu.shape[0]):
            polygons = [points for name, on, points in found if name == f"Nodule {number}" and on == z]
            truth = labels[z] == number
            assert bool(polygons) == bool(truth.any())
            if polygons:
                np.testing.assert_array_equal(covered(polygons, truth.shape), truth)


@pytest.mark.parametrize("k", range(4))
def test_rt_utils_reads_the_masks(patients: list[PhantomPatient], tmp_path: Path, k: int) -> None:
    p = patients[k]
    write_dicom(p, SEED, tmp_path)
    write_rtstruct(p, SEED, tmp_path / "structures.dcm")
    struct = RTStructBuilder.create_from(str(tmp_path), str(tmp_path / "structures.dcm"))
    assert struct.get_roi_names() == [*(f"Nodule {n + 1}" for n in range(len(p.nodules))), LUNGS]
    labels = label_volume(p)
    for number in range(1, len(p.nodules) + 1):
        mask = struct.get_roi_mask_by_name(f"Nodule {number}")
        np.testing.assert_array_equal(mask.transpose(2, 0, 1), labels == number)


def test_the_lungs_are_an_organ_and_look_like_lungs(patients: list[PhantomPatient], tmp_path: Path) -> None:
    p = patients[1]
    write_rtstruct(p, SEED, tmp_path / "s.dcm")
    struct = pydicom.dcmread(tmp_path / "s.dcm")
    kinds = [item.RTROIInterpretedType for item in struct.RTROIObservationsSequence]
    assert kinds == [""] * len(p.nodules) + ["ORGAN"]
    found = list(read_contours(struct, p))
    middle = p.hu.shape[0] // 2
    lungs = covered([points for name, k, points in found if name == LUNGS and k == middle], p.hu[0].shape)
    assert lungs.mean() > 0.2
    assert np.median(p.hu[middle][lungs]) < -700
    rows = np.concatenate([points for _, _, points in found])
    assert rows.min() >= 0
    assert (rows.max(axis=0) <= np.array(p.hu.shape[1:]) - 1).all()
