"""The annotation file, read back by a rasteriser that shares no code with the tracer."""

import itertools
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from toolkit.archive.lidc import read_lidc
from toolkit.phantom.anatomy import PhantomPatient
from toolkit.phantom.outline import outlines, traceable
from toolkit.phantom.write_dicom import slice_positions_mm, sop_uid
from toolkit.phantom.write_lidc import write_lidc

NS = {"l": "http://www.nih.gov"}
SQUARE = np.ones((3, 3))


def interior(chain: list[tuple[int, int]], shape_yx: tuple[int, ...]) -> NDArray[np.bool_]:
    """Even-odd fill of a lattice polygon, less the lattice points on it."""
    inside = np.zeros(shape_yx, dtype=bool)
    columns = np.arange(shape_yx[1])
    for (y0, x0), (y1, x1) in zip(chain, chain[1:] + chain[:1], strict=True):
        assert max(abs(y1 - y0), abs(x1 - x0)) <= 1, "the chain is not 8-connected"
        # With the upper end counted and the lower not, a unit step crosses the row of its upper end.
        if y0 != y1:
            row, x = (y0, x0) if y0 < y1 else (y1, x1)
            inside[row] ^= columns > x
    for y, x in chain:
        inside[y, x] = False
    return inside


def rasterise(mask_yx: NDArray[np.bool_]) -> NDArray[np.bool_]:
    back = np.zeros_like(mask_yx)
    for chain in outlines(mask_yx):
        assert len(set(chain)) == len(chain), "the outline touches itself"
        assert not any(mask_yx[point] for point in chain), "the outline enters the nodule"
        back |= interior(chain, mask_yx.shape)
    return back


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 0.8), st.integers(0, 2))
@settings(max_examples=150, deadline=None)
def test_outlines_of_any_traceable_mask_give_it_back(seed: int, share: float, smooth: int) -> None:
    noise = np.random.default_rng(seed).random((14, 17))
    noise = ndimage.gaussian_filter(noise, smooth / 2) if smooth else noise
    mask = np.pad(noise > np.quantile(noise, share), 4)
    closed = traceable(mask[None])[0]
    assert np.all(closed >= mask)
    np.testing.assert_array_equal(rasterise(closed), closed)
    np.testing.assert_array_equal(traceable(closed[None])[0], closed)


def test_a_single_pixel_and_a_ring() -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[4, 4] = True
    assert sorted(outlines(mask)[0]) == [(3, 4), (4, 3), (4, 5), (5, 4)]
    mask[2:7, 2:7] = True
    mask[4, 4] = False
    assert traceable(mask[None])[0, 4, 4], "a hole is filled: the outline cannot show it"


def read(path: Path, p: PhantomPatient) -> list[list[NDArray[np.bool_]]]:
    """Return masks[nodule][reader]."""
    slice_of = {f"{z:.6f}": k for k, z in enumerate(slice_positions_mm(p))}
    masks: list[list[NDArray[np.bool_]]] = [[] for _ in p.nodules]
    sessions = ET.parse(path).getroot().findall("l:readingSession", NS)
    assert len(sessions) == 4
    for session in sessions:
        for k, node in enumerate(session.findall("l:unblindedReadNodule", NS)):
            mask = np.zeros(p.hu.shape, dtype=bool)
            for roi in node.findall("l:roi", NS):
                z = slice_of[str(roi.findtext("l:imageZposition", None, NS)).strip()]
                assert roi.findtext("l:imageSOP_UID", None, NS) == sop_uid(p, 5, z)
                assert roi.findtext("l:inclusion", None, NS) == "TRUE"
                chain = [
                    (int(e.findtext("l:yCoord", "", NS)), int(e.findtext("l:xCoord", "", NS)))
                    for e in roi.findall("l:edgeMap", NS)
                ]
                assert min(map(min, chain)) >= 0
                mask[z] |= interior(chain, p.hu.shape[1:])
            masks[k].append(mask)
    return masks


def test_two_of_four_readers_are_the_truth(patients: list[PhantomPatient], tmp_path: Path) -> None:
    smaller = larger = 0
    for p in patients[:8]:
        path = tmp_path / f"{p.patient_id}.xml"
        write_lidc(p, 5, path)
        for n, readers in zip(p.nodules, read(path, p), strict=True):
            truth = np.zeros(p.hu.shape, dtype=bool)
            truth[n.box.slices] = n.mask
            np.testing.assert_array_equal(readers[0], truth)
            np.testing.assert_array_equal(readers[1], truth)
            np.testing.assert_array_equal(np.sum(readers, axis=0) >= 2, truth)
            assert np.all(readers[2] >= truth)
            assert np.all(readers[3] <= truth)
            larger += bool(readers[2].sum() > truth.sum())
            smaller += bool(readers[3].sum() < truth.sum())
            assert all(ndimage.label(r, np.ones((3, 3, 3)))[1] == 1 for r in readers)
    assert larger > 5
    assert smaller > 5


def test_no_session_repeats_another(patients: list[PhantomPatient], tmp_path: Path) -> None:
    for p in patients:
        write_lidc(p, 5, tmp_path / "x.xml")
        sessions = ET.parse(tmp_path / "x.xml").getroot().findall("l:readingSession", NS)
        nodules = [
            [ET.tostring(node) for node in session.findall("l:unblindedReadNodule", NS)]
            for session in sessions
        ]
        assert all(a != b for a, b in itertools.combinations(nodules, 2))
        assert read_lidc(tmp_path / "x.xml").notes == ()


def test_ratings_follow_the_label(patients: list[PhantomPatient], tmp_path: Path) -> None:
    seen = set()
    for p in patients:
        path = tmp_path / "x.xml"
        write_lidc(p, 5, path)
        for session in ET.parse(path).getroot().findall("l:readingSession", NS):
            for n, node in zip(p.nodules, session.findall("l:unblindedReadNodule", NS), strict=True):
                scale = {
                    e.tag.split("}")[1]: int(str(e.text)) for e in node.find("l:characteristics", NS) or ()
                }
                assert scale["malignancy"] in ((1, 2), (4, 5))[n.label]
                assert all(1 <= value <= 6 for value in scale.values())
                seen.add(scale["malignancy"])
    assert seen == {1, 2, 4, 5}


@pytest.mark.parametrize("k", [0, 1, 2])
def test_truth_is_traceable(patients: list[PhantomPatient], k: int) -> None:
    for n in patients[k].nodules:
        mask = np.pad(n.mask.astype(bool), ((0, 0), (2, 2), (2, 2)))
        for part in mask:
            np.testing.assert_array_equal(rasterise(part), part)
