"""Opening and inflating single files: every way they can fail becomes a refusal with a code."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EFBIG
from pathlib import Path
from typing import BinaryIO, Literal

from isal import igzip_lib

from toolkit.errors import InputError, Problem

Compression = Literal["gzip", "zlib"]

CHUNK_BYTES = 1 << 18
MAX_TABLE_BYTES = 256 << 20  # a line for each of a million nodules
_WRAPPERS = {"gzip": igzip_lib.DECOMP_GZIP, "zlib": igzip_lib.DECOMP_ZLIB}
_CORRUPT: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # the stub names an instance
_GZIP_MAGIC = b"\x1f\x8b"


def refusal(
    code: str,
    what: str,
    measured: str = "",
    expected: str = "",
    action: str = "the file is refused",
    path: str = "",
) -> InputError:
    """Return the error that refuses one file; `path` goes to the terminal only."""
    return InputError(Problem(code, what, measured, expected, action, (path,) if path else ()))


def shown(value: object) -> str:
    """Return a header value for a message: printable ASCII, at most 40 characters."""
    text = "".join(c if " " <= c <= "~" else "?" for c in str(value)[:41])
    return text if len(text) <= 40 else text[:37] + "..."


def number(text: str) -> float:
    """Return the number that a text is; ValueError also for ``1_5``, which Python alone takes for 15."""
    if "_" in text:
        raise ValueError("an underscore in a number")
    return float(text)


def whole(text: str) -> int:
    """Return the whole number that a text is; ValueError as `number` raises it."""
    if "_" in text:
        raise ValueError("an underscore in a number")
    return int(text)


class Bounded(io.BufferedReader):
    """A file that is never asked for more than it holds.

    Python allocates what a read asks for before it looks at the file, and pydicom asks for what a header
    declares: four bytes would cost four gigabytes.
    """

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self._bytes = os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes, or all that are left."""
        left = max(0, self._bytes - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def bounded(path: str | Path) -> Bounded:
    """Open a file for a parser that believes lengths; OSError where the system refuses."""
    return Bounded(io.FileIO(path))


@contextmanager
def readable(path: str) -> Iterator[BinaryIO]:
    """Open a file for reading; refuse E-FILE-001 if it is not there, E-FILE-005 if the system says no."""
    try:
        with Path(path).open("rb") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError) as error:
        raise refusal("E-FILE-001", "the file is missing", path=path) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        action = "rerun to try again"
        problem = Problem("E-FILE-005", "reading failed", reason, "", action, (path,), transient=True)
        raise InputError(problem) from error
    except ValueError as error:  # a path with a null character, out of a header
        raise refusal("E-FILE-001", "the file name is not possible on this system") from error


def read_prefix(path: str, size: int, offset: int = 0) -> bytes:
    """Return `size` bytes of a file from `offset` on, or what there is."""
    with readable(path) as file:
        file.seek(offset)
        return file.read(size)


def table_text(path: Path) -> str:
    """Return the text of a table that a person made; the size of a file is looked at before it is read.

    Raises OSError where the system refuses or it has more than 256 MiB, UnicodeDecodeError where it
    is not UTF-8.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_TABLE_BYTES:
            raise OSError(EFBIG, f"more than {MAX_TABLE_BYTES >> 20} MiB")
        return file.read(size).decode("utf-8-sig")


def inflate_prefix(path: str, size: int) -> bytes:
    """Return the first `size` bytes that a gzip file inflates to, reading no further; or fewer."""
    found = bytearray()
    for chunk in inflate(path, "gzip", 0, 0, chunk_bytes=1 << 12):
        found += chunk
        if len(found) >= size:
            break
    return bytes(found[:size])


def file_size(path: str) -> int:
    """Return the size of a file in bytes."""
    with readable(path) as file:
        return file.seek(0, 2)


def inside_folder(header_path: str, name: str) -> str:
    """Return the path of a data file that a header names.

    Parameters
    ----------
    header_path
        The header; the data file must lie in its folder or below, links followed.
    name
        The name as the header has it.

    Raises
    ------
    InputError
        E-FILE-004 where it lies elsewhere: an archive must not make us read other files. E-FILE-003 where it
        is a folder, a pipe or a device.
    """
    folder = Path(header_path).parent
    target = folder / name
    try:
        inside = target.resolve().is_relative_to(folder.resolve())
        special = target.exists() and not target.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise refusal(
            "E-FILE-001", "the data file that the header names is missing", path=header_path
        ) from error
    if not inside:
        raise refusal(
            "E-FILE-004",
            "the header names a data file outside its folder",
            expected="a file beside the header",
            path=header_path,
        )
    if special:  # a pipe would be waited for
        raise refusal("E-FILE-003", "the data that the header names is no file", path=header_path)
    return str(target)


def inflate(
    path: str, encoding: Compression, offset: int, expected: int, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[bytes]:
    """Inflate a file lazily from byte `offset` on, reading `chunk_bytes` at a time.

    Parameters
    ----------
    encoding, expected
        Several gzip members and zero padding are allowed; the stream must hold so many bytes.

    Yields
    ------
    bytes
        1 byte to 1 MiB. Checksums are verified where a stream's end is reached.

    Raises
    ------
    InputError
        E-FILE-002 where the data ends early, E-FILE-003 where it is corrupt.
    """
    total = 0
    member = igzip_lib.IgzipDecompressor(_WRAPPERS[encoding])
    with readable(path) as file:
        file.seek(offset)
        data = file.read(chunk_bytes)
        while data or not member.needs_input:
            out = _decompress(member, data, f"an error after {total} inflated bytes", path)
            total += len(out)
            if out:
                yield out
            data = file.read(chunk_bytes) if member.needs_input and not member.eof else b""
            if member.eof:
                data = _next_member(file, encoding, member.unused_data, chunk_bytes)
                if not data:
                    break
                member = igzip_lib.IgzipDecompressor(_WRAPPERS[encoding])
    if total < expected or not member.eof:
        wanted = f"{expected} bytes" if total < expected else "an end of stream"
        raise refusal("E-FILE-002", "the compressed data ends early", f"{total} bytes", wanted, path=path)


def _decompress(member: igzip_lib.IgzipDecompressor, data: bytes, where: str, path: str) -> bytes:
    """Return the next output, at most 1 MiB of it."""
    try:
        return member.decompress(data, 1 << 20)
    except _CORRUPT as error:
        raise refusal(
            "E-FILE-003", "the compressed data is corrupt", where, "an intact stream", path=path
        ) from error


def _next_member(file: BinaryIO, encoding: Compression, rest: bytes, chunk_bytes: int) -> bytes:
    """Return the start of the next gzip member, or nothing; what follows a stream otherwise is ignored."""
    if encoding != "gzip":
        return b""
    rest = rest.lstrip(b"\0")
    while len(rest) < len(_GZIP_MAGIC):
        more = file.read(chunk_bytes)
        if not more:
            break
        rest = (rest + more).lstrip(b"\0")
    return rest if rest.startswith(_GZIP_MAGIC) else b""
