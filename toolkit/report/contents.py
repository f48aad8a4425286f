"""What a store says about itself: its records, what became of each case, what was refused and noted."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import CODES
from toolkit.store.format import unseal_lines
from toolkit.store.ledger import Entry, committed, read_ledger
from toolkit.store.reader import Store

LABELS = ("malignant", "benign", "open")
SHOWN_MESSAGES = 3


@dataclass(frozen=True, eq=False)
class Contents:
    """An open store and its ledgers, read at one moment.

    Attributes
    ----------
    entries
        One for each case of the committed shards, in order.
    digests
        Of each nodule's crop, in the order of `Store.nodules`.
    unfinished
        Planned shards that are not committed yet.
    """

    store: Store
    entries: tuple[Entry, ...]
    digests: tuple[str, ...]
    unfinished: int


@dataclass(frozen=True)
class CodeGroup:
    """All cases that share a code.

    Attributes
    ----------
    meaning
        What the code stands for.
    messages
        The most frequent messages, each with its count; what was measured differs from case to case.
    transient
        True where a rerun may succeed.
    """

    code: str
    meaning: str
    cases: int
    messages: tuple[tuple[str, int], ...]
    transient: bool = False


def read_contents(path: Path) -> Contents:
    """Open a store and read its ledgers; raises `StoreError` where it is none, or damaged."""
    while True:
        names = committed(path)
        store = Store.open(path)
        entries = tuple(entry for name in names for entry in read_ledger(path, name))
        if committed(path) == names:  # no other process has committed meanwhile
            break
    digests = tuple(str(value["image"]) for entry in entries for value in entry.nodules)
    plan = path / "plan.jsonl"
    planned = {str(value.get("shard")) for value in unseal_lines(plan)} if plan.exists() else set()
    return Contents(store, entries, digests, len(planned - {*names}))


def label_name(label: float | None) -> str:
    """Return ``malignant``, ``benign``, or ``open`` for what is unknown, NaN or exactly between."""
    if label is None or not (label > 0.5 or label < 0.5):
        return "open"
    return "malignant" if label > 0.5 else "benign"


def refusals(entries: Iterable[Entry]) -> list[CodeGroup]:
    """Group refused cases by code, the most frequent first."""
    refused = [entry for entry in entries if entry.status == "refused"]
    transient = {entry.code for entry in refused if entry.transient}
    return _grouped([(entry.code, entry.message) for entry in refused], transient)


def notes(entries: Iterable[Entry]) -> list[CodeGroup]:
    """Group the notes on cases that were read by code, the most frequent first."""
    found = [(entry.status, note) for entry in entries for note in (entry.facts or {}).get("notes", ())]
    return _grouped([(code, message) for _, (code, message) in found], set())


def _grouped(told: Sequence[tuple[str, str]], transient: set[str]) -> list[CodeGroup]:
    by_code: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for code, message in told:
        by_code[code][message] += 1
    groups = []
    for code, messages in by_code.items():
        frequent = sorted(messages.items(), key=lambda pair: (-pair[1], pair[0]))[:SHOWN_MESSAGES]
        meaning = CODES.get(code, "a code that this version does not know")
        groups.append(CodeGroup(code, meaning, sum(messages.values()), tuple(frequent), code in transient))
    return sorted(groups, key=lambda group: (-group.cases, group.code))


def source_spacings(entries: Iterable[Entry]) -> tuple[list[float], list[float]]:
    """Return slice and in-plane spacing (mm) of the scans that were read; empty where none was kept."""
    told = [(entry.facts or {}).get("spacing_mm") for entry in entries]
    known = [spacing for spacing in told if spacing and len(spacing) == 3]
    return [float(s[0]) for s in known], [float(max(s[1:])) for s in known]
