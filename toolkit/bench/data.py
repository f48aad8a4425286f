"""What is worked on, made here from fixed seeds: stores of noise, bricks, and scans on disk."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import kernels
from toolkit.archive.geometry import Geometry
from toolkit.loading.augment import AugmentConfig
from toolkit.loading.batch import Batch, Loader
from toolkit.loading.plan import Plan
from toolkit.loading.sampler import SequentialSampler, members
from toolkit.phantom.anatomy import PhantomPatient, make_patient
from toolkit.phantom.write_dicom import write_dicom
from toolkit.phantom.write_nifti import write_nifti
from toolkit.store import Nodule, Store

SCAN_MM = (1.25, 0.7, 0.7)  # z, y, x of a usual chest CT
ROOM = 1.3  # around the cube, so that one turned by some degrees stays inside
WANDERING = 16


def noise_store(path: Path, crops: int, size: int, margin: int) -> Store:
    """Make a store of noise: crops of `size` voxels and their margin, cut from one block at random places."""
    rng, side = np.random.default_rng(0), size + 2 * margin
    base = rng.normal(-600, 300, (side + WANDERING,) * 3).clip(-1024, 3071).astype(np.int16)
    starts = rng.integers(0, WANDERING, (crops, 3))
    images = np.stack([base[z : z + side, y : y + side, x : x + side] for z, y, x in starts])
    nodules = [
        Nodule(f"n{k}", f"c{k}", f"p{k}", float(k % 2), 8.0, None, (0.0, 0.0, 0.0), 0.0, "none")
        for k in range(crops)
    ]
    return Store.create(path, nodules, images, np.zeros(images.shape, np.uint8), 1.0, margin=margin)


def plan_of(store: Store, config: AugmentConfig, size: int, batch: int, dtype: str) -> Plan:
    """Return a plan that reads every crop once an epoch."""
    sampler = SequentialSampler(members(store.nodules, np.arange(len(store))), batch=batch)
    return Plan(store, sampler, config, size, seed=1, dtype=dtype)  # type: ignore[arg-type]


def endless(loader: Loader) -> Iterator[Batch]:
    """Yield the batches of one epoch after another."""
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1


def noise_bricks(seed: int, count: int, size: int, degrees: float = 0.0) -> list[kernels.Brick]:
    """Return bricks of noise with a ball of a nodule, sampled at 1 mm, turned about the x axis."""
    rng = np.random.default_rng(seed)
    shape = np.array([math.ceil(ROOM * size / mm) for mm in SCAN_MM])
    turn = math.radians(degrees)
    rotation = np.array(
        [[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]]
    )
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    found = []
    for _ in range(count):
        hu = rng.normal(-600, 300, shape).clip(-1024, 3071).astype(np.int16)
        center = (shape - 1) / 2 + rng.uniform(-0.5, 0.5, 3)
        away = (grid - center[:, None, None, None]) * np.array(SCAN_MM)[:, None, None, None]
        mask = (np.square(away).sum(axis=0) < (size / 8) ** 2).astype(np.uint8)
        linear = rotation / np.array(SCAN_MM)[:, None]
        matrix = np.column_stack([linear, center - linear @ np.full(3, (size - 1) / 2)])
        found.append(kernels.Brick(hu, mask, matrix))
    return found


@dataclass(frozen=True)
class Scans:
    """Scans on disk: folders of DICOM slices, gzipped NIfTI volumes, and the patients that they show."""

    folder: Path
    patients: tuple[PhantomPatient, ...]
    small: tuple[PhantomPatient, ...]

    @property
    def slices(self) -> list[Path]:
        """All DICOM files."""
        return sorted(self.folder.glob("dicom/*/*.dcm"))

    @property
    def volumes(self) -> list[Path]:
        """The NIfTI volumes, one of each patient of `small`."""
        return [self.folder / "nifti" / f"{each.patient_id}.nii.gz" for each in self.small]


def write_scans(folder: Path, count: int, rows: int, small: int) -> Scans:
    """Write `count` phantoms, repeated sideways to `rows` x `rows` pixels, as DICOM, and `small` as NIfTI."""
    patients = tuple(_wide(make_patient(0, k), rows) for k in range(count))
    for each in patients:
        place = folder / "dicom" / each.patient_id
        place.mkdir(parents=True)
        write_dicom(each, 0, place)
    (folder / "nifti").mkdir()
    others = tuple(make_patient(0, k) for k in range(small))
    for each in others:
        write_nifti(each, folder / "nifti")
    return Scans(folder, patients, others)


def _wide(patient: PhantomPatient, rows: int) -> PhantomPatient:
    """Return the patient with slices as large as a scanner's."""
    times = math.ceil(rows / patient.hu.shape[1])
    hu = np.ascontiguousarray(np.tile(patient.hu, (1, times, times))[:, :rows, :rows])
    geometry = Geometry(hu.shape, patient.geometry.affine)
    return replace(patient, hu=hu, geometry=geometry, padded=False)
