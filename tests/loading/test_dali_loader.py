"""The DALI loader: the same batches however they are made, the state that was yielded, and an orderly end."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from tests.loading.dali_cases import exact
from tests.loading.stores import make_store
from toolkit.errors import UsageError
from toolkit.loading.augment import AugmentConfig, preset
from toolkit.loading.batch import Batch
from toolkit.loading.dali import DaliLoader, warp_rows
from toolkit.loading.draw import CropGeometry, draw
from toolkit.loading.fused import FusedLoader
from toolkit.loading.plan import Plan
from toolkit.loading.table import AugmentTable
from toolkit.store import Store

pytest.importorskip("nvidia.dali", reason="DALI is not installed")

SIDE, SIZE, COUNT, BATCH = 12, 8, 10, 4
SEED = 7
EVERYTHING = replace(
    preset("strong"),
    elastic_spacing_mm=0.0,
    elastic_amplitude_mm=0.0,
    mask_mode="channel",
    noise_sigma=(0.0, 0.1),
)  # that DALI has
SPACING_MM = 0.8


class InOrder:
    """A sampler: every crop once, `ranks` loaders taking turns, the last batch smaller."""

    def __init__(
        self, count: int = COUNT, batch: int = BATCH, rank: int = 0, ranks: int = 1, limit: int = COUNT
    ) -> None:
        self.count, self.size, self.rank, self.ranks, self.limit = count, batch, rank, ranks, limit
        self.asked: list[tuple[int, int]] = []

    def steps(self, epoch: int) -> int:
        return -(-self.count // self.size)

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        self.asked.append((epoch, step))
        number = np.arange(step * self.size, min((step + 1) * self.size, self.count))[self.rank :: self.ranks]
        return (number + epoch) % self.limit, number


def rows(epoch: int, index: np.ndarray, number: np.ndarray) -> AugmentTable:
    return draw(EVERYTHING, CropGeometry(SIDE, SIZE, SPACING_MM), index, SEED, epoch, number)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("store") / "store", COUNT, SIDE, margin=2)


def loader(
    store: Store,
    sampler: InOrder | None = None,
    *,
    config: AugmentConfig = EVERYTHING,
    size: int = SIZE,
    dtype: str = "float32",
    space_to_depth: bool = False,
    threads: int = 2,
    device: str = "cpu",
    prefetch: int = 2,
) -> DaliLoader:
    plan = Plan(store, sampler or InOrder(), config, size, SEED, dtype, space_to_depth)
    return DaliLoader(plan, threads=threads, device=device, prefetch=prefetch)


def read(batches: Iterator[Batch]) -> list[tuple]:
    return [(b.epoch, b.step, b.index.tolist(), b.label.tolist(), b.image.numpy().copy()) for b in batches]


def assert_same(some: list[tuple], others: list[tuple]) -> None:
    assert len(some) == len(others) > 0
    for a, b in zip(some, others, strict=True):
        assert str(a[:4]) == str(b[:4])  # as text: NaN equals NaN
        np.testing.assert_array_equal(a[4], b[4])


def test_batches_are_the_rows_of_the_sampler(store: Store) -> None:
    with loader(store) as made:
        assert made.reason == "DALI was asked for; it runs on the CPU with 2 threads"
        assert made.steps(0) == 3
        batches = [*made.epoch(1)]
    assert [(b.epoch, b.step, len(b.index)) for b in batches] == [(1, 0, 4), (1, 1, 4), (1, 2, 2)]
    for batch in batches:
        table = rows(1, *InOrder().batch(1, batch.step))
        images, masks = ([read(int(i)) for i in batch.index] for read in (store.image, store.mask))
        np.testing.assert_array_equal(
            batch.image.permute(0, 2, 3, 4, 1).numpy(), warp_rows(table, images, masks)
        )
        expected = np.array([[0, 1, np.nan][i % 3] for i in batch.index], np.float32)
        np.testing.assert_array_equal(batch.label.numpy(), expected)
        assert batch.index.dtype == np.int64


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_image_is_a_channels_last_view(store: Store, dtype: str) -> None:
    with loader(store, dtype=dtype) as made:
        image = next(made.epoch(0)).image
    assert image.dtype == getattr(torch, dtype)
    assert image.shape == (BATCH, 2, SIZE, SIZE, SIZE)
    assert image.is_contiguous(memory_format=torch.channels_last_3d)
    with loader(store) as made:
        full = next(made.epoch(0)).image
    assert torch.equal(image, full.to(image.dtype))


def test_space_to_depth_in_the_pipeline(store: Store) -> None:
    with loader(store, space_to_depth=True) as made:
        cells = next(made.epoch(0)).image
    with loader(store) as made:
        image = next(made.epoch(0)).image
    assert cells.shape == (BATCH, 16, *[SIZE // 2] * 3)
    assert torch.equal(cells[:, 2 * 5 + 1], image[:, 1, 1::2, 0::2, 1::2])  # cell voxel 5 is (1, 0, 1)


def test_threads_and_prefetch_change_nothing(store: Store) -> None:
    with loader(store, threads=1, prefetch=1) as one, loader(store, threads=4, prefetch=3) as four:
        assert_same(read(one.epoch(0)), read(four.epoch(0)))


def test_the_union_of_the_ranks_is_the_whole_batch(store: Store) -> None:
    with loader(store) as whole:
        expected = next(whole.epoch(2))
    for rank in range(2):
        with loader(store, InOrder(rank=rank, ranks=2)) as part:
            batch = next(part.epoch(2))
        assert batch.index.tolist() == expected.index[rank::2].tolist()
        assert torch.equal(batch.image, expected.image[rank::2])


def test_resume_at_any_step_continues_the_run(store: Store) -> None:
    with loader(store) as made:
        whole = [read(made.epoch(epoch)) for epoch in range(2)]
    for step in range(3):
        with loader(store) as made:
            assert_same(read(made.epoch(0, first_step=step)), whole[0][step:])
            assert_same(read(made.epoch(1)), whole[1])


def test_leaving_an_epoch_early_leaves_nothing_behind(store: Store) -> None:
    with loader(store, prefetch=3) as made:
        whole = read(made.epoch(0))
        for _ in range(3):
            abandoned = made.epoch(1)
            next(abandoned)
        assert_same(read(made.epoch(0)), whole)
        assert [*abandoned] == []
        assert [*made.epoch(0, first_step=3)] == []


def test_the_state_is_what_was_yielded_not_what_was_made_ahead(store: Store) -> None:
    sampler = InOrder(count=COUNT, batch=1)
    with loader(store, sampler, prefetch=2) as made:
        sampler.asked.clear()
        for number, batch in enumerate(made.epoch(0)):
            assert batch.step == number
            assert len(sampler.asked) == min(number + 2, COUNT)
            assert torch.equal(batch.image, made_alone(store, number))


def made_alone(store: Store, step: int) -> torch.Tensor:
    index, draw = InOrder(COUNT, 1).batch(0, step)
    images, masks = ([read(int(i)) for i in index] for read in (store.image, store.mask))
    return torch.from_numpy(warp_rows(rows(0, index, draw), images, masks)).permute(0, 4, 1, 2, 3)


def test_tensors_that_were_handed_out_are_never_written_again(store: Store) -> None:
    with loader(store, InOrder(batch=1)) as made:
        held = [batch.image for epoch in range(4) for batch in made.epoch(epoch)]
        then = [image.clone() for image in held[:COUNT]]
        held += [batch.image for batch in made.epoch(4)]
    assert all(torch.equal(a, b) for a, b in zip(then, held[:COUNT], strict=True))
    assert len({image.data_ptr() for image in held}) == 5 * COUNT


def test_close_ends_the_threads(store: Store) -> None:
    with loader(store) as made:  # DALI starts some threads once
        next(made.epoch(0))
    before = psutil.Process().num_threads()
    for leave in (1, 3):
        made = loader(store, threads=4)
        running = made.epoch(0)
        for _ in range(leave):
            next(running)
        assert psutil.Process().num_threads() > before
        made.close()
        made.close()
        deadline = time.monotonic() + 5
        while psutil.Process().num_threads() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert psutil.Process().num_threads() <= before
        with pytest.raises(RuntimeError, match="closed"):
            made.epoch(0)


def test_an_error_of_the_sampler_is_raised_and_the_loader_goes_on(store: Store) -> None:
    sampler = InOrder()
    with loader(store, sampler) as made:
        sampler.count, sampler.limit = 20, 1000  # there is no crop 10
        with pytest.raises(IndexError, match="nodule 10 of 10"):
            read(made.epoch(0))
        sampler.count = 10
        assert [b.step for b in made.epoch(0)] == [0, 1, 2]


def test_impossible_requests_are_refused_before_any_work(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"E-AUG-003.*size.*13 voxels"):
        loader(store, size=13)
    bent = replace(EVERYTHING, elastic_spacing_mm=10.0, elastic_amplitude_mm=2.0)
    with pytest.raises(UsageError, match=r"E-LOAD-022.*elastic_amplitude_mm 2, 0 expected.*fused loader"):
        loader(store, config=bent)
    with pytest.raises(UsageError, match=r"E-LOAD-022.*edge_mm 1.5, 0 expected"):
        loader(store, config=replace(EVERYTHING, edge_mm=1.5))
    bare = make_store(tmp_path / "bare", COUNT, SIDE, bare=3)
    with pytest.raises(UsageError, match=r"E-AUG-004.*mask_mode channel, 3 of 10 nodules"):
        loader(bare)
    loader(bare, config=preset("none")).close()


@pytest.mark.parametrize("setting", ["threads", "prefetch"])
def test_a_wrong_setting_is_named(store: Store, setting: str) -> None:
    with pytest.raises(UsageError, match=f"E-LOAD-001 setting {setting} is wrong: 0, at least 1"):
        loader(store, **{setting: 0})


@pytest.mark.parametrize("step", [-1, 4])
def test_a_first_step_beyond_the_epoch_is_refused(store: Store, step: int) -> None:
    with loader(store) as made, pytest.raises(UsageError, match=f"first_step is wrong: {step}, 0 to 3"):
        made.epoch(0, first_step=step)


@pytest.mark.parametrize("name", ["none", "light", "default"])
def test_presets_give_the_batches_of_the_fused_loader(store: Store, name: str) -> None:
    """Noise included; a pipeline without what a preset never does gives what the whole definition gives."""
    config = replace(preset(name), mask_mode="soft")
    plan = Plan(store, InOrder(), config, SIZE, SEED)
    with DaliLoader(plan, device="cpu") as made, FusedLoader(plan) as fused:
        for batch, other in zip(made.epoch(1), fused.epoch(1), strict=True):
            assert (batch.epoch, batch.step) == (other.epoch, other.step)
            np.testing.assert_array_equal(batch.index, other.index)
            np.testing.assert_array_equal(batch.label.numpy(), other.label.numpy())
            assert batch.image.stride() == other.image.stride()
            images, masks = ([read(int(i)) for i in batch.index] for read in (store.image, store.mask))
            _, error, _ = exact(plan.table(1, batch.step), images, masks)
            apart = (batch.image - other.image).abs().permute(0, 2, 3, 4, 1).numpy()
            assert (apart <= 2 * error).all()


def test_it_prints_nothing(store: Store) -> None:
    code = (
        "import sys; from toolkit.store import Store; from tests.loading.test_dali_loader import loader\n"
        "with loader(Store.open(sys.argv[1])) as made: assert len([*made.epoch(0)]) == 3"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(store.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_dali_is_not_imported_unless_asked() -> None:
    code = "import sys, toolkit.loading.dali; print('nvidia.dali' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "False False"


@pytest.mark.slow
def test_memory_does_not_grow_over_ten_thousand_batches(store: Store) -> None:
    process, resident = psutil.Process(), []
    sampler = InOrder(count=1000, batch=1, limit=COUNT)
    config = replace(EVERYTHING, noise_sigma=(0.0, 0.0))  # 150 operators less, of one kind
    with loader(store, sampler, config=config) as made:
        for epoch in range(11):
            for batch in made.epoch(epoch):
                del batch
            sampler.asked.clear()
            resident.append(process.memory_info().rss)
    grown = (resident[-1] - resident[1]) / 2**20
    assert grown < 4, f"{grown:.1f} MiB in 9,000 batches of 4 KiB"
