"""A store of many shards: what is mapped is bounded, the order of names holds, and ledgers are read once."""

import gc
import resource
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scale_rows import NODULES, write_rows
from tests.loading.records import nodule
from toolkit.errors import StoreError
from toolkit.store import Store
from toolkit.store.files import write_atomic
from toolkit.store.format import digest, images_path, ledger_path, sealed, shard_name, unseal
from toolkit.store.ledger import committed

SERIES = 480  # 60 shards, 120 arrays


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp("rows")
    write_rows(work, SERIES, 1)
    return work / "store"


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_a_store_needs_few_file_descriptors(rows) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()  # what tests before it left open
    before = descriptors()
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(256, before + 80), hard))
    try:
        store = Store.open(rows)
        assert descriptors() == before
        for place in range(0, len(store), NODULES):
            assert store.image(place).shape == store.mask(place).shape == (96, 96, 96)
        used = descriptors() - before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert 0 < used <= 2 * max(256, before + 80) // 8


def small(path: Path) -> Store:
    images = np.arange(130 * 8, dtype=np.int16).reshape(130, 2, 2, 2)
    records = [nodule(f"n{k:03}", f"p{k:03}", 1.0, 5.0) for k in range(130)]
    return Store.create(path, records, images, np.zeros(images.shape, np.uint8), 1.0)


def test_a_crop_outlives_the_map_of_its_shard(tmp_path: Path) -> None:
    store = small(tmp_path / "s")
    crops = [store.image(k) for k in range(130)]
    store._images.cache_clear()  # as other shards would do to it
    np.testing.assert_array_equal(np.stack(crops).ravel(), np.arange(130 * 8))
    with pytest.raises(ValueError, match="read-only"):
        crops[0][0, 0, 0] = 1


def test_a_shard_that_was_replaced_meanwhile_is_named(tmp_path: Path) -> None:
    store = small(tmp_path / "s")
    path = images_path(store.path, "00001")
    content = path.read_bytes()
    write_atomic(path, content)  # the same bytes in another file: its ledger may have changed, too
    store.image(0)
    with pytest.raises(StoreError, match="E-STORE-003") as caught:
        store.image(64)
    assert caught.value.problem.files == (str(path),)


def test_shards_keep_their_order_beyond_99_999(tmp_path: Path) -> None:
    names = [shard_name(number) for number in (7, 99_999, 100_000, 100_001, 1_000_000)]
    (tmp_path / "ledger").mkdir()
    for name in reversed(names):
        ledger_path(tmp_path, name).touch()
    assert committed(tmp_path) == names


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1, "z": [1.5, None, "\u00e4"]},
        {"a": {"digest": "inner"}, "b": 2},
        {"a": '"digest":"', "b": ""},
        {"a": "stands before, so that the digest is last"},
    ],
)
def test_a_sealed_line_is_read_back(value, tmp_path: Path) -> None:
    line = sealed(value)
    assert unseal(line, tmp_path) == value
    # the seal moved, doubled, or set with another spelling of the same JSON
    told = b'"digest":"%b",' % digest(line).encode()
    for wrong in (line[:-1], line + b"\n", b" " + line, line.replace(b":", b": ", 1), told + line):
        with pytest.raises(StoreError, match="E-STORE-003"):
            unseal(wrong, tmp_path)


def test_texts_of_a_patient_are_kept_once(rows) -> None:
    first, second = Store.open(rows).nodules[:2]
    assert first.patient_id is second.patient_id
    assert first.case_id is second.case_id
    assert not hasattr(first, "__dict__")
