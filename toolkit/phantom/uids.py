"""Unique identifiers that are a function of what they name."""

import hashlib

UID_ROOT = "2.25"


def uid(*parts: object) -> str:
    """Return a DICOM UID under 2.25 (PS3.5 B.2), the same for the same parts on any machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    # A version 5 UUID by its bits, as 2.25 asks for a UUID.
    number = int.from_bytes(digest[:16], "big")
    number = number & ~(0xF << 76) | 0x5 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    return f"{UID_ROOT}.{number}"
