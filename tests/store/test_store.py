"""The store: what was put in comes out, and every damaged byte is named."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import ResourceError, StoreError
from toolkit.store import Nodule, Store, files
from toolkit.store.files import open_temporary, publish
from toolkit.store.format import array_header, images_path, ledger_path
from toolkit.store.ledger import Entry, is_complete
from toolkit.store.log import RunLog
from toolkit.store.verify import verify
from toolkit.store.writer import ShardWriter, write_settings

SIDE = 5


def crops(count: int) -> tuple[list[Nodule], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    records = [
        Nodule(
            f"n{i}",
            f"c{i // 2}",
            f"p{i // 4}",
            [0.0, 1.0, None][i % 3],
            4.0 + i,
            33.0 + i,
            (1.5, -2.0, i),
            0.1,
            "volume",
        )
        for i in range(count)
    ]
    images = rng.integers(-1024, 3071, (count, SIDE, SIDE, SIDE)).astype(np.int16)
    return records, images, rng.integers(0, 256, images.shape).astype(np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Nodule], np.ndarray, np.ndarray]:
    path = tmp_path_factory.mktemp("store") / "store"
    records, images, masks = crops(70)
    Store.create(path, records, images, masks, spacing_mm=0.7, margin=1)
    return path, records, images, masks


def test_what_was_put_in_comes_out(made) -> None:
    path, records, images, masks = made
    store = Store.open(path)
    assert list(store.nodules) == records
    assert (len(store), store.spacing_mm, store.size, store.margin) == (70, 0.7, 3, 1)
    for i in (0, 1, 63, 64, 69, -1):
        np.testing.assert_array_equal(store.image(i), images[i])
        np.testing.assert_array_equal(store.mask(i), masks[i])
    assert store.image(3).dtype == np.int16
    assert store.mask(3).dtype == np.uint8
    np.testing.assert_array_equal(np.concatenate([shard.images for shard in store.shards]), images)


def test_crops_are_memory_mapped_and_read_only(made) -> None:
    image = Store.open(made[0]).image(2)
    assert isinstance(image.base if not isinstance(image, np.memmap) else image, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1


def test_shards_are_plain_numpy_files(made) -> None:
    path, _, images, _ = made
    np.testing.assert_array_equal(np.load(path / "shards/00000.images.npy", allow_pickle=False), images[:64])
    assert not [p for p in path.rglob("*") if p.suffix in (".pkl", ".pickle", ".pt")]


@pytest.mark.parametrize("index", [70, -71])
def test_an_index_outside_is_refused(made, index: int) -> None:
    with pytest.raises(IndexError):
        Store.open(made[0]).image(index)


def test_a_sound_store_has_no_problem(made) -> None:
    assert list(verify(made[0])) == []


def test_create_refuses_what_does_not_fit(tmp_path: Path, made) -> None:
    records, images, masks = crops(3)
    with pytest.raises(ValueError, match="must be"):
        Store.create(tmp_path / "a", records[:2], images, masks, 1.0)
    with pytest.raises(ValueError, match="must be"):
        Store.create(tmp_path / "b", records, images.astype(np.float32), masks, 1.0)
    with pytest.raises(StoreError) as caught:
        Store.create(made[0], records, images, masks, 1.0)
    assert caught.value.problem.code == "E-STORE-005"


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_is_named(made, tmp_path_factory: pytest.TempPathFactory, data) -> None:
    path = tmp_path_factory.mktemp("flip") / "store"
    shutil.copytree(made[0], path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    target = data.draw(st.sampled_from(files), label="file")
    content = bytearray(target.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1), label="byte")
    content[at] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    target.write_bytes(content)
    named = {name for problem in verify(path) for name in problem.files}
    assert str(target) in named
    shutil.rmtree(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_truncated_or_lost_file_is_named(made, tmp_path_factory: pytest.TempPathFactory, data) -> None:
    path = tmp_path_factory.mktemp("cut") / "store"
    shutil.copytree(made[0], path)
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != "store.json")
    target = data.draw(st.sampled_from(files), label="file")
    size = target.stat().st_size
    keep = data.draw(st.one_of(st.none(), st.integers(0, size - 1)), label="keep")
    if keep is None:
        target.unlink()
    else:
        os.truncate(target, keep)
    named = {name for problem in verify(path) for name in problem.files}
    lost_ledger = target.parent.name == "ledger" and keep is None
    expected = str(images_path(path, target.stem)) if lost_ledger else str(target)
    assert expected in named
    shutil.rmtree(path)


def test_opening_a_damaged_store_names_the_file(made, tmp_path: Path) -> None:
    path = tmp_path / "store"
    shutil.copytree(made[0], path)
    os.truncate(images_path(path, "00001"), 300)
    with pytest.raises(StoreError, match="E-STORE-003") as caught:
        Store.open(path)
    assert caught.value.problem.files == (str(images_path(path, "00001")),)


@pytest.mark.parametrize("count", [0, 1, 9, 99_999, 10**9])
def test_our_array_header_is_numpys(tmp_path: Path, count: int) -> None:
    header = array_header("<i2", count, 96)
    assert len(header) == 128
    with (tmp_path / "a.npy").open("wb") as file:
        file.write(header)
        file.seek(0)
    with (tmp_path / "a.npy").open("rb") as file:
        version = np.lib.format.read_magic(file)
        assert version == (1, 0)
        assert np.lib.format.read_array_header_1_0(file) == ((count, 96, 96, 96), False, np.dtype("<i2"))


def test_nothing_is_seen_before_commit(tmp_path: Path) -> None:
    store = tmp_path / "s"
    write_settings(store, {"spacing_mm": 1.0, "size": SIDE, "margin": 0})
    records, images, masks = crops(2)
    with ShardWriter(store, "00000", SIDE) as writer:
        writer.append(Entry("c0", "p0", "k0", "done"), records, images, masks)
        assert len(Store.open(store)) == 0
    assert list(store.rglob("*.tmp")) == []
    assert len(Store.open(store)) == 0
    assert not is_complete(store, "00000", [("c0", "k0")], SIDE)


def test_a_second_writer_of_a_shard_is_refused(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "00000", SIDE), pytest.raises(StoreError, match="E-STORE-004"):
        ShardWriter(tmp_path, "00000", SIDE)


def test_a_temporary_file_of_a_killed_run_is_used_again(tmp_path: Path) -> None:
    final = tmp_path / "a.npy"
    (tmp_path / "a.npy.tmp").write_bytes(b"left behind")
    file = open_temporary(final)
    file.write(b"new")
    publish(file, final)
    assert final.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_a_shard_without_nodules_has_a_ledger_only(tmp_path: Path) -> None:
    empty = np.empty((0, SIDE, SIDE, SIDE), np.int16)
    with ShardWriter(tmp_path, "00000", SIDE) as writer:
        writer.append(Entry("c0", "p0", "k0", "empty"), [], empty, empty.astype(np.uint8))
        writer.commit()
    assert [p.name for p in (tmp_path / "shards").iterdir()] == []
    assert ledger_path(tmp_path, "00000").exists()
    assert is_complete(tmp_path, "00000", [("c0", "k0")], SIDE)


def test_a_failed_write_is_a_resource_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="No space left") as caught:
        write_settings(tmp_path / "s", {"spacing_mm": 1.0})
    assert caught.value.exit_code == 75


def test_a_header_is_written_whole_however_little_the_system_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:7], at))
    records, images, masks = crops(2)
    store = Store.create(tmp_path / "s", records, images, masks, 1.0)
    np.testing.assert_array_equal(store.image(1), images[1])
    assert list(verify(tmp_path / "s")) == []


def test_a_shard_that_does_not_fit_ends_with_75(tmp_path: Path) -> None:
    records, images, masks = crops(2)

    def write() -> None:
        with ShardWriter(tmp_path, "00000", SIDE) as writer:
            writer.append(Entry("c0", "p0", "k0", "done"), records, images, masks)
            full = os.open("/dev/full", os.O_WRONLY)  # closing writes what still waits, and fails
            os.dup2(full, writer._crops._files[1][0].fileno())
            os.close(full)
            writer.commit()

    with pytest.raises(ResourceError) as caught:
        write()
    assert caught.value.exit_code == 75
    assert not ledger_path(tmp_path, "00000").exists()
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_new_folder_is_as_durable_as_what_is_put_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_folder", synced.append)
    files.make_folder(tmp_path / "a" / "b")
    assert {tmp_path, tmp_path / "a"} == {*synced}
    synced.clear()
    files.make_folder(tmp_path / "a" / "b")  # a killed run may have made it and not synced
    assert synced == [tmp_path / "a"]


def test_a_folder_that_others_gave_us_need_not_be_readable_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: Path) -> None:
        if folder == tmp_path:
            raise PermissionError(13, "Permission denied")

    (tmp_path / "given").mkdir()
    monkeypatch.setattr(files, "sync_folder", refused)
    files.write_atomic(tmp_path / "given" / "a", b"x")
    assert (tmp_path / "given" / "a").read_bytes() == b"x"


def test_the_log_on_a_full_disk_ends_with_75(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log._file.close()
    log._file = Path("/dev/full").open("w")  # noqa: SIM115 - closed by the log, which fails
    with pytest.raises(ResourceError, match="No space left") as caught, log:
        log.case("case", 1.0, 1)
    assert caught.value.exit_code == 75


def test_a_broken_disk_is_not_told_to_be_full(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="look at the disk"), files.disk_errors():
        raise OSError(5, "Input/output error")
    with pytest.raises(ResourceError, match="make room"), files.disk_errors():
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("name", ["store.json", "plan.jsonl"])
def test_a_damaged_file_of_the_whole_store_says_its_own_way_out(made, tmp_path: Path, name: str) -> None:
    path = tmp_path / "store"
    shutil.copytree(made[0], path)
    (path / name).write_bytes(b"{}\n")
    (problem,) = (p for p in verify(path) if str(path / name) in p.files)
    assert problem.action.startswith("Put it back from a copy")
