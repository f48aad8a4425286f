"""What a store's ledgers say of the scans that its crops come from."""

from collections.abc import Iterator, Mapping

from toolkit.store.ledger import Entry, committed, read_ledger
from toolkit.store.reader import Store


def entries(store: Store) -> Iterator[Entry]:
    """Yield what became of every case; raises `StoreError` E-STORE-003 where a ledger is damaged."""
    for shard in committed(store.path):
        yield from read_ledger(store.path, shard)


def source_spacing(store: Store) -> Mapping[str, tuple[float, float]]:
    """Return (slice, pixel) spacing of the scan of each case, mm.

    The slice spacing is along the body's axis; of the two in-plane ones it is the larger. A case without
    it, as in a store made of ready crops, is left out.
    """
    found = {}
    for entry in entries(store):
        spacing = (entry.facts or {}).get("spacing_mm")
        if spacing is not None:
            z, y, x = map(float, spacing)
            found[entry.case_id] = (z, max(y, x))
    return found


def scan_notes(store: Store) -> Mapping[str, tuple[str, ...]]:
    """Return the codes of what was noted on the scan of each case, sorted, each once."""
    return {
        entry.case_id: tuple(sorted({str(code) for code, _ in (entry.facts or {}).get("notes", ())}))
        for entry in entries(store)
    }
