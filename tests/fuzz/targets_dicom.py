"""DICOM: headers by both parsers, series, pixels by syntax, segmentations, structure sets, LIDC XML."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tests.archive.dicom_files import write_all
from tests.archive.lidc_files import SQUARE, message, nodule, point_mark, roi, session
from tests.fuzz import dicom_seeds as made
from tests.fuzz.mutate import Seed
from tests.fuzz.real_files import real_files
from tests.fuzz.target import Read, Target
from toolkit.archive.case import Case, MaskFile
from toolkit.archive.dicom_fields import SliceFile
from toolkit.archive.dicom_general import pydicom_header
from toolkit.archive.dicom_header import read_header
from toolkit.archive.dicom_pixels import hu_rule, read_rows
from toolkit.archive.dicom_series import DicomSeries, SeriesRules, build_series
from toolkit.archive.hu import Tally
from toolkit.archive.lidc_head import sniff_lidc
from toolkit.archive.mask_object import read_head
from toolkit.archive.multi_frame import expand, is_multi_frame
from toolkit.archive.regions import find
from toolkit.archive.scan import FolderTask, scan_folder
from toolkit.archive.slice_checks import check_slice

SYNTAX_WORDS = (
    *(b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.2\0"),
    *(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.70"),
)
TAGS = tuple(
    bytes.fromhex(tag)
    for tag in (
        *("e07f1000", "e07f0800", "28001000", "28001100", "28000001", "28000800", "08001600", "20003200"),
        *("feff00e0", "feff0de0", "feffdde0", "ffffffff", "0020", "53510000ffffffff", "4f570000ffffffff"),
    )
)
TOKENS = (*SYNTAX_WORDS, *TAGS, b"SQ\0\0", b"UN\0\0", b"OB\0\0", b"DS", b"IS", b"US\x02\0", b"\\", b"\0" * 8)
JPEG_TOKENS = tuple(
    bytes.fromhex(t) for t in ("ffd8", "ffd9", "ffc0", "ffc3", "ffc4", "ffda", "ffdd", "ff01")
)
J2K_TOKENS = tuple(
    bytes.fromhex(t) for t in ("ff4fff51", "ff52", "ff5c", "ff90", "ff93", "ffd9", "ff50", "ff53", "ff55")
)


def headers(folder: Path) -> Sequence[Seed]:
    real = real_files(".dcm", "CT1_J2KR")
    cut = [made.seed_of(name, data[: 8 << 10]) for name, data in real.items()]
    return [*made.plain_files(folder), *made.segmentations(folder), *made.structures(folder), *cut]


def _file_reader(folder: Path, use: Callable[[Path], object], name: str = "a.dcm") -> Read:
    path = folder / name

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return use(path)

    return read


def _quick(path: Path) -> object:
    header = read_header(path)
    return expand(path, header) if is_multi_frame(header) else header


def _scan(path: Path) -> object:
    """What an archive scan makes of the file: it refuses nothing, and must raise nothing."""
    return scan_folder(FolderTask(str(path.parent)))


def _slice_file(path: Path) -> list[SliceFile]:
    state, header = path.stat(), read_header(path)
    frames = expand(path, header) if is_multi_frame(header) else [header]
    return [SliceFile(str(path), state.st_size, state.st_mtime_ns, frame) for frame in frames]


def _pixels(path: Path) -> None:
    """Decode what the header says of one file, as a series does."""
    for file in _slice_file(path):
        check_slice(file)
        rows = int(file.header.rows or 0)
        pixels = read_rows(file.path, file.size, file.mtime_ns, file.header, 0, rows)
        assert pixels.shape == (rows, file.header.columns)
        rule = hu_rule(file.header, file.path)
        np.take(rule.table, pixels, mode="clip")


def _series(folder: Path) -> Read:
    """Read a series in which one file is the damaged one."""
    whole = [path for k, path in enumerate(write_all(folder / "series", made.slices())) if k != 1]
    kept = [file for path in whole for file in _slice_file(path)]
    damaged = folder / "series" / "0001.dcm"

    def read(data: bytes) -> None:
        damaged.write_bytes(data)
        series, _ = build_series([*kept, *_slice_file(damaged)], SeriesRules(True, True))
        assert np.isfinite(series.geometry.affine).all()
        found = series.read_boxes([series.geometry.box], Tally())[0]
        assert found.shape == series.geometry.shape_zyx

    return read


def _scan_of(folder: Path) -> DicomSeries:
    files = [file for path in write_all(folder / "ct", made.slices()) for file in _slice_file(path)]
    return build_series(files, SeriesRules())[0]


def _mask(kind: str, name: str) -> Callable[[Path], Read]:
    def reader(folder: Path) -> Read:
        scan = _scan_of(folder)
        path = folder / name
        mask = MaskFile(str(path), kind)  # type: ignore[arg-type]
        case = Case("c", "p", "", scan, (mask,))

        def read(data: bytes) -> None:
            path.write_bytes(data)
            if kind == "lidc":
                sniff_lidc(path)
            else:
                read_head(kind, str(path))
            find(case, scan, 3.0)

        return read

    return reader


def _pixel_target(
    name: str, own: Callable[[Path], Sequence[Seed]], tokens: tuple[bytes, ...], *endings: str
) -> Target:
    """Seeds of our own making, and real files whose names end so, for what nothing here can encode."""

    def seeds(folder: Path) -> Sequence[Seed]:
        real = real_files(*endings)
        return [*own(folder), *(made.seed_of(n, data) for n, data in real.items())]

    return Target(
        f"pixels-{name}", seeds, lambda folder: _file_reader(folder, _pixels), tokens, native=name != "rle"
    )


def _lidc(folder: Path) -> Sequence[Seed]:
    sop = [f"1.2.3.{k + 1}" for k in range(made.SHAPE[0])]
    one = nodule("n1", roi(SQUARE, -397.625, sop[1]), roi(SQUARE, -395.125, sop[2]))
    hole = nodule(
        "n2", roi(SQUARE, -397.625, sop[1]), roi([(3, 3), (4, 3), (4, 4), (3, 3)], 0, sop[1], "FALSE")
    )
    small = message(session(one, point_mark("p")), session(hole))
    seeds = [Seed("small", small.encode()), Seed("other", message(session(one)).encode())]
    real = real_files(".xml", archive="lidc_idri_xml_1318.tar.xz", most=3)
    return [*seeds, *(Seed(name, data[: 30 << 10]) for name, data in real.items())]


def dicom_targets() -> list[Target]:
    """Return all targets of DICOM and of LIDC's annotations."""

    def encoded(*syntaxes: str) -> Callable[[Path], list[Seed]]:
        prefix = "1.2.840.10008.1.2."
        return lambda folder: [s for n in syntaxes for s in made.compressed(folder, prefix + n)]

    return [
        Target("dicom-header", headers, lambda folder: _file_reader(folder, _quick), TOKENS),
        Target("dicom-pydicom", headers, lambda folder: _file_reader(folder, pydicom_header), TOKENS),
        Target("dicom-scan", headers, lambda folder: _file_reader(folder, _scan), TOKENS),
        Target("dicom-series", made.plain_files, _series, TOKENS),
        _pixel_target("rle", encoded("5"), TOKENS),
        _pixel_target("jpeg", made.jpeg, JPEG_TOKENS, ".4.51.dcm", ".4.53.dcm", ".4.55.dcm"),
        _pixel_target("jpeg-ls", encoded("4.80", "4.81"), JPEG_TOKENS),
        _pixel_target("jpeg2000", encoded("4.90", "4.91"), J2K_TOKENS, "J2KI.dcm", "delimiter.dcm"),
        Target("seg", made.segmentations, _mask("seg", "m.dcm"), TOKENS),
        Target("rtstruct", made.structures, _mask("rtstruct", "m.dcm"), TOKENS),
        Target(
            "lidc-xml", _lidc, _mask("lidc", "m.xml"),
            (b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"<![CDATA[", b"<!--", b"-->", b"<?x ?>", b"<roi>",
             b"</roi>", b"<edgeMap>", b"</edgeMap>", b"<xCoord>", b"TRUE", b"FALSE", b"&#0;", b"xmlns=''",
             b"encoding='UTF-16'", b"encoding='UTF-7'", b"\xff\xfe", b"<malignancy>9</malignancy>"),
        ),
    ]  # fmt: skip
