"""Opening a store: records in memory, crops memory-mapped."""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem, StoreError
from toolkit.store.format import (
    IMAGE_TYPE,
    MASK_TYPE,
    Nodule,
    digest,
    images_path,
    masks_path,
    shard_name,
)
from toolkit.store.ledger import Entry, committed, nodules_of, read_ledger, write_csv
from toolkit.store.maps import Shard, kept, look
from toolkit.store.writer import ShardWriter, read_settings, write_settings


class Store:
    """A nodule store, opened for reading.

    Attributes
    ----------
    path
        Its folder.
    nodules
        Records of all committed shards, in order.
    spacing_mm
        Isotropic voxel spacing of the crops.
    size, margin
        Voxels along each side of a crop without its margin, and the margin on each side.
    settings
        All of ``store.json``.
    shards
        The arrays themselves, mapped when asked for, for those who go through all of them.
    """

    def __init__(
        self, path: Path, settings: dict[str, Any], nodules: Sequence[Nodule], shards: Sequence[Shard]
    ) -> None:
        self.path, self.settings = path, settings
        self.nodules = tuple(nodules)
        self.shards = tuple(shards)
        self.spacing_mm = float(settings["spacing_mm"])
        self.size, self.margin = int(settings["size"]), int(settings["margin"])
        self._first = [shard.first for shard in shards]
        self._images = kept(lambda number: self.shards[number].images)
        self._masks = kept(lambda number: self.shards[number].masks)

    @classmethod
    def open(cls, path: str | Path) -> "Store":
        """Open a store; every shard that is committed now is seen.

        Raises `StoreError` E-STORE-001 where there is none, E-STORE-003 where a ledger or the shape
        of an array is damaged (`verify` also looks at every byte).
        """
        path = Path(path)
        settings = read_settings(path)
        side = int(settings["size"]) + 2 * int(settings["margin"])
        nodules: list[Nodule] = []
        shards: list[Shard] = []
        for name in committed(path):
            found = list(nodules_of(read_ledger(path, name)))
            if found:
                images = look(images_path(path, name), IMAGE_TYPE, len(found), side)
                masks = look(masks_path(path, name), MASK_TYPE, len(found), side)
                shards.append(Shard(path, name, len(nodules), len(found), side, (images, masks)))
                nodules += found
        return cls(path, settings, nodules, shards)

    @classmethod
    def create(
        cls,
        path: str | Path,
        records: Sequence[Nodule],
        images: NDArray[np.int16],
        masks: NDArray[np.uint8],
        spacing_mm: float,
        *,
        margin: int = 0,
        label_rule: str = "as given",
    ) -> "Store":
        """Make a store of crops that already exist, and open it.

        Parameters
        ----------
        records
            One for each crop; their ids are stored as they are, so they must not identify a person.
        images
            int16 (n, s, s, s), HU zyx.
        masks
            uint8 (n, s, s, s), share of the voxel that is nodule, 0-255.
        spacing_mm
            Isotropic voxel spacing.
        margin
            How many of the s voxels on each side are margin.

        Raises
        ------
        ValueError
            Where lengths, shapes or types do not agree.
        StoreError
            E-STORE-005 where the folder already holds a store.
        """
        path = Path(path)
        images, masks = np.asarray(images), np.asarray(masks)
        if (
            images.ndim != 4
            or len({*images.shape[1:]}) != 1
            or len(records) != len(images)
            or not len(records)
        ):
            raise ValueError(f"`images` must be (n, s, s, s) with n = {len(records)} > 0, got {images.shape}")
        if (path / "store.json").exists():
            action = "Nothing written; name another folder"
            raise StoreError(
                Problem("E-STORE-005", "store already exists", action=action, files=(str(path),))
            )
        side = images.shape[1]
        rules = {"label_rule": {"name": label_rule}}
        write_settings(path, {"spacing_mm": spacing_mm, "size": side - 2 * margin, "margin": margin, **rules})
        per_shard = 64
        for number, start in enumerate(range(0, len(records), per_shard)):
            with ShardWriter(path, shard_name(number), side) as writer:
                for i in range(start, min(start + per_shard, len(records))):
                    record = records[i]
                    entry = Entry(record.case_id, record.patient_id, digest(images[i]), "done")
                    writer.append(entry, [record], images[i : i + 1], masks[i : i + 1])
                writer.commit()
        write_csv(path)
        return cls.open(path)

    def __len__(self) -> int:
        return len(self.nodules)

    def image(self, index: int) -> NDArray[np.int16]:
        """Return the crop of a nodule, int16 HU (s, s, s) zyx, s = size + 2 margin; a memory map."""
        number = self._shard(index)
        crop: NDArray[np.int16] = self._images(number)[index % len(self) - self._first[number]]
        return crop

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the mask of a nodule, uint8 (s, s, s) zyx: share of the voxel that is nodule, 0-255."""
        number = self._shard(index)
        crop: NDArray[np.uint8] = self._masks(number)[index % len(self) - self._first[number]]
        return crop

    def _shard(self, index: int) -> int:
        """Return the number of the shard that holds a nodule."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"nodule {index} of {len(self)}")
        return bisect_right(self._first, index % len(self)) - 1
