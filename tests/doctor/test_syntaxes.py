"""The samples are what they are called (by their own markers), and only right pixels count as decoded."""

import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from toolkit.archive.codecs import DECODED, stream_of
from toolkit.doctor import syntaxes
from toolkit.doctor.syntaxes import MOST_OFF, judge, picture, samples, shows, try_syntaxes

P = "1.2.840.10008.1.2.4."
RLE = "1.2.840.10008.1.2.5"
NO_SAMPLE = {f"{P}{n}" for n in (53, 201, 202, 203)}
# T.81 table B.1 and T.87 C.1.1: the frame marker of each process
FRAME = {"50": 0xC0, "51": 0xC1, "55": 0xC2, "57": 0xC3, "70": 0xC3, "80": 0xF7, "81": 0xF7}


def test_every_sample_is_decoded_here() -> None:
    found = {each.uid: each.outcome for each in try_syntaxes()}
    assert set(found) == DECODED
    assert {uid for uid, outcome in found.items() if outcome == "present"} == NO_SAMPLE
    assert all(outcome == "decoded" for uid, outcome in found.items() if uid not in NO_SAMPLE)
    assert {each.status for each in judge(try_syntaxes())} == {"ok"}


@pytest.mark.parametrize("process", FRAME)
def test_a_sample_is_of_its_own_process(process: str) -> None:
    data = samples()[P + process]
    assert data[data.index(bytes([0xFF, FRAME[process]])) :][:2] == bytes([0xFF, FRAME[process]])
    assert stream_of(data)[:3] == (32, 32, 1)
    scan = data.index(b"\xff\xda")
    if process in ("57", "70"):
        assert data[scan + 7] == 1  # first-order prediction, which .70 asks for
    if process in ("80", "81"):
        assert (data[scan + 7] > 0) == (process == "81")  # NEAR


@pytest.mark.parametrize(("process", "transform"), [("90", 1), ("91", 0)])
def test_a_jpeg_2000_sample_has_its_own_wavelet(process: str, transform: int) -> None:
    data = samples()[P + process]
    assert data[data.index(b"\xff\x52") + 13] == transform  # T.800 A.6.1: 1 is reversible


@pytest.mark.parametrize("process", ["50", "55", "90", "91"])
def test_another_decoder_sees_the_same_picture(process: str) -> None:
    pixels = np.array(Image.open(BytesIO(samples()[P + process])))
    shift = 4 if process in ("90", "91") else 0  # Pillow moves 12 bits to the top of 16
    off = np.abs((pixels >> shift).astype(int) - picture(P + process)).max()
    assert off <= (0 if process == "90" else MOST_OFF)


@pytest.mark.parametrize("process", [p for p in FRAME if p not in ("50", "55")])
def test_the_picture_of_another_syntax_is_wrong(process: str) -> None:
    assert shows(P + process, samples()[P + process])
    assert not shows(P + process, samples()[P + "50"])


def test_one_changed_byte_is_noticed() -> None:
    data = bytearray(samples()[RLE])
    data[-20] ^= 0x40
    assert not shows(RLE, bytes(data))
    assert not shows(RLE, b"")


def test_a_wrong_picture_fails_and_a_missing_decoder_is_a_trap(monkeypatch: pytest.MonkeyPatch) -> None:
    swapped = samples() | {P + "80": samples()[P + "90"]}
    monkeypatch.setattr(syntaxes, "samples", lambda: swapped)
    monkeypatch.setitem(sys.modules, "gdcm", None)
    found = {each.name: each for each in judge(try_syntaxes())}
    assert (found["CharLS"].status, found["CharLS"].found) == ("failed", ".81 decoded; .80 WRONG")
    assert (found["GDCM"].status, found["GDCM"].found) == ("trap", ".50 .51 .53 .55 .57 .70 missing")
    assert found["OpenJPEG"].status == "ok"
    assert found["GDCM"].fix
    assert found["CharLS"].fix
