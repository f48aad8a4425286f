"""The phantom in every format, through the command line's own road, against its table of truth."""

import csv

import numpy as np
import pytest

from toolkit.phantom.archive import write_archive
from toolkit.phantom.formats import FORMATS
from toolkit.preprocess.identity import IdKey
from toolkit.preprocess.plan import Settings
from toolkit.preprocess.run import Job, preprocess
from toolkit.store import Store


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    out = tmp_path_factory.mktemp("every") / "archive"
    write_archive(out, patients=len(FORMATS), seed=5)
    return out


@pytest.mark.parametrize("with_manifest", [False, True])
def test_nodules_and_labels_are_those_of_the_truth(archive, tmp_path, with_manifest):
    job = Job(
        archive,
        tmp_path / "store",
        IdKey(b"test"),
        manifest=archive / "cases.csv" if with_manifest else None,
        labels=None if with_manifest else archive / "labels.csv",
        settings=Settings(size=24, margin=0),
        workers=2,
    )
    summary = preprocess(job)
    assert (summary.cases, summary.done, summary.refused) == (len(FORMATS), len(FORMATS), {})
    with (archive / "truth.csv").open() as file:
        truth = list(csv.DictReader(file))
    nodules = Store.open(tmp_path / "store").nodules
    assert len(nodules) == len(truth)
    assert {row["format"] for row in truth} == set(FORMATS)
    centers = np.array([nodule.center_lps_mm for nodule in nodules])
    seen = set()
    for row in truth:
        away = np.linalg.norm(centers - [float(row[f"{axis}_mm"]) for axis in "xyz"], axis=1)
        found = nodules[int(away.argmin())]
        seen.add(found.nodule_id)
        assert away.min() < 0.02, row["format"]
        assert found.diameter_mm == pytest.approx(float(row["diameter_mm"]), abs=2e-3), row["format"]
        assert found.label == float(row["label"]), row["format"]
        if row["format"] != "mhd":  # positions have no volume
            assert found.volume_mm3 == pytest.approx(float(row["volume_mm3"]), rel=1e-4), row["format"]
    assert len(seen) == len(truth)
