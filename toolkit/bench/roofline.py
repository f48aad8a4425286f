"""What this machine can do at best, measured: copies, matrix products, transfers, reading, inflating."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np

from toolkit.bench import work
from toolkit.bench.record import Figure, figure
from toolkit.bench.setting import Bench
from toolkit.bench.stopwatch import Work, in_turns, rates

PREFIX = "ceiling"
CHANNELS, SIDE = 128, 16


def copy(bench: Bench) -> Figure:
    """Return GB/s of copying a large array, read and write counted, with the threads that kernels have."""
    return bench.ceiling("copy", lambda: _copy_cuda(bench) if bench.kind == "cuda" else _copy(bench))


def _copy(bench: Bench) -> Figure:
    source = np.ones(bench.sizes.copied, np.uint8)
    there = np.empty_like(source)
    cuts = [round(c) for c in np.linspace(0, len(source), bench.threads + 1)]
    parts = [slice(a, b) for a, b in pairwise(cuts)]
    with ThreadPoolExecutor(bench.threads) as pool:
        taken = in_turns(
            {"": lambda turn: list(pool.map(lambda part: np.copyto(there[part], source[part]), parts))},
            bench.effort,
        )[""]
    note = f"NumPy, {bench.threads} threads, read + write"
    return figure(f"{PREFIX}/copy", rates(taken, 2 * source.nbytes / 1e9), "GB/s", note)


def _copy_cuda(bench: Bench) -> Figure:
    import torch

    source = torch.ones(bench.sizes.copied, dtype=torch.uint8, device="cuda")
    there = torch.empty_like(source)
    taken = in_turns({"": lambda turn: there.copy_(source)}, bench.effort, "cuda")[""]
    note = "device to device, read + write"
    return figure(f"{PREFIX}/copy", rates(taken, 2 * source.numel() / 1e9), "GB/s", note)


def matrix(bench: Bench, dtype: str) -> Figure:
    """Return TFLOP/s of large products in a number type: of a matrix product or a convolution, the faster.

    On some processors the library behind torch.mm is half as fast as the one behind convolutions.
    """
    return bench.ceiling(f"matrix {dtype}", lambda: _matrix(bench, dtype))


def _matrix(bench: Bench, dtype: str) -> Figure:
    import torch

    n, kind = bench.sizes.matrix, getattr(torch, dtype)
    torch.manual_seed(0)
    pair = [torch.randn(n, n, device=bench.kind).to(kind) for _ in range(2)]
    batch = max(1, round(n**3 / (27 * CHANNELS**2 * SIDE**3)))
    image, weight = (
        torch.randn(*shape, device=bench.kind).to(kind, memory_format=torch.channels_last_3d)
        for shape in ((batch, CHANNELS, SIDE, SIDE, SIDE), (CHANNELS, CHANNELS, 3, 3, 3))
    )
    convolved = work.convolution(CHANNELS, CHANNELS, (SIDE,) * 3, 3, padding=1)
    product, convolution = f"torch.mm, {n} x {n}", f"a 3x3x3 convolution of {CHANNELS} channels"
    works: dict[str, Work] = {
        product: lambda turn: torch.mm(*pair),
        convolution: lambda turn: torch.conv3d(image, weight, padding=1),
    }
    with torch.inference_mode():
        taken = in_turns(works, bench.effort, bench.kind)
    flop = {product: 2 * n**3, convolution: batch * convolved}
    found = {name: rates(each, flop[name] / 1e12) for name, each in taken.items()}
    best = max(found, key=lambda name: float(np.median(found[name])))
    note = f"the faster of product and convolution: {best}; {torch.get_num_threads()} threads of the host"
    return figure(f"{PREFIX}/matrix {dtype}", found[best], "TFLOP/s", note)


def transfers(bench: Bench) -> list[Figure]:
    """Return GB/s between host and GPU, both ways, from and to pinned memory; nothing without a GPU."""
    if bench.kind != "cuda":
        return []

    def measured(name: str) -> Figure:
        import torch

        here = torch.ones(bench.sizes.copied // 4, dtype=torch.uint8, pin_memory=True)
        there = torch.empty_like(here, device="cuda")
        to, of = (there, here) if name == "to the GPU" else (here, there)
        taken = in_turns({"": lambda turn: to.copy_(of, non_blocking=True)}, bench.effort, "cuda")[""]
        return figure(f"{PREFIX}/{name}", rates(taken, here.numel() / 1e9), "GB/s", "pinned memory")

    return [bench.ceiling(name, lambda name=name: measured(name)) for name in ("to the GPU", "from the GPU")]  # type: ignore[misc]


def reading(bench: Bench, files: Sequence[Path]) -> Figure:
    """Return GB/s of reading whole files from the page cache, one thread: no decoder is faster."""

    def measured() -> Figure:
        sizes = [path.stat().st_size for path in files]
        buffer = bytearray(max(sizes))

        def read(turn: int) -> None:
            for path in files:
                with path.open("rb", buffering=0) as file:
                    file.readinto(buffer)

        taken = in_turns({"": read}, bench.effort)[""]
        return figure(f"{PREFIX}/read", rates(taken, sum(sizes) / 1e9), "GB/s", "warm page cache, one thread")

    return bench.ceiling("read", measured)


def inflating(bench: Bench, files: Sequence[Path]) -> Figure:
    """Return GB/s of what comes out of gzip files held in memory, one thread of ISA-L."""

    def measured() -> Figure:
        from isal import igzip

        held = [path.read_bytes() for path in files]
        out = sum(len(igzip.decompress(each)) for each in held)
        taken = in_turns({"": lambda turn: [igzip.decompress(each) for each in held]}, bench.effort)[""]
        return figure(f"{PREFIX}/inflate", rates(taken, out / 1e9), "GB/s", "ISA-L, bytes out, one thread")

    return bench.ceiling("inflate", measured)
