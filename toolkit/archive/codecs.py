"""Compressed DICOM frames: which decoder reads which transfer syntax, one for each, and how.

The choice is fixed here, so that voxels do not depend on what else is installed:

================  =======================================================
JPEG              GDCM (BSD): 8, 12 and 16 bits, baseline to progressive
JPEG-LS           pyjpegls over CharLS (BSD)
JPEG 2000, HTJ2K  pylibjpeg-openjpeg over OpenJPEG (BSD)
RLE               pydicom itself (MIT)
================  =======================================================

What a codestream says of its size is compared with the header before a decoder sees it (PS3.5 8.2:
they must agree): a few bytes can declare gigabytes.
"""

import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

JPEG_LOSSY = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55))
JPEG = JPEG_LOSSY | frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (57, 70))
JPEG_LS = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (80, 81))
JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203))
RLE = "1.2.840.10008.1.2.5"
# Those that can only be lossy; 91 and 203 may hold either.
LOSSY = JPEG_LOSSY | {"1.2.840.10008.1.2.4.81"}
DECODED = JPEG | JPEG_LS | JPEG_2000 | {RLE}
MAX_FRAME_BYTES = 1 << 27  # 8192 x 8192 pixels of 16 bits

_PLUGINS = {**dict.fromkeys(JPEG_LS, "pyjpegls"), **dict.fromkeys(JPEG_2000, "pylibjpeg"), RLE: "pydicom"}
_BARE_MARKERS = frozenset((0x01, *range(0xD0, 0xDA)))  # TEM, RST, SOI, EOI: no length follows
_FRAME_MARKERS = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}  # SOF of JPEG and JPEG-LS
_QUIET = threading.Lock()


class CodecError(Exception):
    """A stream that cannot be decoded; the text is safe to show."""


class Layout(NamedTuple):
    """What the header says of a frame."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool


class Stream(NamedTuple):
    """What a codestream says of itself."""

    rows: int
    columns: int
    components: int
    bits: int


def decode_frame(data: bytes, syntax: str, layout: Layout) -> NDArray[Any]:
    """Decode one frame.

    Returns
    -------
    unsigned integers (rows, columns)
        Patterns of `bits_allocated` bits. A sample narrower than `bits_stored` keeps its sign where
        the decoder knows it.

    Raises
    ------
    CodecError
        Whatever is wrong with the stream, a size that is not the header's included.
    """
    if syntax != RLE:
        _check(stream_of(data), layout)
    if syntax in JPEG_LS and not data.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise CodecError("a codestream without an end")  # CharLS would search for it for seconds
    if layout.rows * layout.columns * max(8, layout.bits_allocated) // 8 > MAX_FRAME_BYTES:
        raise CodecError(f"a frame of more than {MAX_FRAME_BYTES >> 20} MiB")
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            pixels = _gdcm(data, syntax, layout) if syntax in JPEG else _pydicom(data, syntax, layout)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise nearly anything on malformed streams
        raise CodecError(type(error).__name__) from error
    return pixels.view(f"u{pixels.itemsize}")


def _check(stream: Stream, layout: Layout) -> None:
    """Compare a codestream with the header."""
    if (stream.rows, stream.columns) != (layout.rows, layout.columns):
        size = f"{layout.rows} x {layout.columns}"
        raise CodecError(f"a codestream of {stream.rows} x {stream.columns} pixels for {size}")
    if stream.components != 1 or not 1 <= stream.bits <= layout.bits_allocated:
        raise CodecError(f"a codestream of {stream.components} components of {stream.bits} bits")


def stream_of(data: bytes) -> Stream:
    """Read a frame's own size: SIZ of JPEG 2000 (T.800 A.5.1), SOF of JPEG and JPEG-LS (T.81 B.2.2)."""
    try:
        start = _codestream(data)
        if start >= 0:
            x1, y1, x0, y0 = struct.unpack_from(">4I", data, start + 8)
            (components, bits) = struct.unpack_from(">HB", data, start + 40)
            return Stream(y1 - y0, x1 - x0, components, (bits & 0x7F) + 1)
        at = 2
        while data.startswith(b"\xff\xd8"):
            mark, code, length = struct.unpack_from(">BBH", data, at)
            if mark != 0xFF or code in _BARE_MARKERS:  # decoders would skip it and see another frame
                break
            if code in _FRAME_MARKERS:
                bits, rows, columns, components = struct.unpack_from(">BHHB", data, at + 4)
                return Stream(rows, columns, components, bits)
            at += 1 if code == 0xFF else 2 + length  # a marker may be preceded by fill bytes
    except struct.error:
        pass
    raise CodecError("no codestream")


def _codestream(data: bytes) -> int:
    """Return where a JPEG 2000 codestream begins, bare or in the first jp2c box of a JP2 file; -1 without.

    Only what OpenJPEG itself will read counts: another box may hold a decoy of another size.
    """
    at = 0
    if data.startswith(b"\x00\x00\x00\x0cjP  \r\n\x87\n"):
        while data[at + 4 : at + 8] != b"jp2c":
            (length,) = struct.unpack_from(">I", data, at)
            if length < 8:  # the last box, or one beyond 4 GiB
                return -1
            at += length
        at += 8
    return at if data[at : at + 4] == b"\xff\x4f\xff\x51" else -1


def _gdcm(data: bytes, syntax: str, layout: Layout) -> NDArray[Any]:
    """Decode JPEG with GDCM."""
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(data)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((layout.columns, layout.rows, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    bits = layout.bits_stored
    pixel = gdcm.PixelFormat(1, layout.bits_allocated, bits, bits - 1, int(layout.signed))
    image.SetPixelFormat(pixel)
    buffer = image.GetBuffer().encode("utf-8", "surrogateescape")  # char* comes as text
    return np.frombuffer(buffer, f"<u{layout.bits_allocated // 8}").reshape(layout.rows, layout.columns)


def _pydicom(data: bytes, syntax: str, layout: Layout) -> NDArray[Any]:
    """Decode one frame with the plug-in that is its syntax' own."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    pixels, _ = get_decoder(syntax).as_array(
        encapsulate([data], has_bot=False),
        index=0,
        raw=True,
        decoding_plugin=_PLUGINS[syntax],
        rows=layout.rows,
        columns=layout.columns,
        number_of_frames=1,
        samples_per_pixel=1,
        photometric_interpretation="MONOCHROME2",
        bits_allocated=layout.bits_allocated,
        bits_stored=layout.bits_stored,
        pixel_representation=int(layout.signed),
        pixel_keyword="PixelData",
    )
    return np.ascontiguousarray(pixels)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what C libraries print off the user's terminal: they write to the descriptor itself."""
    with _QUIET, Path(os.devnull).open("wb") as sink:
        kept = os.dup(2)
        try:
            os.dup2(sink.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
