"""Opening a store: records in memory, crops memory-mapped."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import Problem, StoreError
from toolkit.store.format import Nodule, damaged, digest, images_path, masks_path, shard_name
from toolkit.store.ledger import Entry, committed, nodules_of, read_ledger, write_csv
from toolkit.store.writer import ShardWriter, read_settings, write_settings


@dataclass(frozen=True, eq=False)
class Shard:
    """One committed shard: `images` int16 and `masks` uint8 (n, s, s, s), memory-mapped read-only."""

    name: str
    first: int
    images: NDArray[np.int16]
    masks: NDArray[np.uint8]


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
        The memory-mapped arrays themselves, for those who gather batches.
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
                shape = (len(found), side, side, side)
                images = _map(images_path(path, name), np.dtype("<i2"), shape)
                masks = _map(masks_path(path, name), np.dtype("|u1"), shape)
                shards.append(Shard(name, len(nodules), images, masks))
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
        shard = self._shard(index)
        crop: NDArray[np.int16] = shard.images[index % len(self) - shard.first]
        return crop

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the mask of a nodule, uint8 (s, s, s) zyx: share of the voxel that is nodule, 0-255."""
        shard = self._shard(index)
        crop: NDArray[np.uint8] = shard.masks[index % len(self) - shard.first]
        return crop

    def _shard(self, index: int) -> Shard:
        if not -len(self) <= index < len(self):
            raise IndexError(f"nodule {index} of {len(self)}")
        return self.shards[bisect_right(self._first, index % len(self)) - 1]


def _map(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Map a shard array after checking that it is what the ledger says."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise damaged(path, "missing") from error
    except Exception as error:  # NumPy raises nearly anything on a malformed header
        raise damaged(path, "not a NumPy array of the size that it declares") from error
    if not isinstance(array, np.ndarray):  # a zip file, which NumPy opens as well
        raise damaged(path, "an archive of arrays", "one array")
    if array.dtype != dtype or array.shape != shape:
        raise damaged(path, f"{array.dtype} {array.shape}", f"{dtype} {shape}")
    return array
