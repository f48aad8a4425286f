"""Which compressed transfer syntaxes are decoded here: a tiny picture in each is decoded and looked at.

``samples.json`` holds one frame of 32 x 32 pixels in each syntax that an encoder was at hand for: GDCM 3.2.6
(JPEG), Pillow 13 (progressive JPEG), CharLS by pyjpegls 1.5.1, OpenJPEG by pylibjpeg-openjpeg 2.6.0, pydicom
3.0.2 (RLE). What they show is a formula, so that no decoder vouches for itself. JPEG by spectral selection
(.53) and HTJ2K (.201 to .203) have no sample.
"""

import base64
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.archive.codecs import DECODED, JPEG, JPEG_2000, JPEG_LS, CodecError, Layout, decode_frame
from toolkit.doctor.report import Finding, Status, Syntax

SIDE = 32
EIGHT_BITS = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 55))
LOSSY = EIGHT_BITS | {f"1.2.840.10008.1.2.4.{n}" for n in (51, 81, 91)}
MOST_OFF = 2  # of 4096 or 256 steps, what the encoders lost; the others lost nothing
MISSING = "series in it are refused (E-DCM-007)"


def picture(syntax: str) -> NDArray[np.int64]:
    """Return what the sample of a syntax shows, (32, 32)."""
    y, x = np.indices((SIDE, SIDE), np.int64)
    fine = (y * x) % 5
    return 20 + 4 * y + 3 * x + fine if syntax in EIGHT_BITS else 300 + 80 * y + 40 * x + fine


def samples() -> dict[str, bytes]:
    """Return the samples by transfer syntax."""
    text = Path(__file__).with_name("samples.json").read_text("utf-8")
    return {syntax: base64.b64decode(data) for syntax, data in json.loads(text).items()}


def try_syntaxes() -> tuple[Syntax, ...]:
    """Decode every sample, in the order of transfer syntaxes."""
    at_hand = samples()
    return tuple(_try(syntax, at_hand.get(syntax)) for syntax in sorted(DECODED, key=_numbers))


def _try(syntax: str, data: bytes | None) -> Syntax:
    decoder = decoder_of(syntax)
    if not present(syntax):
        return Syntax(syntax, decoder, "missing")
    if data is None:
        return Syntax(syntax, decoder, "present")
    return Syntax(syntax, decoder, "decoded" if shows(syntax, data) else "wrong")


def shows(syntax: str, data: bytes) -> bool:
    """Tell whether a frame decodes to the picture of its syntax."""
    bits = (8, 8) if syntax in EIGHT_BITS else (16, 12)
    try:
        pixels = decode_frame(data, syntax, Layout(SIDE, SIDE, *bits, signed=False))
    except CodecError:
        return False
    off = np.abs(pixels.astype(np.int64) - picture(syntax)).max()
    return bool(off <= (MOST_OFF if syntax in LOSSY else 0))


def decoder_of(syntax: str) -> str:
    """Return the name of the one decoder of a syntax."""
    named = ((JPEG, "GDCM"), (JPEG_LS, "CharLS"), (JPEG_2000, "OpenJPEG"))
    return next((name for syntaxes, name in named if syntax in syntaxes), "pydicom")


def present(syntax: str) -> bool:
    """Tell whether the decoder of a syntax can be imported."""
    try:
        if syntax in JPEG:
            import gdcm  # noqa: F401
        else:
            from pydicom.pixels import get_decoder

            plugins = {"CharLS": "pyjpegls", "OpenJPEG": "pylibjpeg", "pydicom": "pydicom"}
            return plugins[decoder_of(syntax)] in get_decoder(syntax).available_plugins
    except Exception:  # a shared library that is not there
        return False
    return True


def judge(found: tuple[Syntax, ...]) -> list[Finding]:
    """Return a finding for each decoder."""
    decoders = dict.fromkeys(syntax.decoder for syntax in found)
    return [_judge(name, [each for each in found if each.decoder == name]) for name in decoders]


def _judge(decoder: str, found: list[Syntax]) -> Finding:
    words = {
        "decoded": "decoded",
        "present": "not tried, decoder present",
        "wrong": "WRONG",
        "missing": "missing",
    }
    told = [
        f"{' '.join(_short(each.uid) for each in found if each.outcome == outcome)} {word}"
        for outcome, word in words.items()
        if any(each.outcome == outcome for each in found)
    ]
    status: Status = "ok"
    consequence = fix = ""
    if any(each.outcome == "missing" for each in found):
        status, consequence, fix = "trap", MISSING, "install toolkit's dependencies anew"
    if any(each.outcome == "wrong" for each in found):
        consequence, fix = (
            "voxels would be wrong or refused",
            "install the decoder in the version of constraints.txt",
        )
        status = "failed"
    return Finding("transfer syntaxes", decoder, status, "; ".join(told), consequence, fix)


def _short(uid: str) -> str:
    """Return ``.70`` for what every DICOM reader knows by that number."""
    return "RLE" if uid == "1.2.840.10008.1.2.5" else f".{uid.rpartition('.')[2]}"


def _numbers(uid: str) -> list[int]:
    return [int(part) for part in uid.split(".")]
