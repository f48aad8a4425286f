"""From a raw archive to the same numbers as from a store, resumed, and with every refusal named."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.inference.model_folders import CONTRACT, write_single
from tests.preprocess.archives import KEY
from toolkit.errors import NothingFoundError, UsageError
from toolkit.inference.archive import Source, predict_archive, predict_ready, settings_of
from toolkit.inference.predictor import Predictor, open_predictor, predict_store
from toolkit.preprocess.run import Job, preprocess
from toolkit.store import Store


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    folder = tmp_path_factory.mktemp("model")
    write_single(folder)
    return open_predictor(folder, "cpu")


@pytest.fixture(scope="module")
def index_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("index")


def test_an_archive_gives_what_its_store_gives_bit_for_bit(
    phantom_archive: Path, tmp_path: Path, predictor: Predictor, index_cache: Path
) -> None:
    source = Source(phantom_archive, KEY, index_cache=index_cache)
    answer = predict_archive(predictor, source, names=True)
    assert answer.exit_code == 0
    job = Job(
        phantom_archive,
        tmp_path / "s",
        KEY,
        settings=settings_of(predictor.file.input, source),
        index_cache=index_cache,
    )
    preprocess(job)
    scores = predict_store(predictor, Store.open(tmp_path / "s"))
    assert answer.scores is not None
    assert answer.scores.rows() == scores.rows()
    np.testing.assert_array_equal(answer.scores.logit, scores.logit)
    assert answer.names is not None
    with (tmp_path / "s.crosswalk.csv").open() as file:
        back = {row["hash"]: row["identifier"] for row in csv.DictReader(file)}
    assert {hashed: name.case_name for hashed, name in answer.names.items()} == {
        nodule.case_id: back[nodule.case_id] for nodule in scores.nodules
    }


def test_an_archive_gives_what_the_training_store_gave(
    phantom_archive: Path, phantom_store: Store, predictor: Predictor, index_cache: Path
) -> None:
    """A margin moves the corner of a crop, so positions are rounded elsewhere: a rare voxel by 1 HU."""
    answer = predict_archive(predictor, Source(phantom_archive, KEY, index_cache=index_cache))
    trained = predict_store(predictor, phantom_store)
    assert answer.scores is not None
    assert [n.nodule_id for n in answer.scores.nodules] == [n.nodule_id for n in trained.nodules]
    np.testing.assert_allclose(answer.scores.logit, trained.logit, rtol=0, atol=2e-3 * np.ptp(trained.logit))


@pytest.mark.parametrize(
    ("size", "half_voxel", "edge_mm"), [(32, False, 0.0), (31, True, 0.0), (24, False, 2.5)]
)
def test_crops_are_cut_as_in_training(
    phantom_archive: Path,
    phantom_store: Store,
    tmp_path: Path,
    index_cache: Path,
    size: int,
    half_voxel: bool,
    edge_mm: float,
) -> None:
    mode = "soft" if edge_mm else "none"
    contract = replace(CONTRACT, size=size, half_voxel=half_voxel, edge_mm=edge_mm, mask_mode=mode)
    write_single(tmp_path / "model", input=contract)
    model = open_predictor(tmp_path / "model", "cpu")
    keep = tmp_path / "keep"
    answer = predict_archive(model, Source(phantom_archive, KEY, keep, index_cache=index_cache))
    made = Store.open(keep)
    for i in range(len(made)):
        part = (phantom_store.size + 2 * phantom_store.margin - (made.size + 2 * made.margin)) // 2
        inner = slice(part, part + made.size + 2 * made.margin)
        apart = made.image(i).astype(int) - phantom_store.image(i)[inner, inner, inner]
        assert np.abs(apart).max() <= 1
        assert np.count_nonzero(apart) < 1e-3 * apart.size
    trained = predict_store(model, phantom_store)
    assert answer.scores is not None
    np.testing.assert_allclose(answer.scores.logit, trained.logit, rtol=0, atol=2e-3 * np.ptp(trained.logit))


def test_a_kept_store_resumes(
    phantom_archive: Path, tmp_path: Path, predictor: Predictor, index_cache: Path
) -> None:
    source = Source(phantom_archive, KEY, tmp_path / "keep", index_cache=index_cache)
    first = predict_archive(predictor, source)
    (tmp_path / "keep" / "ledger" / "00000.jsonl").unlink()  # as after a kill before the commit
    second, third = predict_archive(predictor, source), predict_archive(predictor, source)
    assert first.summary is not None
    assert second.summary is not None
    assert third.summary is not None
    assert (first.summary.resumed, second.summary.resumed, third.summary.resumed) == (0, 0, 6)
    assert first.scores is not None
    for other in (second, third, predict_ready(predictor, tmp_path / "keep")):
        assert other.scores is not None
        assert other.scores.rows() == first.scores.rows()


def test_nothing_is_left_behind(
    phantom_archive: Path, tmp_path: Path, predictor: Predictor, index_cache: Path, monkeypatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    predict_archive(predictor, Source(phantom_archive, KEY, index_cache=index_cache))
    assert list(tmp_path.iterdir()) == []


def test_an_archive_without_a_nodule_is_told_from_one_without_a_scan(
    lidc_like: Path, tmp_path: Path, predictor: Predictor
) -> None:
    with pytest.raises(NothingFoundError, match="E-PRED-003") as caught:
        predict_archive(predictor, Source(lidc_like, KEY, index_cache=tmp_path / "i"))
    assert "1 scans are read" in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingFoundError, match="E-CASE-004"):
        predict_archive(predictor, Source(tmp_path / "empty", KEY, index_cache=tmp_path / "i"))
    with pytest.raises(UsageError, match="E-FILE-001"):
        predict_archive(predictor, Source(tmp_path / "none", KEY, index_cache=tmp_path / "i"))


@pytest.fixture
def lidc_like(tmp_path: Path) -> Path:
    from tests.archive.dicom_files import make_slices, stored_values, write_all

    write_all(tmp_path / "unmarked", make_slices(stored_values()))
    return tmp_path / "unmarked"


def test_a_kept_store_of_another_model_is_refused(
    phantom_archive: Path, tmp_path: Path, predictor: Predictor, index_cache: Path
) -> None:
    source = Source(phantom_archive, KEY, tmp_path / "keep", index_cache=index_cache)
    predict_archive(predictor, source)
    write_single(tmp_path / "other", input=replace(CONTRACT, size=24))
    with pytest.raises(Exception, match="E-STORE-002"):
        predict_archive(open_predictor(tmp_path / "other", "cpu"), source)


def test_names_need_the_crosswalk(phantom_store: Store, predictor: Predictor, tmp_path: Path) -> None:
    images = np.stack([phantom_store.image(i) for i in range(len(phantom_store))])
    masks = np.stack([phantom_store.mask(i) for i in range(len(phantom_store))])
    made = Store.create(
        tmp_path / "s", phantom_store.nodules, images, masks, 1.0, margin=phantom_store.margin
    )
    with pytest.raises(UsageError, match="E-PRED-005"):
        predict_ready(predictor, made.path, names=True)
    assert predict_ready(predictor, made.path).scores is not None
