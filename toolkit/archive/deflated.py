"""The deflated transfer syntax (PS3.5 A.5), inflated only as far as it is needed.

A stream can grow a thousandfold, so nothing here inflates a file as a whole.
"""

import zlib

from toolkit.archive.files import CHUNK_BYTES, readable, refusal


def inflate_raw(path: str, start: int, length: int, skip: int = 0) -> bytes:
    """Return `length` bytes of what a raw deflate stream inflates to, from byte `skip` on; or fewer.

    Parameters
    ----------
    start
        Where the stream begins in the file.
    skip
        Inflated bytes before the wanted ones; they are dropped as they come.

    Raises
    ------
    InputError
        E-FILE-003 where the stream is corrupt; E-FILE-001 and E-FILE-005 as in `readable`.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    out = bytearray()
    with readable(path) as file:
        file.seek(start)
        data = file.read(CHUNK_BYTES)
        while data and not stream.eof and len(out) < length:
            try:
                piece = stream.decompress(data, 1 << 20)
            except zlib.error as error:
                raise refusal("E-FILE-003", "the deflated data is corrupt", path=path) from error
            out += piece[skip:]
            skip = max(0, skip - len(piece))
            data = stream.unconsumed_tail or file.read(CHUNK_BYTES)
    return bytes(out[:length])
