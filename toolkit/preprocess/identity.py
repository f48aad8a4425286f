"""Keyed hashes in place of identifiers. They are not de-identification of images; they keep names out."""

import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_config_path

from toolkit.errors import Problem, UsageError
from toolkit.store.files import make_folder, sync_folder


@dataclass(frozen=True)
class IdKey:
    """A secret that turns identifiers into hashes; the same key gives the same hashes anywhere."""

    secret: bytes

    def hash(self, kind: str, identifier: str) -> str:
        """Return 16 hex digits for an identifier of a kind (``case``, ``patient``, ``nodule``).

        A file name that is no UTF-8 is hashed by its bytes.
        """
        told = f"{kind}\0{identifier}".encode(errors="surrogateescape")
        return hmac.digest(self.secret, told, "sha256").hex()[:16]

    @property
    def fingerprint(self) -> str:
        """A hash that tells two keys apart and gives neither away."""
        return self.hash("key", "fingerprint")


def load_key(given: str | None) -> IdKey:
    """Return the key: the content of a file, a literal, or the user's own, made on first use.

    Raises `UsageError` E-KEY-001 where `given` looks like a file that is not there, or is too short.
    """
    if given is None:
        return IdKey(_own_key())
    path = Path(given).expanduser()
    if path.is_file():
        secret = path.read_bytes().strip()
    elif os.sep in given or path.suffix:
        raise UsageError(Problem("E-KEY-001", "no such key file", action="Nothing done", files=(given,)))
    else:
        secret = given.encode()
    if not secret:
        raise UsageError(Problem("E-KEY-001", "id key is empty", "0 bytes", "at least 1", files=(given,)))
    return IdKey(secret)


def _own_key() -> bytes:
    path = user_config_path("toolkit") / "id.key"
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_folder(path.parent)  # is there now; its name is made durable
            _make_key(path)
        secret = path.read_bytes().strip()
    except OSError as error:
        action = "Nothing done; give a key with --id-key FILE"
        problem = Problem(
            "E-KEY-001", "own id key is not usable", error.strerror or "", "", action, (str(path),)
        )
        raise UsageError(problem) from error
    if not secret:
        action = "Nothing done; put the key back from a copy, or remove the file for a new one"
        raise UsageError(Problem("E-KEY-001", "own id key is empty", "0 bytes", "", action, (str(path),)))
    return secret


def _make_key(path: Path) -> None:
    """Write a new key under its name in one step, unless another process was first."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            pass
        except OSError:  # a file system without links: of two processes at once, the later key stays
            temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
