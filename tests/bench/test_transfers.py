"""Lanes: what is copied when, against a device that does nothing before it is waited for.

This proves the order of copies and that no buffer is written too early. That a GPU overlaps them, and how
fast it is, only a GPU can show.
"""

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

import kernels
from toolkit.bench import transfers
from toolkit.bench.data import noise_bricks

SIZE = 8


class Stream:
    """Keeps what is asked of it until it is waited for."""

    current: ClassVar["Stream | None"] = None

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __enter__(self) -> "Stream":
        Stream.current = self
        return self

    def __exit__(self, *error: object) -> None:
        Stream.current = None

    def synchronize(self) -> None:
        for each in self.waiting:
            each()
        self.waiting.clear()


class There(np.ndarray):
    """Memory of the device."""

    def set(self, array: np.ndarray, stream: Stream) -> None:
        stream.waiting.append(lambda: np.copyto(self, array))

    def get(self, stream: Stream, out: np.ndarray, blocking: bool) -> None:
        assert not blocking
        stream.waiting.append(lambda: np.copyto(out, self))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels.extract

    def later(bricks: kernels.Bricks, size: int) -> tuple[Any, Any]:
        n = len(bricks.offset)
        shape = (n, size, size, size)
        made = np.zeros(shape, np.int16).view(There), np.zeros(shape, np.uint8).view(There)

        def work() -> None:
            plain = kernels.Bricks(*(np.array(array) for array in bricks.table))
            for out, array in zip(made, right(plain, size), strict=True):
                out[...] = array

        assert Stream.current is not None
        Stream.current.waiting.append(work)
        return made

    cupy, cupyx = ModuleType("cupy"), ModuleType("cupyx")
    cupy.empty = lambda shape, dtype: np.zeros(shape, dtype).view(There)  # type: ignore[attr-defined]
    cupy.cuda = SimpleNamespace(Stream=Stream)  # type: ignore[attr-defined]
    cupyx.empty_pinned = np.zeros  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "cupyx", cupyx)
    monkeypatch.setattr(transfers.kernels, "extract", later)


def batches() -> list[kernels.Bricks]:
    """Five batches of different sizes."""
    return [kernels.pack(noise_bricks(k, 1 + k % 3, SIZE, 10.0 * k), SIZE) for k in range(5)]


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("form", [*transfers.FORMS][1:])
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_every_form_gives_the_same_crops_in_order(
    form: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = batches()
    lanes = transfers.lanes_of(form, parts, SIZE)
    found = [(image.copy(), share.copy()) for image, share in transfers.extracted(parts[:count], SIZE, lanes)]
    monkeypatch.undo()
    assert len(found) == count
    for part, (image, share) in zip(parts, found, strict=False):
        right_image, right_share = kernels.extract(part, SIZE)
        assert np.array_equal(image, right_image)
        assert np.array_equal(share, right_share)


@pytest.mark.usefixtures("device")
def test_a_lane_that_is_not_waited_for_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device here is lazy enough to tell."""
    parts = batches()
    (lane,) = transfers.lanes_of("with transfers, pinned", parts, SIZE)
    lane.give(parts[1])
    lane.give(parts[4])  # too early: it overwrites what the first has not sent yet
    image = lane.take()[0].copy()
    monkeypatch.undo()
    first, second = (kernels.extract(parts[k], SIZE)[0] for k in (1, 4))
    assert np.array_equal(image, second)
    assert not np.array_equal(image[: len(first)], first)
