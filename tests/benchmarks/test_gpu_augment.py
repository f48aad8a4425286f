"""What the benchmark of the loaders on a GPU does without one: its store, its plan, its endless reading."""

from itertools import islice

from benchmarks.gpu_augment import BATCH, endless, make_store, plan_of
from toolkit.loading.augment import preset
from toolkit.loading.fused import FusedLoader


def test_every_crop_is_read_once_an_epoch_for_ever(tmp_path):
    plan = plan_of(make_store(tmp_path / "store", crops=BATCH + 2), preset("none"))
    with FusedLoader(plan) as loader:
        sizes = [len(batch.index) for batch in islice(endless(loader), 5)]
    assert sizes == [BATCH, 2, BATCH, 2, BATCH]
