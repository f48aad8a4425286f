"""A worker may fail or die; the others go on, and the task is named."""

import os
import signal

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
