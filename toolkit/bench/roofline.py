"""What this machine can do at best, measured: copies, matrix products, transfers, reading, inflating."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np

from toolkit.bench.record import Figure, figure
from toolkit.bench.setting import Bench
from toolkit.bench.stopwatch import in_turns, rates

PREFIX = "ceiling"


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
    """Return TFLOP/s of a large matrix product in a number type, with the threads that torch has."""

    def measured() -> Figure:
        import torch

        n = bench.sizes.matrix
        torch.manual_seed(0)
        kind = getattr(torch, dtype)
        pairs = [[torch.randn(n, n, device=bench.kind).to(kind) for _ in range(2)] for _ in range(2)]
        taken = in_turns({"": lambda turn: torch.mm(*pairs[turn % 2])}, bench.effort, bench.kind)[""]
        tf32 = ", TF32 off" if bench.kind == "cuda" and dtype == "float32" else ""
        note = f"torch.mm, {n} x {n}, {torch.get_num_threads()} threads of the host{tf32}"
        return figure(f"{PREFIX}/matrix {dtype}", rates(taken, 2 * n**3 / 1e12), "TFLOP/s", note)

    return bench.ceiling(f"matrix {dtype}", measured)


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
                    file.readinto(buffer)  # type: ignore[attr-defined]

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
