"""NRRD, MetaImage and NIfTI, plain and compressed, and the damage done inside the compression."""

import gzip
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import numpy as np

from tests.archive.volume_files import canonical_geometry, phantom, small_turn, write_itk, write_nifti
from tests.fuzz.mutate import Seed
from tests.fuzz.real_files import real_files
from tests.fuzz.target import Read, Target
from toolkit.archive.geometry import Box
from toolkit.archive.hu import Tally
from toolkit.archive.volume import open_labels, open_volume

NIFTI_HOT = tuple((at, 2) for at in range(40, 56, 2)) + tuple((at, 4) for at in (0, 108, 112, 116, 344))
NIFTI_HOT += ((70, 2), (72, 2), (123, 1 * 2), (252, 2), (254, 2), *((at, 4) for at in range(76, 108, 4)))
NIFTI_HOT += tuple((at, 4) for at in range(256, 328, 4))
SMALL = canonical_geometry((4, 5, 6), turn=small_turn()).affine
TEXT = (
    b"\n",
    b"\n\n",
    b"=",
    b": ",
    b" ",
    b"\0",
    b"LIST",
    b"LOCAL",
    b"../x",
    b"/etc/hostname",
    b"%d",
    b"\xff",
)
META = (
    *(b"NDims = 4", b"NDims = 99999", b"CompressedData = True", b"BinaryData = False", b"HeaderSize = -1"),
    *(b"ElementType = MET_DOUBLE", b"ElementType = MET_CHAR", b"ElementByteOrderMSB = True", b"DimSize = "),
    *(b"ElementDataFile = LOCAL\n", b"ElementSpacing = 0 0 0", b"Offset = ", b"TransformMatrix = "),
)
NRRD = (
    *(b"encoding: gzip\n", b"encoding: raw\n", b"type: double\n", b"type: block\n", b"dimension: 4\n"),
    *(b"sizes: ", b"byte skip: -1\n", b"line skip: 1\n", b"data file: ", b"endian: big\n", b"none"),
    *(
        b"space: RAS\n",
        b"space dimension: 3\n",
        b"spacings: nan nan nan\n",
        b"units: ",
        b"kinds: ",
        b"(1,",
        b")",
    ),
    *(b"space directions: none none none\n", b"key:=value\n", b"space origin: (0,0,0)\n", b"thicknesses: "),
)


def _reader(name: str) -> Callable[[Path], Read]:
    """Read a file as a scan, a corner of it as a box, and as labels."""

    def reader(folder: Path) -> Read:
        path = folder / name
        (folder / "a.raw").write_bytes(phantom((4, 5, 6)).tobytes())
        (folder / "a.raw.gz").write_bytes(gzip.compress(phantom((4, 5, 6)).tobytes()))

        def read(data: bytes) -> None:
            path.write_bytes(data)
            volume = open_volume(str(path))
            assert np.isfinite(volume.geometry.affine).all()
            whole = volume.geometry.box
            corner = Box((0, 0, 0), tuple(min(n, 64) for n in whole.stop_zyx))  # type: ignore[arg-type]
            (found,) = volume.read_boxes([corner], Tally())
            assert found.shape == corner.shape_zyx
            for box, labels in open_labels(str(path)).regions():
                assert labels.shape == box.shape_zyx

        return read

    return reader


def _itk(*names: str) -> Callable[[Path], Sequence[Seed]]:
    def seeds(folder: Path) -> Sequence[Seed]:
        values = np.maximum(phantom((4, 5, 6)), 0)
        types = (np.int16, np.uint8, np.float32)
        made = [
            Seed(
                f"{name}-{np.dtype(kind)}", write_itk(folder / name, values.astype(kind), SMALL).read_bytes()
            )
            for name in names
            for kind in types
        ]
        endings = tuple({Path(name).suffix for name in names})
        return [*made, *(Seed(n, data) for n, data in real_files(*endings).items() if len(data) < 40000)]

    return seeds


def _nifti(folder: Path) -> Sequence[Seed]:
    import nibabel as nib

    values = np.maximum(phantom((4, 5, 6)), 0)
    made = []
    for k, fields in enumerate(
        ({}, {"sform": 0, "qform": 1}, {"qform": 1, "scl_slope": 2.0, "scl_inter": -3})
    ):
        path = write_nifti(
            folder / "a.nii", values.astype((np.int16, np.uint8, np.float64)[k]), SMALL, **fields
        )
        made.append(Seed(f"nifti1-{k}", path.read_bytes(), NIFTI_HOT))
    two = nib.Nifti2Image(values.T, np.diag([0.5, 0.75, 2.5, 1]))
    nib.save(two, folder / "b.nii")
    places = ((0, 4), (4, 4), (12, 2), (14, 2), *((at, 8) for at in range(16, 80, 8)), (168, 8), (344, 4))
    return [*made, Seed("nifti2", (folder / "b.nii").read_bytes(), places)]


def _gzip(data: bytes, rng: Random) -> bytes:
    """Pack a file, sometimes as two members or with the stream itself damaged."""
    cut = rng.randrange(len(data) + 1)
    packed = gzip.compress(data, 1, mtime=0)
    if rng.random() < 0.1:
        packed = gzip.compress(data[:cut], 1, mtime=0) + gzip.compress(data[cut:], 1, mtime=0)
    return _spoiled(packed, rng)


def _spoiled(packed: bytes, rng: Random) -> bytes:
    how = rng.random()
    if how < 0.1:
        return packed[: rng.randrange(len(packed) + 1)]
    if how < 0.3:
        changed = bytearray(packed)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    return packed


def _packed_after(mark: bytes, pack: Callable[[bytes], bytes]) -> Callable[[bytes, Random], bytes]:
    """Compress what follows the header's last line, damage to both done before."""

    def packed(data: bytes, rng: Random) -> bytes:
        at = data.find(mark)
        end = data.find(b"\n", at + 1) + 1 if at >= 0 else 0
        end = at + 2 if mark == b"\n\n" and at >= 0 else end
        return data[:end] + _spoiled(pack(data[end:]), rng) if end else data

    return packed


def _with(
    word: bytes, new: bytes, seeds: Callable[[Path], Sequence[Seed]]
) -> Callable[[Path], Sequence[Seed]]:
    return lambda folder: [s._replace(data=s.data.replace(word, new)) for s in seeds(folder)]


def volume_targets() -> list[Target]:
    """Return all targets of volume files."""
    return [
        Target("nrrd", _itk("a.nrrd", "z.nrrd"), _reader("v.nrrd"), (*TEXT, *NRRD)),
        Target("nhdr", _itk("a.nhdr"), _reader("v.nhdr"), (*TEXT, *NRRD, b"a.raw", b"a.raw.gz")),
        Target(
            "nrrd-gz",
            _with(b"encoding: raw", b"encoding: gzip", _itk("a.nrrd")),
            _reader("v.nrrd"),
            NRRD,
            packed=_packed_after(b"\n\n", lambda d: gzip.compress(d, 1, mtime=0)),
        ),
        Target("mha", _itk("a.mha", "z.mha"), _reader("v.mha"), (*TEXT, *META)),
        Target("mhd", _itk("a.mhd"), _reader("v.mhd"), (*TEXT, *META, b"a.raw", b"a.raw.gz")),
        Target(
            "mha-zlib",
            _with(b"CompressedData = False", b"CompressedData = True", _itk("a.mha")),
            _reader("v.mha"),
            META,
            packed=_packed_after(b"ElementDataFile", lambda d: zlib.compress(d, 1)),
        ),
        Target("nifti", _nifti, _reader("v.nii"), (b"n+1\0", b"ni1\0", b"\x5c\x01\0\0", b"\x1c\x02\0\0")),
        Target("nifti-gz", _nifti, _reader("v.nii.gz"), (b"n+1\0", b"\x1f\x8b"), packed=_gzip),
    ]
