import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from toolkit.archive.consensus import LIDC_RULE, ConsensusNodule, consensus_nodules, label_of
from toolkit.archive.lidc import LidcRead, Outline, Reading
from toolkit.archive.reader_mask import SliceFrame, reading_mask
from toolkit.errors import InputError

# Native slices against z, as files often lie: slice k is at z = 40 - 2 k.
FRAME = SliceFrame(32, 48, {f"u{k}": k for k in range(20)}, 40.0 - 2.0 * np.arange(20), 1.0)


def ring(x: int, y: int, size: int, k: int = 3, inclusion: bool = True, uid: str | None = None) -> Outline:
    """Outline whose interior is columns x.. and rows y.., `size` pixels each."""
    a, b, c, d = x - 1, y - 1, x + size, y + size
    points = np.array([(a, b), (c, b), (c, d), (a, d)], np.int32)
    return Outline(f"u{k}" if uid is None else uid, 40.0 - 2.0 * k, inclusion, points)


def reading(reader: int, *outlines: Outline, malignancy: int | None = 3) -> Reading:
    return Reading(reader, f"{reader}", malignancy, outlines)


def nodules(*readings: Reading) -> list[ConsensusNodule]:
    found, notes = consensus_nodules(LidcRead("1", "2", readings), FRAME)
    assert notes == []
    return found


def voxels(nodule: ConsensusNodule) -> set[tuple[int, int, int]]:
    assert nodule.mask.dtype == np.uint8
    assert set(np.unique(nodule.mask)) <= {0, 1}
    z, y, x = np.add(np.argwhere(nodule.mask), nodule.start_zyx).T.tolist()
    return set(zip(z, y, x, strict=True))


def block(x: int, y: int, size: int, k: int = 3) -> set[tuple[int, int, int]]:
    return {(k, j, i) for j in range(y, y + size) for i in range(x, x + size)}


def test_one_reader() -> None:
    (one,) = nodules(reading(2, ring(10, 5, 4), ring(11, 6, 2, k=5), malignancy=5))
    assert voxels(one) == block(10, 5, 4) | block(11, 6, 2, k=5)
    assert one.start_zyx == (3, 5, 10)
    assert one.mask.shape == (3, 4, 4)
    assert (one.name, one.readers, one.mask_source, one.rating, one.label) == ("", 1, "reader", 5.0, 1.0)


def test_holes_lose_their_outline_too_in_any_order() -> None:
    for outlines in ([ring(10, 5, 9), ring(13, 8, 1, inclusion=False)],) * 2:
        (one,) = nodules(reading(0, *outlines))
        assert voxels(one) == block(10, 5, 9) - block(12, 7, 3)
        outlines.reverse()


def test_inclusions_of_one_slice_are_united() -> None:
    (one,) = nodules(reading(0, ring(10, 5, 3), ring(12, 5, 3), ring(10, 5, 1)))
    assert voxels(one) == block(10, 5, 3) | block(12, 5, 3)


def shifted(readers: int) -> list[Reading]:
    """Each reader one column further right, 4 x 4 pixels."""
    return [reading(k, ring(10 + k, 5, 4)) for k in range(readers)]


@pytest.mark.parametrize(("readers", "columns"), [(1, (10, 14)), (2, (10, 15)), (3, (11, 15)), (4, (11, 16))])
def test_half_of_the_readers(readers: int, columns: tuple[int, int]) -> None:
    (one,) = nodules(*shifted(readers))
    assert {x for _, _, x in voxels(one)} == set(range(*columns))
    assert (one.readers, one.mask_source) == (readers, "consensus" if readers > 1 else "reader")


def test_two_marks_of_one_reader_have_one_vote() -> None:
    marks = [reading(0, ring(10, 5, 3)), reading(0, ring(12, 5, 3)), reading(1, ring(10, 5, 5))]
    (one,) = nodules(*marks, reading(2, ring(10, 5, 5)), reading(3, ring(10, 5, 5)))
    assert one.readers == 4
    assert voxels(one) == block(10, 5, 5)
    (two,) = nodules(*marks[:2], reading(1, ring(11, 5, 3)), reading(2, ring(11, 5, 3)))
    assert voxels(two) == block(11, 5, 3)  # 12 alone has two marks, of one reader


def test_nodules_are_what_shares_a_voxel() -> None:
    touching = nodules(reading(0, ring(10, 5, 4)), reading(1, ring(14, 5, 4)))
    assert [voxels(one) for one in touching] == [block(10, 5, 4), block(14, 5, 4)]
    assert len(nodules(reading(0, ring(10, 5, 4)), reading(1, ring(10, 5, 4, k=4)))) == 2
    assert len(nodules(reading(0, ring(10, 5, 4)), reading(1, ring(13, 8, 4)))) == 1
    joined = nodules(reading(0, ring(10, 5, 4)), reading(1, ring(14, 5, 4)), reading(2, ring(13, 5, 2)))
    assert [one.readers for one in joined] == [3]


def test_boxes_that_overlap_are_not_enough() -> None:
    lower = np.array([(0, 0), (0, 20), (20, 20)], np.int32)
    upper = lower[:, ::-1]
    marks = [reading(k, Outline("u3", 34.0, True, half)) for k, half in enumerate((lower, upper))]
    assert [one.mask.sum() for one in nodules(*marks)] == [171, 171]  # (400 - 20 * 3 + 2) / 2


def test_order_is_that_of_first_marks() -> None:
    far, near = ring(30, 20, 4), ring(10, 5, 4)
    found = nodules(reading(0, far), reading(1, near), reading(2, far), reading(3, near))
    assert [one.start_zyx for one in found] == [(3, 20, 30), (3, 5, 10)]


def test_a_long_chain_has_a_mask() -> None:
    (one,) = nodules(*[reading(k, ring(3 + 3 * k, 5, 4)) for k in range(8)])
    assert one.readers == 8
    assert voxels(one) == {(3, y, 3 + 3 * k) for k in range(1, 8) for y in range(5, 9)}


@pytest.mark.parametrize(
    ("given", "rating", "label"),
    [
        ((1, 5, 5, None), 11 / 3, 1.0),
        ((2, 3), 2.5, 0.0),
        ((3, 3, 3), 3.0, None),
        ((2, 4), 3.0, None),
        ((None, None), None, None),
    ],
)
def test_rating_and_label(given: tuple[int | None, ...], rating: float | None, label: float | None) -> None:
    (one,) = nodules(*[reading(k, ring(10, 5, 4), malignancy=m) for k, m in enumerate(given)])
    assert (one.rating, one.label) == (pytest.approx(rating), label)


def test_rule_is_what_the_code_does() -> None:
    assert json.loads(json.dumps(asdict(LIDC_RULE))) == {
        "name": "lidc-shared-voxel-half-mean-3",
        "same_nodule": "shared voxel",
        "outline": "outside",
        "consensus_share": 0.5,
        "rating": "mean of rated readings",
        "benign_below": 3.0,
        "malignant_above": 3.0,
    }
    assert label_of(3.0, replace(LIDC_RULE, benign_below=3.5)) == 0.0


def test_slice_by_uid_then_by_z() -> None:
    renamed = ring(10, 5, 4, k=7, uid="unknown")
    assert nodules(reading(0, renamed))[0].start_zyx[0] == 7
    assert nodules(reading(0, replace(renamed, z_mm=26.9)))[0].start_zyx[0] == 7
    assert nodules(reading(0, replace(renamed, z_mm=99.0, sop_uid="u4")))[0].start_zyx[0] == 4


@pytest.mark.parametrize("z_mm", [41.1, 0.9, 1e300])
def test_no_such_slice(z_mm: float) -> None:
    with pytest.raises(InputError) as caught:
        nodules(reading(0, replace(ring(10, 5, 4, uid=""), z_mm=z_mm)))
    assert caught.value.problem.code == "E-LIDC-002"


@pytest.mark.parametrize("points", [(-1, 3), (48, 3), (3, -1), (3, 32), (2**31 - 1, -(2**31))])
def test_outside_the_image(points: tuple[int, int]) -> None:
    corners = np.array([(0, 0), (47, 31), points], np.int32)
    with pytest.raises(InputError) as caught:
        nodules(reading(0, Outline("u3", 34.0, True, corners)))
    assert caught.value.problem.code == "E-LIDC-003"


def test_an_outline_along_the_border_is_inside() -> None:
    corners = np.array([(0, 0), (47, 0), (47, 31), (0, 31)], np.int32)
    assert nodules(reading(0, Outline("u3", 34.0, True, corners)))[0].mask.shape == (1, 30, 46)


def test_an_outline_around_nothing_is_named() -> None:
    line = Outline("u3", 34.0, True, np.array([(5, 5), (9, 5), (5, 5)], np.int32))
    assert reading_mask(reading(0, line), FRAME) is None
    found, notes = consensus_nodules(LidcRead("1", "2", (reading(0, line), reading(1, ring(8, 4, 3)))), FRAME)
    assert [one.readers for one in found] == [1]
    assert [(note.code, note.measured) for note in notes] == [("W-LIDC-003", "1 of 2")]


def test_notes_of_the_file_are_passed_on() -> None:
    found, notes = consensus_nodules(LidcRead("1", "2", ()), FRAME)
    assert (found, notes) == ([], [])
