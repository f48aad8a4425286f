"""Stage ``extract``: the kernel that crops, resamples and masks; axial and oblique bricks of noise."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import kernels
from toolkit.bench import roofline, transfers
from toolkit.bench.data import noise_bricks
from toolkit.bench.gate import check
from toolkit.bench.record import Figure, figure
from toolkit.bench.setting import Bench
from toolkit.bench.stopwatch import Work, in_turns, rates

ALLOWED = 1.0
"""HU, and 255ths of a voxel: half a unit of rounding, and what float32 positions can move noise by."""
CHECKED_SIZE, CHECKED_BRICKS = 16, 4
OBLIQUE_DEGREES = 12.0
BYTES_OUT, BYTES_IN = 3, 3  # a voxel: int16 HU and a byte of mask


def gate(bench: Bench) -> str:
    """Compare with float64 mathematics that shares nothing with the kernel."""
    from kernels import oracle

    bricks = [
        brick
        for degrees in (0.0, OBLIQUE_DEGREES)
        for brick in noise_bricks(7, CHECKED_BRICKS, CHECKED_SIZE, degrees)
    ]
    packed = kernels.pack(bricks, CHECKED_SIZE)
    hu, share, _ = oracle.extract(packed, CHECKED_SIZE)
    image, occupancy = (np.asarray(each) for each in _made(packed, CHECKED_SIZE, bench))
    apart = max(float(np.abs(image - hu).max()), float(np.abs(occupancy - share).max()))
    if bench.kind == "cuda":
        halves = [kernels.pack(bricks[k::2], CHECKED_SIZE) for k in range(2)] * transfers.PARTS
        check("extract", "crops by pinned memory and streams", transfers.apart(halves, CHECKED_SIZE), 0.0)
    return check("extract", "HU, and mask in 255ths, against float64", apart, ALLOWED)


def _made(packed: kernels.Bricks, size: int, bench: Bench) -> tuple[Any, Any]:
    if bench.kind == "cpu":
        return kernels.extract(packed, size)
    image, occupancy = kernels.extract(kernels.to_device(packed), size)
    return image.get(), occupancy.get()


def measure(bench: Bench) -> list[Figure]:
    """Return nodules/s and GB/s, each input and output byte counted once, of the kernel and of all of it."""
    size, count = bench.sizes.cube, bench.sizes.bricks
    axial, oblique = (_batches(bench, degrees) for degrees in (0.0, OBLIQUE_DEGREES))
    moved = float(np.mean([sum(len(part.hu) for part in batch) for batch in axial])) * BYTES_IN
    moved = (moved / count + size**3 * BYTES_OUT) / 1e9
    works: dict[str, Work]
    with ThreadPoolExecutor(bench.threads) as pool:
        if bench.kind == "cuda":
            works = _on_gpu(axial, oblique, size)
        else:

            def run(batches: Sequence[list[kernels.Bricks]]) -> Work:
                return lambda turn: list(
                    pool.map(lambda part: kernels.extract(part, size), batches[turn % len(batches)])
                )

            works = {"kernel": run(axial), "kernel oblique": run(oblique)}
        taken = in_turns(works, bench.effort, bench.kind)
    where = "GPU, events" if bench.kind == "cuda" else f"{bench.threads} threads"
    note = f"{size}^3 at 1 mm of 1.25 x 0.7 x 0.7 mm, batches of {count}, mask too; {where}"
    ceiling = roofline.copy(bench)
    found = []
    for name, seconds in taken.items():
        copied = name in transfers.FORMS
        of = None if copied else ceiling
        each = rates(seconds, count * (transfers.PARTS if copied else 1))
        found.append(figure(f"extract/{name}", each, "nodules/s", note, of=of, in_its_unit=moved))
    bandwidth = rates(taken["kernel"], count * moved)
    return [*found, figure("extract/kernel bytes", bandwidth, "GB/s", note, of=ceiling)]


def _batches(bench: Bench, degrees: float) -> list[list[kernels.Bricks]]:
    """Return batches, each packed in one part for each thread that works on it."""
    size, count = bench.sizes.cube, bench.sizes.bricks
    parts = 1 if bench.kind == "cuda" else min(bench.threads, count)
    bricks = noise_bricks(1, count, size, degrees)
    voxels = sum(brick.hu.size for brick in bricks)
    found = []
    for _ in range(bench.inputs(voxels * BYTES_IN + count * size**3 * BYTES_OUT)):
        found.append([kernels.pack(bricks[k::parts], size) for k in range(parts)])
    return found


def _on_gpu(
    axial: Sequence[list[kernels.Bricks]], oblique: Sequence[list[kernels.Bricks]], size: int
) -> dict[str, Work]:
    """Return the kernel on resident bricks, and with copies from and to the host in every form."""
    there = [kernels.to_device(batch[0]) for batch in axial]
    turned = [kernels.to_device(batch[0]) for batch in oblique]

    parts = [batch[0] for batch in axial]

    def whole(form: str) -> Work:
        lanes = transfers.lanes_of(form, parts, size)

        def work(turn: int) -> None:
            some = [parts[(turn + k) % len(parts)] for k in range(transfers.PARTS)]
            for _ in transfers.extracted(some, size, lanes):
                pass

        return work

    return {
        "kernel": lambda turn: kernels.extract(there[turn % len(there)], size),
        "kernel oblique": lambda turn: kernels.extract(turned[turn % len(turned)], size),
        **{form: whole(form) for form in transfers.FORMS},
    }
