"""Values that are no Hounsfield units: real nodules and volumes changed in the ways that archives do it."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from tests.archive.dicom_files import make_slices, series_of, simple_series, stored_values, write_all
from tests.real import real_data
from toolkit.archive.case import Case
from toolkit.archive.deep import judge_case
from toolkit.archive.dicom_series import SeriesFiles, SeriesRules
from toolkit.archive.hazards import Counts, count_boxes, count_values, judge
from toolkit.archive.hu import Tally
from toolkit.archive.region_rule import RegionRule
from toolkit.archive.volume import open_volume


def codes(values, below=0):
    hu = np.clip(np.rint(values), -1024, 3071).astype(np.int16)
    return [problem.code for problem in judge(count_boxes([hu], below))]


WRONG = {
    "HU + 1024": lambda hu: hu + 1024,
    "HU + 1000": lambda hu: hu + 1000,
    "HU - 1024": lambda hu: hu - 1024,
    "0 to 1": lambda hu: (hu + 1200) / 1600,
    "0 to 255": lambda hu: (hu + 1200) / 1600 * 255,
    "mean 0, deviation 1": lambda hu: (hu + 600) / 400,
    "inverted": lambda hu: 2047 - hu,
    "unsigned": lambda hu: np.where(hu < 0, hu + 65536, hu),
}


@pytest.mark.real
def test_no_false_alarm_and_no_miss_on_real_nodules():
    cubes = np.load(real_data("lidc134_hu_int16_51cube_1mm.npz"))["hu"].astype(float)
    assert [k for k, hu in enumerate(cubes) if codes(hu)] == []
    assert [k for k, hu in enumerate(cubes) if codes(hu[12:39, 12:39, 12:39])] == []
    for name, change in WRONG.items():
        missed = [k for k, hu in enumerate(cubes) if codes(change(hu)) != ["W-HU-010"]]
        assert len(missed) <= 2, name  # of 134


def abdomen(rng, fat):
    """Noisy soft tissue with some fat and a little bone, 64 voxels wide."""
    kind = gaussian_filter(rng.normal(size=(64, 64, 64)), 6)
    hu = np.full(kind.shape, 50.0)
    hu[kind < np.quantile(kind, fat)] = -100
    hu[kind > np.quantile(kind, 0.99)] = 400
    return hu + rng.normal(scale=15, size=kind.shape)


@pytest.mark.parametrize("fat", [0.03, 0.3, 0.9])
def test_an_abdomen_is_no_false_alarm(fat):
    hu = abdomen(np.random.default_rng(0), fat)
    assert codes(hu) == []
    assert codes(np.pad(hu, 16, constant_values=-1024)) == []  # most of it padding
    assert codes(hu + 1024) == ["W-HU-010"]
    assert codes(hu[:20, :20, :20] + 1024) == []  # too little to say


def test_the_message_says_what_was_seen():
    hu = np.clip(np.rint(abdomen(np.random.default_rng(0), 0.2) + 1024), -1024, 3071).astype(np.int16)
    (problem,) = judge(count_boxes([hu], 0))
    assert "0 % are darker than -20 HU" in problem.measured
    assert "perhaps HU + 1024" in problem.measured
    assert problem.files == ()


def test_a_histogram_is_counted_like_its_voxels():
    rng = np.random.default_rng(0)
    hu = rng.integers(-1024, 3072, 5000).astype(np.int16)
    bins, times = np.unique(hu, return_counts=True)
    one = count_boxes([hu.reshape(10, 20, 25)], 7)
    assert count_values(bins, times, 7) == one
    assert one.dark == ((hu > -1024) & (hu < -20)).sum()
    halves = count_boxes([hu[:2000].reshape(10, 200, 1), hu[2000:].reshape(10, 300, 1)], 7)
    assert halves == one
    assert Counts() + one == one


def tally(source):
    seen = Tally()
    source.read_boxes([source.geometry.box], seen)
    return seen.below


@pytest.mark.parametrize("padding", [None, -2000])
def test_below_air_is_counted_where_no_padding_is_named(tmp_path, padding):
    stored = stored_values(bits=16, signed=True) // 16
    stored[2, 1:3] = -2000
    write_all(tmp_path, make_slices(stored, bits=(16, 16, 15), signed=True, intercept=0, padding=padding))
    truth = int((stored < -1024).sum())
    assert truth > 20
    assert tally(series_of(tmp_path)) == (truth if padding is None else 0)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.uint16])
def test_below_air_in_volume_files(tmp_path, dtype):
    array = (
        np.random.default_rng(0).integers(0 if dtype == np.uint16 else -3000, 3000, (4, 5, 6)).astype(dtype)
    )
    path = tmp_path / "a.mha"
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    assert tally(open_volume(str(path))) == int((array < -1024).sum())


def test_note_of_unnamed_padding():
    assert codes(np.zeros((10, 10, 10)), below=2) == ["W-HU-002"]
    assert codes(np.zeros((10, 10, 10)), below=1) == []


def judged(folder):
    source = series_of(folder)
    case = Case("a", "b", str(folder), None, unopened=SeriesFiles("1.2", source.files, SeriesRules()))
    return judge_case((case, 3.0, RegionRule()))


def test_all_slices_are_judged(tmp_path):
    """One slice of eight is read with the wrong intercept: all of its voxels count."""
    stored = np.rint(abdomen(np.random.default_rng(0), 0.3)[:8]).astype(int) + 1024
    write_all(tmp_path / "right", make_slices(stored, intercept=-1024))
    write_all(tmp_path / "wrong", make_slices(stored, intercept=0))
    right, wrong = judged(tmp_path / "right"), judged(tmp_path / "wrong")
    assert [n.code for n in right.case.notes] == []
    assert [n.code for n in wrong.case.notes] == ["W-HU-010"]
    assert right.bytes_read == 8 * 64 * 64 * 2
    assert {problem for _, problem in right.files} == {None}
    assert right.nodules == 0


def test_a_slice_that_cannot_be_decoded_refuses_its_case_by_name(tmp_path):
    paths = simple_series(tmp_path)
    series = series_of(tmp_path)
    paths[3].write_bytes(paths[3].read_bytes()[:-10])
    case = Case("a", "b", "c", None, unopened=SeriesFiles("1.2", series.files, SeriesRules()))
    found = judge_case((case, 3.0, RegionRule()))
    assert found.case.problem.code == "E-FILE-006"
    assert found.nodules is None
    assert [path for path, problem in found.files if problem] == [str(paths[3])]
    assert len(found.files) == 6
