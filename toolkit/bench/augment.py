"""Stage ``augment``: the kernel that makes patches of stored crops, with and without noise."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from kernels.augment import DType, Rows, augment, output_shape
from toolkit.bench import roofline
from toolkit.bench.gate import check
from toolkit.bench.record import Figure, figure
from toolkit.bench.setting import Bench
from toolkit.bench.stopwatch import Work, in_turns, rates
from toolkit.loading.augment import AugmentConfig, preset
from toolkit.loading.draw import CropGeometry, draw
from toolkit.loading.table import AugmentTable

ALLOWED = {"float32": 1e-3, "bfloat16": 0.02, "float16": 2e-3}
"""Of the window: what float32 positions move noise by; bfloat16 keeps eight bits, float16 eleven."""
CHECKED_SIZE, CHECKED = 16, 4


def quiet(config: AugmentConfig) -> AugmentConfig:
    """Return a configuration without noise."""
    return replace(config, noise_sigma=(0.0, 0.0))


def dtype_of(bench: Bench) -> DType:
    """Return the number type that training takes on this device."""
    amp: DType = bench.decision.amp
    return amp


def gate(bench: Bench) -> str:
    """Compare with float64 mathematics that shares nothing with the kernel, noise and all."""
    from kernels import oracle_augment

    table = _tables(bench, preset("default"), min(CHECKED_SIZE, bench.sizes.patch), CHECKED)[0]
    crops = [bench.store.image(int(i)) for i in table.index]
    exact, _ = oracle_augment.augment(crops, None, table)
    dtype = dtype_of(bench)
    if bench.kind == "cuda":
        import torch

        made = augment(torch.from_numpy(np.stack(crops)).cuda(), None, _renumbered(table), dtype=dtype)
        found = made[..., 0].float().cpu().numpy()
    else:
        made = augment(crops, None, table, dtype=dtype)[..., 0]
        found = (made.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else made
    apart = float(np.abs(found - exact).max())
    return check("augment", f"{dtype} patches, of the window, against float64", apart, ALLOWED[dtype])


def _renumbered(table: AugmentTable) -> AugmentTable:
    """Return the table for crops that were gathered in its order."""
    return replace(table, index=np.arange(len(table.index)))


def measure(bench: Bench) -> list[Figure]:
    """Return samples/s; each voxel of a patch in and out counted once against the copy bandwidth."""
    size, batch, dtype = bench.sizes.patch, bench.sizes.batch, dtype_of(bench)
    moved = size**3 * (2 + (4 if dtype == "float32" else 2)) / 1e9
    configs = {"default": preset("default"), "no noise": quiet(preset("default"))}
    tables = {name: _tables(bench, config, size, batch) for name, config in configs.items()}
    with ThreadPoolExecutor(bench.threads) as pool:
        if bench.kind == "cuda":
            works = {name: _on_gpu(bench, each, dtype) for name, each in tables.items()}
        else:
            works = {name: _on_cpu(bench, each, dtype, pool) for name, each in tables.items()}
        taken = in_turns(works, bench.effort, bench.kind)
    where = "GPU, events" if bench.kind == "cuda" else f"{bench.threads} threads"
    side = bench.sizes.crop + 2 * bench.sizes.margin
    note = f"{size}^3 of {side}^3 crops, batches of {batch}, {dtype}; {where}"
    ceiling = roofline.copy(bench)
    return [
        figure(f"augment/{name}", rates(seconds, batch), "samples/s", note, of=ceiling, in_its_unit=moved)
        for name, seconds in taken.items()
    ]


def _tables(bench: Bench, config: AugmentConfig, size: int, batch: int) -> list[AugmentTable]:
    """Return tables that go through the whole store in batches."""
    sizes, count = bench.sizes, len(bench.store)
    geometry = CropGeometry(sizes.crop + 2 * sizes.margin, size, 1.0)
    found = []
    for k in range(max(2, -(-count // batch))):
        number = np.arange(k * batch, (k + 1) * batch)
        found.append(draw(config, geometry, number % count, 1, 0, number))
    return found


def _on_cpu(bench: Bench, tables: list[AugmentTable], dtype: DType, pool: ThreadPoolExecutor) -> Work:
    store = bench.store
    rows = Rows(tables[0], dtype)
    out = np.empty(rows.shape, rows.array_type)

    def work(turn: int) -> None:
        table = tables[turn % len(tables)]
        rows = Rows(table, dtype)

        def fill(k: int) -> None:
            rows.fill(k, store.image(int(table.index[k])), None, out[k])

        list(pool.map(fill, range(len(rows))))

    return work


def _on_gpu(bench: Bench, tables: list[AugmentTable], dtype: DType) -> Work:
    import torch

    crops = np.stack([bench.store.image(i) for i in range(len(bench.store))])
    resident = torch.from_numpy(crops).cuda()
    out = torch.empty(output_shape(tables[0], False), dtype=getattr(torch, dtype), device="cuda")
    return lambda turn: augment(resident, None, tables[turn % len(tables)], out=out, dtype=dtype)
