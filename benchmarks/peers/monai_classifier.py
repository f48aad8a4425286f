"""A malignancy classifier as a user of MONAI writes it, after its tutorial ``densenet_training_array.py``.

MONAI's DenseNet121 on 48 mm around the nodule at 32^3 voxels, background masked out, quarter turns by
chance, `WeightedRandomSampler`, Adam at 1e-4, binary cross-entropy, float32; no validation: the weights
after the last of 15 epochs are the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIELD_MM, SIZE, WINDOW_HU, AIR_HU = 48, 32, (-1000, 400), -1000
BATCH, EPOCHS, LR = 16, 15, 1e-4


@dataclass(frozen=True, eq=False)
class Nodules:
    """n nodules: `hu` int16 and `mask` uint8 0-255, each (n, s, s, s) at 1 mm; `label` 1 or 0, (n,)."""

    hu: NDArray[np.int16]
    mask: NDArray[np.uint8]
    label: NDArray[np.float64]

    def __getitem__(self, index: NDArray[np.int64]) -> "Nodules":
        return Nodules(self.hu[index], self.mask[index], self.label[index])


def train_and_predict(
    train: Nodules, test: Nodules, seed: int, epochs: int = EPOCHS, batch: int = BATCH
) -> NDArray[np.float64]:
    """Train on all of `train` and return the logits of `test`, float64 (n,)."""
    import torch
    from monai.data import ArrayDataset
    from monai.networks.nets import DenseNet121
    from monai.utils import set_determinism
    from torch.utils.data import DataLoader, WeightedRandomSampler

    set_determinism(seed)
    try:
        change = transforms(training=True)
        change.set_random_state(seed)
        pairs = ArrayDataset(masked(train), change, labels=train.label.astype(np.float32))
        weight = np.where(train.label == 1, 1 / (train.label == 1).sum(), 1 / (train.label == 0).sum())
        sampler = WeightedRandomSampler(weight.tolist(), len(weight))
        loader: Any = DataLoader(pairs, batch, sampler=sampler)
        model = DenseNet121(spatial_dims=3, in_channels=1, out_channels=1)
        optimizer = torch.optim.Adam(model.parameters(), LR)
        loss_function = torch.nn.BCEWithLogitsLoss()
        for _ in range(epochs):
            model.train()
            for images, labels in loader:
                if len(images) == 1:  # batch norm has no variance of one
                    continue
                optimizer.zero_grad()
                loss = loss_function(model(images)[:, 0], labels)
                loss.backward()
                optimizer.step()
        model.eval()
        plain = transforms(training=False)
        with torch.no_grad():
            images = torch.stack([torch.as_tensor(plain(image)) for image in masked(test)])
            logits = model(images)[:, 0].double().numpy()
    finally:
        set_determinism(None)
    return np.asarray(logits, np.float64)


def masked(nodules: Nodules) -> Sequence[NDArray[np.float32]]:
    """Return the images with all that is no nodule set to air."""
    inside = nodules.mask > 127
    return [np.where(m, hu, AIR_HU).astype(np.float32) for hu, m in zip(nodules.hu, inside, strict=True)]


def transforms(*, training: bool) -> Any:
    """Return from HU (s, s, s) to (1, 32, 32, 32) in [0, 1]."""
    from monai.transforms import (
        CenterSpatialCrop,
        Compose,
        EnsureChannelFirst,
        RandRotate90,
        Resize,
        ScaleIntensityRange,
    )

    low, high = WINDOW_HU
    steps = [
        EnsureChannelFirst(channel_dim="no_channel"),
        CenterSpatialCrop((FIELD_MM,) * 3),
        ScaleIntensityRange(low, high, 0, 1, clip=True),
        Resize((SIZE,) * 3),
    ]
    return Compose([*steps, RandRotate90()] if training else steps)
