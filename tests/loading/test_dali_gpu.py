"""DALI on a GPU against DALI on the CPU: the same rows, both within the derived bound."""

import numpy as np
import pytest

from tests.loading.dali_cases import exact
from tests.loading.stores import make_store
from tests.loading.test_dali_loader import COUNT, SIDE, InOrder, loader, rows

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_gpu_equals_cpu_within_the_bound(tmp_path, dtype: str) -> None:
    store = make_store(tmp_path / "store", COUNT, SIDE)
    with loader(store, device="cuda", dtype=dtype) as on_gpu:
        batches = [*on_gpu.epoch(0)]
    for batch in batches:
        assert batch.image.is_cuda
        assert batch.label.is_cuda
        assert batch.image.is_contiguous(memory_format=torch.channels_last_3d)
        images, masks = ([read(int(i)) for i in batch.index] for read in (store.image, store.mask))
        value, error, _ = exact(rows(0, *InOrder().batch(0, batch.step)), images, masks)
        actual = batch.image.float().cpu().permute(0, 2, 3, 4, 1).numpy()
        rounding = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
        assert (np.abs(actual - value) <= error + rounding * (np.abs(value) + error) + 2.0**-25).all()
