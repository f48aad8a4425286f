"""Extraction on a GPU with copies from and to the host: what pinned memory and two streams would bring.

A lane is a stream with buffers of its own. What is in its pinned memory may change only after it was waited
for, so with two lanes one batch is copied while the kernel works on the other.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import kernels

PARTS = 4  # batches of a measurement: two lanes need several to overlap
FORMS = {"with transfers": 0, "with transfers, pinned": 1, "with transfers, pinned, two streams": 2}
"""How many lanes each form has; none is copies of pageable memory, as ``toolkit preprocess`` does it."""


def extracted(
    parts: Sequence[kernels.Bricks], size: int, lanes: "Sequence[Lane]"
) -> Iterator[tuple[Any, Any]]:
    """Yield (image, occupancy) of packed batches in order, on the host; each lives until the next."""
    if not lanes:
        for part in parts:
            image, occupancy = kernels.extract(kernels.to_device(part), size)
            yield image.get(), occupancy.get()
        return
    for number, part in enumerate(parts):
        lane = lanes[number % len(lanes)]
        if number >= len(lanes):
            yield lane.take()
        lane.give(part)
    for number in range(max(0, len(parts) - len(lanes)), len(parts)):
        yield lanes[number % len(lanes)].take()


class Lane:
    """A stream, and memory for the largest of some packed batches, pinned and on the device."""

    def __init__(self, parts: Sequence[kernels.Bricks], size: int) -> None:
        import cupy
        import cupyx

        self._size, self._count = size, 0
        self._stream = cupy.cuda.Stream()
        largest = [max(arrays, key=len) for arrays in zip(*(part.table for part in parts), strict=True)]
        self._pinned = [cupyx.empty_pinned(array.shape, array.dtype) for array in largest]
        self._there = [cupy.empty(array.shape, array.dtype) for array in largest]
        shape = (max(len(part.offset) for part in parts), size, size, size)
        self._image = cupyx.empty_pinned(shape, np.int16)
        self._occupancy = cupyx.empty_pinned(shape, np.uint8)

    def give(self, part: kernels.Bricks) -> None:
        """Send a batch, work on it and send the crops back, without waiting."""
        self._count, table = len(part.offset), []
        with self._stream:
            for array, pinned, there in zip(part.table, self._pinned, self._there, strict=True):
                n = len(array)
                pinned[:n] = array
                if n:
                    there[:n].set(pinned[:n], stream=self._stream)
                table.append(there[:n])
            made = kernels.extract(kernels.Bricks(*table), self._size)
            for out, array in zip((self._image, self._occupancy), made, strict=True):
                array.get(stream=self._stream, out=out[: self._count], blocking=False)

    def take(self) -> tuple[Any, Any]:
        """Wait, and return the crops, which live until the next `give`."""
        self._stream.synchronize()
        return self._image[: self._count], self._occupancy[: self._count]


def lanes_of(form: str, parts: Sequence[kernels.Bricks], size: int) -> list[Lane]:
    """Return the lanes of a form."""
    return [Lane(parts, size) for _ in range(FORMS[form])]


def apart(parts: Sequence[kernels.Bricks], size: int) -> float:
    """Return the largest difference of any form's crops from those of the first form."""
    kept = [
        [(image.copy(), share.copy()) for image, share in extracted(parts, size, lanes_of(form, parts, size))]
        for form in FORMS
    ]
    return max(
        float(np.abs(one.astype(np.int32) - other).max())
        for found in kept[1:]
        for first, second in zip(kept[0], found, strict=True)
        for one, other in zip(first, second, strict=True)
    )
