"""A mask saved as a CT series gives the nodules that it gives as a label volume."""

import numpy as np
import pytest

from tests.archive.dicom_files import CORONAL, make_slices, positions, stored_values, write_all
from tests.archive.volume_files import write_nifti
from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.regions import find
from toolkit.errors import InputError

SHAPE = (14, 16, 18)
HEAD = "case_id,patient_id,image,mask,mask_series_uid,nodule_id,label\n"


def labels(*values):
    mask = np.zeros(SHAPE, np.int64)
    for k, value in enumerate(values):
        mask[3 + 5 * k : 6 + 5 * k, 4:9, 3 : 8 + k] = value
    return mask


def write(folder, mask, plane, **changes):
    write_all(folder, make_slices(mask, plane, series="1.2.9", **{"slope": 1, "intercept": 0, **changes}))


def nodules(tmp_path, lines, plane=None):
    if plane is not None:
        write_all(tmp_path / "ct", make_slices(stored_values(SHAPE), plane, intercept=-1024))
    (tmp_path / "cases.csv").write_text(HEAD + lines)
    found = catalog(tmp_path, tmp_path / "cases.csv", SeriesRules(), IndexCache(None))
    (case,) = found.cases
    if case.problem is not None:
        raise InputError(case.problem)
    return find(case, case.source, 0.1), case


@pytest.mark.parametrize("plane", [((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), CORONAL])
def test_equal_to_a_label_volume(tmp_path, plane):
    mask = labels(1, 2)
    write(tmp_path / "mask", mask, plane)
    (found, notes), case = nodules(tmp_path, "c,p,ct,mask,,,\n", plane)
    write_nifti(tmp_path / "m.nii", mask.astype(np.int16), case.source.native.affine)
    (wanted, _), _ = nodules(tmp_path, "c,p,ct,m.nii,,,\n")
    assert notes == []
    assert [f.name for f in found] == ["1", "2"]
    for one, other in zip(found, wanted, strict=True):
        assert (one.box, one.mask_source) == (other.box, "volume")
        np.testing.assert_array_equal(one.mask, other.mask)
        np.testing.assert_allclose(one.center_lps_mm, other.center_lps_mm, atol=1e-6)
        assert one.volume_mm3 == pytest.approx(other.volume_mm3)


@pytest.mark.parametrize(
    ("high", "changes"),
    [
        (1, {"intercept": -1024}),  # the rescale of the scan was left in the file
        (255, {"intercept": -1024}),
        (1, {"intercept": 0, "padding": 0}),  # the background is called padding
        (1, {"intercept": 0, "slope": 1.0, "bits": (8, 8, 7)}),
    ],
)
def test_rescaled_or_stored_values(tmp_path, high, changes):
    plane = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    write(tmp_path / "mask", labels(high), plane, **changes)
    ((found,), _), _ = nodules(tmp_path, "c,p,ct,mask,,n1,1\n", plane)
    assert (int(found.mask.sum()), found.name, found.label) == (75, "n1", 1.0)


def test_values_stored_with_the_scans_offset(tmp_path):
    plane = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    write(tmp_path / "mask", labels(1) + 1024, plane, intercept=-1024)
    ((found,), _), _ = nodules(tmp_path, "c,p,ct,mask,,,\n", plane)
    assert int(found.mask.sum()) == 75


def test_a_series_without_rescale_and_one_among_several_in_a_folder(tmp_path):
    plane = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    slices = make_slices(labels(1), plane, series="1.2.9")
    for d in slices:
        del d.RescaleSlope, d.RescaleIntercept
    write_all(tmp_path / "both", slices)
    for path in (tmp_path / "both").iterdir():
        path.rename(path.with_name(f"m{path.name}"))
    write_all(tmp_path / "both", make_slices(stored_values(SHAPE), plane, intercept=-1024))
    head = HEAD.replace("image,", "image,series_uid,")
    (tmp_path / "cases.csv").write_text(f"{head}c,p,both,1.2.3,both,1.2.9,,\n")
    (case,) = catalog(tmp_path, tmp_path / "cases.csv", SeriesRules(), IndexCache(None)).cases
    assert case.problem is None
    assert len(find(case, case.source, 0.1)[0]) == 1
    (tmp_path / "cases.csv").write_text(f"{head}c,p,both,1.2.3,both,,,\n")
    (case,) = catalog(tmp_path, tmp_path / "cases.csv", SeriesRules(), IndexCache(None)).cases
    assert "mask_series_uid" in str(case.problem)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda mask, plane: (mask - 5, {"places": None, "signed": True}), "E-MASK-003"),
        (lambda mask, plane: (mask[:-2], {}), "E-MASK-001"),
        (lambda mask, plane: (mask, {"places": positions(SHAPE[0], plane) + 3.0}), "E-MASK-001"),
        (lambda mask, plane: (mask[:2], {}), "E-GEO-001"),
    ],
)
def test_what_cannot_be_its_mask_is_refused(tmp_path, change, code):
    plane = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    mask, changes = change(labels(1), plane)
    write(tmp_path / "mask", mask, plane, **changes)
    with pytest.raises(InputError) as caught:
        nodules(tmp_path, "c,p,ct,mask,,,\n", plane)
    assert caught.value.problem.code == code


def test_an_edited_mask_changes_the_key(tmp_path):
    plane = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    digests = []
    for mask in (labels(1), labels(1)[:, ::-1]):
        write(tmp_path / "mask", mask, plane)
        digests.append(nodules(tmp_path, "c,p,ct,mask,,,\n", plane)[1].digest)
    assert digests[0] != digests[1]
