"""A worker may fail or die; the others go on, and the task is named."""

import os
import signal

import numpy as np

from toolkit.preprocess.pool import Died, Failed, Pool


def work(task: int) -> int:
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if task == 5:
        raise ValueError("five")
    return task * task


def test_results_carry_the_number_of_their_task() -> None:
    pool: Pool[int, int]
    with Pool(2) as pool:
        results = dict(pool.map(work, range(9)))
        assert results.pop(3) == Died(-signal.SIGKILL)
        assert results.pop(5) == Failed("ValueError: five")
        assert results == {k: k * k for k in (0, 1, 2, 4, 6, 7, 8)}
        assert dict(pool.map(work, [7, 8])) == {0: 49, 1: 64}  # a dead worker was replaced


def arrays(seed: int) -> dict[str, object]:
    """Arrays on both sides of what goes through shared memory, of odd sizes, orders and types."""
    rng = np.random.default_rng(seed)
    large = rng.integers(-1000, 1000, (1, 41, 43, 47)).astype(np.int16)
    return {
        "large": large,
        "odd": rng.integers(0, 255, 70_001).astype(np.uint8),
        "after": rng.random(20_000),
        "fortran": np.asfortranarray(large[0]),
        "strided": large[0, ::2, :, ::-1],
        "small": np.arange(5),
        "none": np.empty((0, 4)),
    }


def test_arrays_arrive_as_they_were_sent() -> None:
    pool: Pool[int, dict[str, object]]
    with Pool(2) as pool:
        results = dict(pool.map(arrays, range(6)))  # kept together: no result may overwrite another
    for seed in range(6):
        for name, sent in arrays(seed).items():
            found = results[seed][name]
            np.testing.assert_array_equal(found, sent)
            assert (found.dtype, found.shape) == (sent.dtype, sent.shape)
            assert found.flags.aligned
    shared = hasattr(os, "memfd_create")  # large ones are maps of memory that nobody may write to
    assert results[0]["large"].flags.writeable is not shared


def test_tasks_are_taken_as_workers_get_free() -> None:
    taken = []

    def tasks():
        for k in (10, 11, 12, 13, 14):
            taken.append(k)
            yield k

    pool: Pool[int, int]
    with Pool(1) as pool:
        results = pool.map(work, tasks())
        next(results)
        assert taken == [10]
        assert len(list(results)) == 4


def test_no_process_is_left() -> None:
    pool: Pool[int, int] = Pool(2)
    list(pool.map(work, [1]))
    workers = [worker.process for worker in pool._idle]
    pool.close()
    assert not any(process.is_alive() for process in workers)
