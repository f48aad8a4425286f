"""The training step in every state between a plain MONAI script and ours; see `benchmarks.waterfall`."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from monai.networks.nets import DenseNet as MonaiDenseNet
from torch import Tensor

from toolkit.bench.pipeline import fed
from toolkit.bench.setting import Bench
from toolkit.loading.augment import PRESETS
from toolkit.loading.open import open_loader
from toolkit.loading.plan import Plan
from toolkit.models.densenet import SIZES
from toolkit.models.registry import build
from toolkit.store import Store
from toolkit.training.averaging import Average
from toolkit.training.config import Optimizer
from toolkit.training.graph import Recorded

LR = 1e-4
USUAL = Optimizer()
Fed = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Recipe:
    """How a step is computed; the defaults are those of a plain script.

    Attributes
    ----------
    network
        MONAI's, ours, or our fast twin.
    channels_last, autotune, amp
        Layout of network and image, cudnn.benchmark, and the type of autocast.
    fused
        AdamW in one kernel, its learning rate a tensor on the device, or Adam as it comes.
    compile
        A mode of torch.compile.
    loader
        MONAI's transforms in torch's DataLoader, or the fused loader.
    guards
        Clipped gradients and averaged weights, which a plain script does without.
    graph
        The whole step as one CUDA graph.
    """

    network: Literal["monai", "toolkit", "fast"] = "monai"
    channels_last: bool = False
    autotune: bool = False
    amp: Literal["float32", "bfloat16"] = "float32"
    fused: bool = False
    compile: str = "off"
    loader: Literal["monai", "fused"] = "monai"
    guards: bool = False
    graph: bool = False


def make_network(kind: str, model: str, options: Mapping[str, Any] | None = None) -> torch.nn.Module:
    """Return a network ``image -> logits (b, 1) or (b,)``; all have the same names of weights."""
    size: Mapping[str, Any] = {**SIZES[model], **(options or {})}
    if kind == "monai":
        return MonaiDenseNet(3, 1, 1, size["init_features"], size["growth"], tuple(size["blocks"]))
    return build(model, 1, options, fast=kind == "fast")


class Stepper:
    """A network and its optimiser, and the step of a recipe.

    `loss` is that of the last step, on the device. Weights are drawn from seed 0 by MONAI's network, so that
    all recipes begin alike.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: str,
        device: torch.device,
        *,
        clip_norm: float = USUAL.clip_norm,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.recipe, self.device, self._clip_norm = recipe, device, clip_norm
        torch.manual_seed(0)
        weights = make_network("monai", model, options).state_dict()
        self.network = make_network(recipe.network, model, options)
        self.network.load_state_dict(weights)
        self.network.to(device).train()
        if recipe.channels_last:
            self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.average = Average(self.network, USUAL.ema_decay) if recipe.guards else None
        self._forward: Any = self.network
        if recipe.compile != "off":
            mode = None if recipe.compile == "default" else recipe.compile
            self._forward = torch.compile(self.network, mode=mode, dynamic=False)
        self.parameters = [*self.network.parameters()]
        self.lr = torch.tensor(LR, device=device)
        self.optimizer = self._make_optimizer()
        self.loss = torch.full((), math.nan, device=device)
        self.steps = 0
        self._recorded: Recorded | None = None

    def _make_optimizer(self) -> torch.optim.Optimizer:
        if not self.recipe.fused:
            return torch.optim.Adam(self.parameters, LR)
        groups = [
            {"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": USUAL.weight_decay},
            {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.lr, fused=True, capturable=self.device.type == "cuda")

    def step(self, image: Tensor, target: Tensor) -> None:
        """Move by one batch: `image` (b, 1, d, h, w) in any layout, `target` (b,), both on the device."""
        torch.backends.cudnn.benchmark = self.recipe.autotune
        if self.recipe.channels_last:
            image = image.contiguous(memory_format=torch.channels_last_3d)
        if self.recipe.graph and self._recorded is None:
            state = [*self.network.state_dict().values()]
            self._recorded = Recorded(self._move, self.optimizer, state, (image, target))
        self.loss.copy_((self._recorded or self._move)(image, target))
        if self.average is not None:
            self.average.update(self.steps)
        self.steps += 1

    def _move(self, image: Tensor, target: Tensor) -> Tensor:
        recipe = self.recipe
        self.optimizer.zero_grad()
        dtype = getattr(torch, recipe.amp)
        with torch.autocast(self.device.type, dtype, enabled=recipe.amp != "float32"):
            logit = self._forward(image) if recipe.network == "monai" else self._forward(image, None)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logit.flatten().float(), target)
        loss.backward()
        if recipe.guards:
            torch.nn.utils.clip_grad_norm_(self.parameters, self._clip_norm, foreach=True)
        self.optimizer.step()
        return loss.detach()


class Crops(torch.utils.data.Dataset[tuple[Tensor, float]]):
    """The crops of a store through MONAI's transforms, as a user's data set has them."""

    def __init__(self, path: str, size: int, *, augmented: bool = True) -> None:
        self._path, self._size, self._augmented = path, size, augmented
        self._store: Store | None = None
        self._change: Callable[[Any], Any] | None = None
        self._length = len(Store.open(path))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> tuple[Tensor, float]:
        if self._store is None or self._change is None:  # in the worker that it serves
            self._store, self._change = Store.open(self._path), transforms(self._size, self._augmented)
        image = self._change(np.asarray(self._store.image(number), np.float32))
        return image.as_tensor() if hasattr(image, "as_tensor") else image, float(number % 2)


def transforms(size: int, augmented: bool) -> Callable[[Any], Any]:
    """Return MONAI's window, and by choice its nearest to our default augmentation, without metadata."""
    from monai import transforms as t
    from monai.data import set_track_meta

    set_track_meta(False)
    config = PRESETS["default"]
    low, high = config.window_hu or (0, 1)
    begin: list[Any] = [t.EnsureChannelFirst(channel_dim="no_channel")]
    end = [t.ScaleIntensityRange(low, high, 0, 1, clip=True)]
    if not augmented:
        return t.Compose([*begin, t.CenterSpatialCrop((size,) * 3), *end])
    turn = (math.radians(config.rotation_degrees),) * 3
    warp = t.RandAffine(
        prob=1.0,
        rotate_range=turn,
        scale_range=(config.scale[1] - 1,) * 3,
        translate_range=(config.shift_mm,) * 3,
        spatial_size=(size,) * 3,
        padding_mode="border",
    )
    flips = [t.RandFlip(0.5, axis) for axis in range(3)]
    noise = t.RandGaussianNoise(config.probability.noise, std=config.noise_sigma[1])
    gamma = t.RandAdjustContrast(config.probability.gamma, config.gamma)
    return t.Compose([*begin, warp, *flips, *end, gamma, noise])


def feed(recipe: Recipe, bench: Bench, plan: Plan, workers: int, stack: ExitStack) -> Fed:
    """Return batches for ever as a recipe's loader makes them, on the device."""
    if recipe.loader == "fused":
        loader = stack.enter_context(open_loader(plan, "auto", bench.kind, bench.threads))
        return fed(bench, plan, loader)
    return _monai(bench, plan, workers)


def _monai(bench: Bench, plan: Plan, workers: int) -> Fed:
    device, sizes = torch.device(bench.kind), bench.sizes
    batches: Any = torch.utils.data.DataLoader(
        Crops(str(bench.folder / "store"), plan.size),
        sizes.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=bench.kind == "cuda",
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
    )
    while True:
        for image, target in batches:
            yield image.to(device, non_blocking=True), target.float().to(device, non_blocking=True)


def ahead(recipe: Recipe, workers: int) -> int:
    """Return how many batches a loader may have made while others were measured."""
    return 2 * workers if recipe.loader == "monai" else 3
