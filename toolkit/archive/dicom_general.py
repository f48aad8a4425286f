"""DICOM headers that the quick parser leaves alone: read by pydicom, whatever they look like."""

import contextlib
import struct
import warnings
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from toolkit.archive import files
from toolkit.archive.codecs import DECODED
from toolkit.archive.deflated import inflate_raw
from toolkit.archive.dicom_fields import (
    DEFLATED,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    UNDEFINED,
    WANTED,
    WHOLE_HEADER,
    SliceHeader,
    UnusualError,
    count,
    element_at,
    file_meta,
    number,
    numbers,
    text_of,
    trim,
)
from toolkit.archive.files import bounded
from toolkit.errors import InputError, Problem


def deflated_header(path: Path, head: bytes) -> SliceHeader | None:
    """Read the header of a deflated file (PS3.5 A.5), inflating no more of it; None where it is none.

    Raises `InputError` E-FILE-003 where it is corrupt or longer than 4 MiB.
    """
    from pydicom.filereader import read_dataset

    try:
        at, syntax = file_meta(head) if head[128:132] == b"DICM" else (0, "")
    except (struct.error, ValueError, UnusualError):
        return None
    if syntax != DEFLATED:
        return None
    data = inflate_raw(str(path), at, WHOLE_HEADER)
    stream = BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = read_dataset(stream, False, True, stop_when=lambda tag, *_: int(tag) >= 0x7FE00008)
            found = fields_of(dataset)
        end = stream.tell()
        if not found.get("sop_class") or (end == len(data) == WHOLE_HEADER):
            raise ValueError("no SOP class, or no end of the header")
        found["has_pixels"] = data[end : end + 4] == b"\xe0\x7f\x10\x00"
        if found["has_pixels"]:
            found["pixel_offset"], found["pixel_length"], _ = element_at(data, end, explicit=True)
    except MemoryError:
        raise
    except Exception as error:  # as in `pydicom_header`
        raise _unreadable(path, error) from error
    digest = blake2b(head[:at] + data[:end], digest_size=16).hexdigest()
    return SliceHeader(**{**found, "transfer_syntax": syntax, "digest": digest})


def pydicom_header(path: Path) -> SliceHeader:
    """Read a header with pydicom: any transfer syntax, no preamble, nested oddities.

    Raises `InputError` E-FILE-003 where pydicom cannot read it.
    """
    import pydicom

    try:
        with warnings.catch_warnings(), bounded(path) as file:
            warnings.simplefilter("ignore")
            if meta_group(file)[1] == DEFLATED:  # pydicom would inflate it without bound
                raise ValueError("deflated, without a preamble")
            file.seek(0)
            dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            end = file.tell()
            file.seek(0)
            digest = blake2b(file.read(end), digest_size=16).hexdigest()
            found = {"digest": digest, **fields_of(dataset)}
            found["has_pixels"] = end < path.stat().st_size
            found.update(_pixel_place(file, end, found.get("transfer_syntax", "")))
        if not found.get("sop_class"):
            raise ValueError("no SOP class")
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises nearly anything on malformed files
        raise _unreadable(path, error) from error
    return SliceHeader(**found)


def meta_group(file: BinaryIO) -> tuple[int, str]:
    """Return where the data set begins, and the transfer syntax, as `pydicom.dcmread` will see them.

    Raises whatever pydicom raises on a malformed file.
    """
    from pydicom.filereader import _read_file_meta_info, read_preamble  # private: nothing else sees the same

    file.seek(0)
    read_preamble(file, force=True)
    meta = _read_file_meta_info(file)
    return file.tell(), str(meta.get("TransferSyntaxUID", ""))


def _pixel_place(file: BinaryIO, end: int, syntax: str) -> dict[str, int]:
    """Return where the pixels lie that follow a header, in the encodings whose element heads are known."""
    if syntax not in (EXPLICIT_LITTLE, IMPLICIT_LITTLE, *DECODED):
        return {}
    file.seek(end)
    try:
        begin, length, tag = element_at(file.read(12), 0, explicit=syntax != IMPLICIT_LITTLE)
    except (struct.error, UnusualError):
        return {}
    native = syntax in (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
    if tag != 0x7FE00010 or native != (length != UNDEFINED):
        return {}
    return {"pixel_offset": end + begin, "pixel_length": length if native else -1}


def sequences(path: Path, header: SliceHeader, keywords: list[str]) -> Any:
    """Return a pydicom dataset of nothing but some elements of a header.

    Raises whatever pydicom raises on a malformed file.
    """
    import pydicom
    from pydicom.filereader import read_dataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if header.transfer_syntax != DEFLATED:
            with bounded(path) as file:
                return pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=keywords)
        with path.open("rb") as file:
            at, _ = file_meta(file.read(WHOLE_HEADER))
        stream = BytesIO(inflate_raw(str(path), at, header.pixel_offset))
        return read_dataset(stream, False, True, stop_when=lambda tag, *_: int(tag) >= 0x7FE00008)


def _unreadable(path: Path, error: Exception) -> InputError:
    measured, action = type(error).__name__, "File skipped; copy it anew from its source"
    return InputError(Problem("E-FILE-003", "not a readable DICOM file", measured, "", action, (str(path),)))


def fields_of(dataset: Any) -> dict[str, Any]:
    """Return the wanted fields of a pydicom dataset in the types of `SliceHeader`."""
    found: dict[str, Any] = {}
    for field, keyword, decode in WANTED.values():
        holder = getattr(dataset, "file_meta", {}) if field == "transfer_syntax" else dataset
        if decode is count:
            with contextlib.suppress(ValueError, TypeError, OverflowError):
                value = holder.get(keyword)
                found[field] = None if value is None or value == "" else files.whole(str(value))
            continue
        value = holder.get(keyword)
        if value is None or value == "":
            continue
        if decode is numbers:
            found[field] = tuple(files.number(str(part)) for part in value)
        elif decode is text_of:
            found[field] = trim(str(value) if isinstance(value, str) else "\\".join(value))
        elif decode is number:
            found[field] = files.number(str(value))
        else:
            whole = files.whole(str(value))
            found[field] = whole % 65536 if field.startswith("padding") else whole
    return found
