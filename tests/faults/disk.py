"""What a disk holds after the power fails: the journal of operations, minus what was not synced.

The model is the weakest that a careful program may rely on. Bytes are safe once the file was synced; a name
is safe once its folder was synced, and the folder's own name once that of its parent was. All else may be
there or not: the names of a folder up to some moment, the bytes of a file in any order, in pieces of a
sector, or as garbage.
"""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HEAD = struct.Struct("<IiIIQQQ")
CREATE, WRITE, TRUNCATE, FSYNC, RENAME, EXCHANGE, UNLINK, MKDIR, RMDIR, UNKNOWN, STRUCK = range(1, 12)
SECTOR = 512
MODES = ("all unsynced lost", "bytes lost, names kept", "names lost, bytes kept", "by chance", "by chance")


@dataclass(frozen=True)
class Operation:
    """A line of the journal; paths relative to the root."""

    kind: int
    error: int
    path: str
    other: str
    at: int
    data: bytes
    number: int


def read_journal(path: Path, root: Path) -> Iterator[Operation]:
    """Yield the operations of a run in the order in which they happened."""
    text, at = path.read_bytes(), 0
    while at < len(text):
        kind, error, n1, n2, where, size, number = HEAD.unpack_from(text, at)
        at += HEAD.size
        one, two, data = (
            text[a:b]
            for a, b in ((at, at + n1), (at + n1, at + n1 + n2), (at + n1 + n2, at + n1 + n2 + size))
        )
        at += n1 + n2 + size
        other = two.decode() if kind == UNKNOWN else _below(two.decode(), root)
        yield Operation(kind, error, _below(one.decode(), root), other, where, data, number)


def _below(path: str, root: Path) -> str:
    return path.removeprefix(str(root)).lstrip("/")


@dataclass
class Change:
    """Bytes, or for None a new length, that a file was given and that may not be on disk yet."""

    at: int
    data: bytes | None
    state: str = "waiting"  # then synced; or lost, where a sync failed

    def apply(self, content: bytearray) -> None:
        """Make the change."""
        if self.data is None:
            content[self.at :] = b""
            content += bytes(self.at - len(content))
            return
        content += bytes(max(0, self.at + len(self.data) - len(content)))
        content[self.at : self.at + len(self.data)] = self.data


@dataclass
class File:
    """A file: what is on disk for certain, and what was done to it since."""

    safe: bytes = b""
    changes: list[Change] = field(default_factory=list)

    @property
    def now(self) -> bytes:
        """What a process reads."""
        content = bytearray(self.safe)
        for change in self.changes:
            change.apply(content)
        return bytes(content)

    def sync(self, worked: bool) -> None:
        """Sync; where that fails, nobody knows what was written, and a later one that works says nothing."""
        for change in self.changes:
            if change.state == "waiting":
                change.state = "synced" if worked else "lost"
        if all(change.state == "synced" for change in self.changes):
            self.safe, self.changes = self.now, []

    def after(self, chance: random.Random, mode: str) -> bytes:
        """Return what is there when the power is back."""
        content = bytearray(self.safe)
        for change in self.changes:
            fate = {MODES[0]: "gone", MODES[1]: "gone", MODES[2]: "whole"}.get(mode)
            if change.state == "synced":
                fate = "whole"
            fate = fate or chance.choice(("whole", "gone", "torn", "garbage"))
            if fate == "whole":
                change.apply(content)
            elif fate != "gone" and change.data:
                for start in range(0, len(change.data), SECTOR):
                    part = change.data[start : start + SECTOR]
                    if chance.random() < 0.5:
                        Change(change.at + start, part).apply(content)
                    elif fate == "garbage":
                        Change(change.at + start, chance.randbytes(len(part))).apply(content)
        return bytes(content)


@dataclass
class Folder:
    """A folder: names that are on disk for certain, and what was done to them since, step by step."""

    safe: dict[str, "File | Folder"] = field(default_factory=dict)
    changes: list[dict[str, "File | Folder | None"]] = field(default_factory=list)
    now: dict[str, "File | Folder"] = field(default_factory=dict)

    def change(self, names: dict[str, "File | Folder | None"]) -> None:
        """Give and take names in one step."""
        self.changes.append(names)
        _give(self.now, names)

    def sync(self, worked: bool) -> None:
        """Sync; nothing is certain where that fails."""
        if worked:
            self.safe, self.changes = dict(self.now), []

    def after(self, chance: random.Random, mode: str) -> dict[str, "File | Folder"]:
        """Return the names that are there when the power is back."""
        keep = {MODES[0]: 0, MODES[1]: len(self.changes), MODES[2]: 0}.get(mode)
        keep = chance.randint(0, len(self.changes)) if keep is None else keep
        names = dict(self.safe)
        for change in self.changes[:keep]:
            _give(names, change)
        return names


def _give(names: dict[str, File | Folder], change: dict[str, File | Folder | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


@dataclass
class State:
    """A content that a name had, from the moment it had it until the next; None for no such file."""

    content: bytes | None
    folder: str  # whose sync makes it last
    promised: bool = False


class Disk:
    """All files below a root: as processes see them, and as they may be when the power is back."""

    def __init__(self, start: dict[str, bytes], folders: list[str]) -> None:
        self.root = Folder()
        self.states: dict[str, list[State]] = {}
        self.unknown: list[str] = []
        for path in folders:
            self._folder(path, make=True)
        for path, content in start.items():
            parent, name = self._place(path)
            parent.safe[name] = parent.now[name] = File(content)
            self.states[path] = [State(content, "", promised=True)]

    def _folder(self, path: str, *, make: bool = False) -> Folder:
        node: File | Folder = self.root
        for name in filter(None, path.split("/")):
            assert isinstance(node, Folder)
            if make and name not in node.now:
                node.safe[name] = node.now[name] = Folder()
            node = node.now[name]
        assert isinstance(node, Folder)
        return node

    def _place(self, path: str) -> tuple[Folder, str]:
        parent, _, name = path.rpartition("/")
        return self._folder(parent), name

    def _file(self, path: str) -> File:
        parent, name = self._place(path)
        node = parent.now[name]
        assert isinstance(node, File)
        return node

    def play(self, operation: Operation) -> None:
        """Do an operation as the journal has it."""
        kind, path, worked = operation.kind, operation.path, not operation.error
        if kind == UNKNOWN:
            self.unknown.append(f"{operation.other} on {path}")
        elif kind == FSYNC:
            self._sync(path, worked)
        elif kind == STRUCK or not worked:
            return
        elif kind == WRITE:
            self._file(path).changes.append(Change(operation.at, operation.data))
        elif kind == TRUNCATE:
            self._file(path).changes.append(Change(operation.at, None))
        elif kind in (CREATE, MKDIR):
            parent, name = self._place(path)
            parent.change({name: File() if kind == CREATE else Folder()})
        elif kind in (UNLINK, RMDIR):
            parent, name = self._place(path)
            parent.change({name: None})
            self._remember(path, None, path)
        else:
            self._rename(path, operation.other, exchange=kind == EXCHANGE)

    def _sync(self, path: str, worked: bool) -> None:
        parent, name = self._place(path)
        node = parent.now[name] if path else self.root
        node.sync(worked)
        if isinstance(node, Folder) and worked:
            for state in (s for states in self.states.values() for s in states if s.folder == (path or ".")):
                state.promised = True

    def _rename(self, old: str, new: str, *, exchange: bool) -> None:
        parent, name = self._place(old)
        other, to = self._place(new)
        assert parent is other, "a name that moves to another folder is not modelled"
        one, two = parent.now[name], parent.now.get(to)
        parent.change({name: two if exchange else None, to: one})
        if isinstance(one, File):
            self._remember(new, one.now, new)
        else:
            gone = {f"{new}/{path}" for path in _files(two)} if isinstance(two, Folder) else set()
            for path, content in _files(one).items():
                gone.discard(f"{new}/{path}")
                self._remember(f"{new}/{path}", content, new)
            for path in gone:
                self._remember(path, None, new)

    def _remember(self, path: str, content: bytes | None, renamed: str) -> None:
        folder = renamed.rpartition("/")[0] or "."
        self.states.setdefault(path, [State(None, "", promised=True)]).append(State(content, folder))

    def now(self) -> dict[str, bytes]:
        """Return all files as a process sees them."""
        return _files(self.root)

    def after_power_loss(self, chance: random.Random, mode: str) -> tuple[dict[str, bytes], list[str]]:
        """Return files and folders as they may be when the power is back."""
        found: dict[str, bytes] = {}
        folders: list[str] = []

        def walk(folder: Folder, prefix: str) -> None:
            for name, node in sorted(folder.after(chance, mode).items()):
                if isinstance(node, File):
                    found[prefix + name] = node.after(chance, mode)
                else:
                    folders.append(prefix + name)
                    walk(node, f"{prefix}{name}/")

        walk(self.root, "")
        return found, folders


def _files(folder: Folder) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, node in folder.now.items():
        if isinstance(node, File):
            found[name] = node.now
        else:
            found |= {f"{name}/{path}": content for path, content in _files(node).items()}
    return found


def broken_promises(disk: Disk, found: dict[str, bytes], exempt: tuple[str, ...]) -> list[str]:
    """Return what is wrong with final names: a part under one, or one that was promised and is not there.

    `exempt` are the folders whose files nothing is promised of; a name that ends in .tmp is not final.
    """
    wrong = []
    for path in sorted({*disk.states, *found}):
        parts = path.split("/")
        if any(part.endswith(".tmp") for part in parts) or {*parts} & {*exempt}:
            continue
        states = disk.states.get(path, [State(None, "", promised=True)])
        last = max(k for k, state in enumerate(states) if state.promised)
        content = found.get(path)
        if content not in [state.content for state in states[last:]]:
            known = content in [state.content for state in states]
            what = "gone" if content is None else "an older one" if known else f"a part, {len(content)} bytes"
            wrong.append(f"{path}: {what}")
    return wrong
