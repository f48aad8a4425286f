"""The fused loader: equal to the kernel called by hand, whatever the threads, and after a resume."""

import gc
import threading
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch

from kernels.augment import augment
from tests.loading.stores import InOrder, make_store
from toolkit.errors import UsageError
from toolkit.loading.augment import AugmentConfig, preset
from toolkit.loading.fused import FusedLoader
from toolkit.loading.plan import Plan, choose

STRONG = replace(preset("strong"), mask_mode="channel", edge_mm=1.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("fused") / "store")


@pytest.fixture
def plan(store):
    return Plan(store, InOrder(10, 3), STRONG, 12, seed=5)


def kept(loader, epoch=0, first_step=0):
    """Return copies of all batches of an epoch."""
    return [
        (batch.image.clone(), batch.label.clone(), batch.index.copy(), batch.epoch, batch.step)
        for batch in loader.epoch(epoch, first_step)
    ]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1].nan_to_num(-1), other[1].nan_to_num(-1))
        np.testing.assert_array_equal(one[2], other[2])
        assert one[3:] == other[3:]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("space_to_depth", [False, True])
def test_batches_are_what_the_kernel_makes(plan, dtype, space_to_depth):
    plan = replace(plan, dtype=dtype, space_to_depth=space_to_depth)
    with FusedLoader(plan, threads=2) as loader:
        found = kept(loader, 2)
    assert [step for *_, step in found] == [0, 1, 2, 3]
    assert [len(label) for _, label, *_ in found] == [3, 3, 3, 1]
    for image, label, index, epoch, step in found:
        crops, masks = [plan.store.image(i) for i in index], [plan.store.mask(i) for i in index]
        table = plan.table(epoch, step)
        expected = augment(crops, masks, table, dtype=dtype, space_to_depth=space_to_depth)
        got = image.permute(0, 2, 3, 4, 1)
        assert got.dtype == getattr(torch, dtype)
        got = got.contiguous().view(torch.uint16 if dtype == "bfloat16" else torch.float32).numpy()
        np.testing.assert_array_equal(got, expected)
        labels = [plan.store.nodules[i].label for i in index]
        np.testing.assert_array_equal(
            label, np.array([np.nan if v is None else v for v in labels], np.float32)
        )


def test_memory_is_channels_last_and_not_copied(plan):
    with FusedLoader(plan, threads=1) as loader:
        for batch in loader.epoch(0):
            assert batch.image.is_contiguous(memory_format=torch.channels_last_3d)
            assert batch.image.shape[1:] == (2, 12, 12, 12)


def test_threads_do_not_matter(plan):
    with FusedLoader(plan, threads=1) as one, FusedLoader(plan, threads=8) as eight:
        assert_same(kept(one, 3), kept(eight, 3))


def test_a_resumed_epoch_is_the_rest_of_a_whole_one(plan):
    with FusedLoader(plan, threads=3) as loader:
        whole = kept(loader, 1)
        for step in range(3):
            assert_same(kept(loader, 1, step), whole[step:])
        assert kept(loader, 1, 4) == []
        begun = loader.epoch(1)
        next(begun)  # and one that was left in the middle
        assert_same(kept(loader, 1, 2), whole[2:])


def test_a_batch_lives_until_the_one_after_the_next_is_asked_for(plan):
    with FusedLoader(plan, threads=4) as loader:
        whole = kept(loader, 0) + kept(loader, 1)
        held, number = None, 0
        for epoch in (0, 1):
            for batch in loader.epoch(epoch):
                assert torch.equal(batch.image, whole[number][0])
                if held is not None:
                    assert torch.equal(held, whole[number - 1][0])
                held, number = batch.image, number + 1


def test_buffers_are_used_again(plan):
    with FusedLoader(plan, threads=2) as loader:
        places = {batch.image.data_ptr() for epoch in range(6) for batch in loader.epoch(epoch)}
    assert len(places) == 4


def test_an_error_in_a_thread_is_raised_at_its_batch(store):
    class Beyond(InOrder):
        def batch(self, epoch, step):
            index, number = super().batch(epoch, step)
            return index + (step == 1) * 1000, number

    with FusedLoader(Plan(store, Beyond(10, 3), preset("none"), 12), threads=2) as loader:
        batches = loader.epoch(0)
        with pytest.raises(IndexError):
            list(batches)
        assert len(kept(loader, 0, 2)) == 2  # and it goes on


def test_threads_end(plan):
    before = threading.active_count()
    with FusedLoader(plan, threads=4) as loader:
        next(loader.epoch(0))
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_what_is_impossible_is_refused_by_name(store, tmp_path):
    sampler = InOrder(10, 3)
    with pytest.raises(UsageError, match="E-AUG-003 size"):
        Plan(store, sampler, preset("none"), 17)
    with pytest.raises(UsageError, match="E-LOAD-001 setting size"):
        Plan(store, sampler, preset("none"), 13, space_to_depth=True)
    with pytest.raises(UsageError, match="E-LOAD-001 setting dtype"):
        Plan(store, sampler, preset("none"), 12, dtype="int8")
    with pytest.raises(UsageError, match="E-LOAD-001 setting seed"):
        Plan(store, sampler, preset("none"), 12, seed=-1)
    with pytest.raises(UsageError, match="E-LOAD-001 setting threads"):
        FusedLoader(Plan(store, sampler, preset("none"), 12), threads=0)
    with pytest.raises(UsageError, match="E-LOAD-001 setting dtype"):
        FusedLoader(Plan(store, sampler, preset("none"), 12, dtype="float16"))
    with (
        FusedLoader(Plan(store, sampler, preset("none"), 12)) as loader,
        pytest.raises(UsageError, match="E-LOAD-001 setting first_step"),
    ):
        loader.epoch(0, 5)
    bare = make_store(tmp_path / "bare", bare=4)
    Plan(bare, sampler, preset("light"), 12)
    with pytest.raises(UsageError, match=r"E-AUG-004 setting mask_mode .*4 of 10 nodules have no mask"):
        Plan(bare, sampler, AugmentConfig(mask_mode="soft"), 12)


def test_the_choice_says_why(plan):
    assert choose(plan, "auto", "cpu")[0] == "fused"
    assert choose(plan, "dali", "cpu") == ("dali", "DALI was asked for")
    needed = 10 * 16**3 * 3
    assert choose(plan, "auto", "cuda", needed)[0] == "fused-cuda"
    kind, why = choose(plan, "auto", "cuda", needed - 1)
    assert kind == "fused"
    assert "on the CPU: the store takes" in why


@pytest.mark.slow
def test_memory_does_not_grow(store):
    """Over 10,000 batches: what the process holds at the end is what it held after the first thousand."""
    plan = Plan(store, InOrder(10, 2), replace(STRONG, edge_mm=0.0), 4)
    process, held = psutil.Process(), []
    with FusedLoader(plan, threads=2) as loader:
        for epoch in range(2000):
            for _ in loader.epoch(epoch):
                pass
            if epoch % 200 == 199:
                gc.collect()
                held.append(process.memory_info().rss)
    assert max(held[1:]) - held[0] < 4e6, held  # a leaked patch a sample would be 20,000 x 0.5 KB
