"""What the averaged network says of nodules as they are: no augmentation, no balance, each exactly once."""

from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray

from toolkit.device import Device
from toolkit.loading.augment import AugmentConfig
from toolkit.loading.open import open_loader
from toolkit.loading.plan import Plan
from toolkit.loading.sampler import SequentialSampler, members
from toolkit.store import Store
from toolkit.training.config import TrainConfig
from toolkit.training.precision import Decision
from toolkit.training.ranks import Ranks, gather

if TYPE_CHECKING:
    import torch


def as_is(augmentation: AugmentConfig) -> AugmentConfig:
    """Return the settings that change nothing but window and mask."""
    return AugmentConfig(
        window_hu=augmentation.window_hu, mask_mode=augmentation.mask_mode, edge_mm=augmentation.edge_mm
    )


class View:
    """Looks at a fixed list of nodules as often as it is asked to; each rank at its share of them."""

    def __init__(
        self,
        store: Store,
        index: NDArray[np.int64],
        config: TrainConfig,
        decision: Decision,
        *,
        measured: NDArray[np.float32] | None,
        loader: Literal["auto", "fused", "dali"],
        device: Device,
        threads: int | None,
        ranks: Ranks,
    ) -> None:
        self._index, self._ranks, self._measured, self._decision = index, ranks, measured, decision
        each = config.batch // ranks.ranks * ranks.ranks
        sampler = SequentialSampler(
            members(store.nodules, index), batch=each, rank=ranks.rank, ranks=ranks.ranks
        )
        size = config.input.size or store.size
        plan = Plan(store, sampler, as_is(config.augmentation), size, dtype=decision.amp)
        self._loader = open_loader(plan, loader, device, threads)

    def logits(self, model: "torch.nn.Module", device: "torch.device") -> NDArray[np.float64]:
        """Return the raw logit of every nodule in the list's order, float64 (n,), on every rank."""
        from toolkit.models.forward import logits

        found = logits(
            model,
            self._loader.epoch(0),
            measured=self._measured,
            device=device,
            amp_dtype=self._decision.dtype,
        )
        by_index = gather(*found, self._ranks)
        return np.array([by_index[i] for i in self._index.tolist()], np.float64)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loader.close()
