"""LIDC-IDRI itself: known volumes, and nodules against two lists that others made."""

import csv
from collections import Counter, defaultdict

import numpy as np
import pydicom
import pytest

from tests.real import real_data, unpack
from toolkit.archive.consensus import consensus_nodules, same_nodule
from toolkit.archive.lidc import LidcRead, combine_reads, read_lidc
from toolkit.archive.lidc_head import sniff_lidc
from toolkit.archive.reader_mask import SliceFrame, VoxelMask, reading_mask

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def case_0001(tmp_path_factory: pytest.TempPathFactory) -> tuple[LidcRead, SliceFrame, float]:
    """Readings, the stack of slices by ascending z, and mm3 of a voxel."""
    folder = unpack(real_data("lidc-idri-0001_ct133.tar.xz"), tmp_path_factory.mktemp("ct"))
    slices = [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.rglob("*.dcm")]
    slices.sort(key=lambda header: float(header.ImagePositionPatient[2]))
    (xml,) = folder.rglob("069.xml")
    assert sniff_lidc(xml) == slices[0].SeriesInstanceUID
    z_mm = np.array([float(header.ImagePositionPatient[2]) for header in slices])
    by_uid = {str(header.SOPInstanceUID): k for k, header in enumerate(slices)}
    frame = SliceFrame(512, 512, by_uid, z_mm, 1.25)
    return read_lidc(xml), frame, 0.703125**2 * 2.5


def test_reader_volumes(case_0001: tuple[LidcRead, SliceFrame, float]) -> None:
    read, frame, voxel_mm3 = case_0001
    masks = [reading_mask(reading, frame) for reading in read.readings]
    volumes = [round(float(mask.inside.sum()) * voxel_mm3) for mask in masks if mask]
    assert volumes == [7298, 5701, 6124, 6795]
    assert [reading.malignancy for reading in read.readings] == [5, 5, 5, 4]


def test_consensus(case_0001: tuple[LidcRead, SliceFrame, float]) -> None:
    read, frame, voxel_mm3 = case_0001
    (nodule,), notes = consensus_nodules(read, frame)
    assert notes == []
    assert nodule.mask.sum() * voxel_mm3 == pytest.approx(6709, abs=0.5)
    assert (nodule.rating, nodule.label, nodule.readers, nodule.mask_source) == (4.75, 1.0, 4, "consensus")
    _, y, x = np.argwhere(nodule.mask).mean(axis=0) + nodule.start_zyx
    assert (x, y) == (pytest.approx(317, abs=2.5), pytest.approx(367, abs=2.5))  # the Cornell list


def test_slices_found_by_z_are_those_found_by_uid(case_0001: tuple[LidcRead, SliceFrame, float]) -> None:
    read, frame, _ = case_0001
    by_z = SliceFrame(frame.rows, frame.columns, {}, frame.slice_z_mm, frame.z_tolerance_mm)
    (one,), (other,) = consensus_nodules(read, frame)[0], consensus_nodules(read, by_z)[0]
    assert one.start_zyx == other.start_zyx
    np.testing.assert_array_equal(one.mask, other.mask)


@pytest.fixture(scope="module")
def all_reads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LidcRead]:
    folder = unpack(real_data("lidc_idri_xml_1318.tar.xz"), tmp_path_factory.mktemp("xml"))
    by_series: dict[str, list[LidcRead]] = defaultdict(list)
    for path in sorted(folder.rglob("*.xml")):
        if series := sniff_lidc(path):
            by_series[series].append(read_lidc(path))
            assert by_series[series][-1].series_uid == series
    assert sum(map(len, by_series.values())) == 1035
    return {series: combine_reads(reads) for series, reads in by_series.items()}


@pytest.fixture(scope="module")
def groups(all_reads: dict[str, LidcRead]) -> dict[str, tuple[list[VoxelMask], list[list[int]]]]:
    """Masks and nodules of each series; slices are known from the outlines only."""
    found = {}
    for series, read in all_reads.items():
        z_by_uid = {o.sop_uid: o.z_mm for reading in read.readings for o in reading.outlines}
        z_mm = sorted(set(z_by_uid.values()))
        uids = {uid: z_mm.index(z) for uid, z in z_by_uid.items()}
        frame = SliceFrame(512, 512, uids, np.array(z_mm), 0.1)
        masks = [mask for reading in read.readings if (mask := reading_mask(reading, frame))]
        assert len(masks) == len(read.readings)
        found[series] = (masks, same_nodule(masks))
    return found


@pytest.mark.slow
def test_counts(all_reads: dict[str, LidcRead]) -> None:
    reads = all_reads.values()
    assert len(reads) == 1018
    assert sum(len(read.readings) for read in reads) == 6860  # 6,862 less two that have one point
    assert Counter(note.code for read in reads for note in read.notes) == {"W-LIDC-002": 6}


def bare(name: str) -> str:
    return str(int(name)) if name.isdigit() else name  # the list lost leading zeros


Marks = tuple[str, ...]
Listed = dict[Marks, tuple[float, float, float]]  # column, row, volume by the marks of a nodule


@pytest.mark.slow
def test_nodules_and_volumes_against_the_cornell_list(
    all_reads: dict[str, LidcRead], groups: dict[str, tuple[list[VoxelMask], list[list[int]]]]
) -> None:
    voxel = {r["serisuid"]: float(r["pixel_x"]) * float(r["pixel_y"]) * float(r["pixel_z"]) for r in info()}
    patient = {r["serisuid"]: int(r["patient_id"][-4:]) for r in info()}
    mine = {series: listed(all_reads[series], *groups[series]) for series in groups}
    same, close, compared = 0, 0, 0
    for case, theirs in cornell_list():  # it names patients, of whom eight have a second scan, and no series
        scans = [series for series in mine if patient.get(series, case) == case]
        series = max(scans, key=lambda s: (len(agree(mine[s], theirs)), s in patient))
        for marks in agree(mine[series], theirs):
            same += 1
            if series in voxel:
                compared += 1
                close += abs(mine[series][marks][2] * voxel[series] / theirs[marks][2] - 1) < 0.001
    assert same == 2633
    assert compared > 2500
    assert close / compared > 0.99


def agree(mine: Listed, theirs: Listed) -> list[Marks]:
    """Return the nodules with the same marks at the same place."""
    return [k for k in mine.keys() & theirs.keys() if np.hypot(*np.subtract(mine[k], theirs[k])[:2]) < 15]


def listed(read: LidcRead, masks: list[VoxelMask], nodules: list[list[int]]) -> Listed:
    """Return nodules as the Cornell list does: its volume is the median of the readers', here in voxels."""
    found = {}
    for nodule in nodules:
        low = np.mean([masks[i].start_zyx for i in nodule], axis=0)
        high = np.mean([masks[i].stop_zyx for i in nodule], axis=0)
        marks = tuple(sorted(bare(read.readings[i].nodule_id) for i in nodule))
        volume = float(np.median([masks[i].inside.sum() for i in nodule]))
        found[marks] = (float(low[2] + high[2]) / 2, float(low[1] + high[1]) / 2, volume)
    return found


def cornell_list() -> list[tuple[int, Listed]]:
    """Return the case number and the nodules of each scan."""
    scans: dict[tuple[str, str], Listed] = defaultdict(dict)
    with real_data("lidc_cornell_size_list3.2.csv").open() as file:
        for row in list(csv.reader(file))[1:]:
            marks = tuple(sorted(bare(c) for c in row[10:] if c))
            scans[row[1], row[2]][marks] = (float(row[6]), float(row[7]), float(row[4]))
    assert sum(map(len, scans.values())) == 2635
    return [(int(case), nodules) for (case, _), nodules in scans.items()]


def info() -> list[dict[str, str]]:
    with real_data("lidc_nodule_info_2625.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_ratings_against_the_clustered_list(
    all_reads: dict[str, LidcRead], groups: dict[str, tuple[list[VoxelMask], list[list[int]]]]
) -> None:
    theirs: dict[str, Counter[float]] = defaultdict(Counter)
    for row in info():
        theirs[row["serisuid"]][round(float(row["malignancy_level"]), 3)] += 1
    same = 0
    for series, ratings in theirs.items():
        rated = [reading.malignancy or 0 for reading in all_reads[series].readings]
        mine = Counter(round(float(np.mean([rated[i] for i in nodule])), 3) for nodule in groups[series][1])
        same += (mine & ratings).total()
    assert sum(ratings.total() for ratings in theirs.values()) == 2625
    assert same >= 2622
