"""Tables, splits, the index cache, stores and model folders."""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

from tests.fuzz.mutate import Seed, damaged, damaged_json
from tests.fuzz.target import Read, Target
from tests.loading.stores import make_store
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.labels import read_labels
from toolkit.archive.luna16 import read_luna16, sniff_luna16
from toolkit.archive.manifest import read_manifest
from toolkit.loading.split import Partition, Split
from toolkit.loading.split_file import read_split, write_split
from toolkit.preprocess.plan import extend_plan, read_plan
from toolkit.store import Store
from toolkit.store.format import canonical_json, digest, sealed, sealed_lines, shard_name
from toolkit.store.scans import scan_notes, source_spacing
from toolkit.store.verify import verify

CSV = (
    b",",
    b"\n",
    b"\r\n",
    b'"',
    b'""',
    b"\xef\xbb\xbf",
    b"\0",
    b"\xff",
    b";",
    b"\t",
    b"a" * 140000,
    b",,,,",
)
NPY_TOKENS = (
    *(b"\x93NUMPY\x01\0", b"\x93NUMPY\x02\0", b"\x93NUMPY\x03\0", b"PK\x03\x04", b"'|O'", b"'<i8'", b"True"),
    *(b"(((((" * 200, b"9" * 30, b"-1", b"{'a': ", b"\\", b"'''", b"__import__('os')", b"[('a','<i2')]"),
)


def _table(name: str, use: Callable[[Path], object]) -> Callable[[Path], Read]:
    def reader(folder: Path) -> Read:
        path = folder / name

        def read(data: bytes) -> object:
            path.write_bytes(data)
            return use(path)

        return read

    return reader


def _texts(*texts: str) -> Callable[[Path], Sequence[Seed]]:
    return lambda folder: [Seed(str(k), text.encode()) for k, text in enumerate(texts)]


MANIFEST = (
    "case_id,patient_id,image,series_uid,mask,nodule_id,label,split\na,p,a.nii,,m.nii,1,0.5,train\n"
    "a,p,a.nii,,m.nii,2,1,train\nb,q,sub/b,1.2.3,,,,\n",
    "case_id,patient_id,image,x_mm,y_mm,z_mm,diameter_mm,label\na,p,a.mhd,1.5,-2,3e1,7,1\nb,q,b.mhd,,,,,\n",
)
LABELS = (
    "case_id,label,nodule_id\na,0,1\nb,1,\n",
    "series_uid,x_mm,y_mm,z_mm,diameter_mm,label\n1.2.3,1,2,3,4,0.25\n",
    "seriesuid,coordX,coordY,coordZ,label\n1.2.3,1,2,3,1\n",
)
LUNA = (
    "seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2.3,-1.5,2,3,4.25\n1.2.4,1,2,3,5\n",
    "seriesuid,coordX,coordY,coordZ,class\n1.2.3,-1.5,2,3,0\n1.2.4,1,2,3,1\n",
)


def _luna(path: Path) -> object:
    kind = sniff_luna16(path)
    return read_luna16(path, kind) if kind else None


def _seal_or_raw(seed: Seed, rng: Random, tokens: Sequence[bytes], others: Sequence[Seed]) -> bytes:
    """Damage the values of sealed lines and seal them anew, or damage the bytes as they are."""
    if rng.random() < 0.25:
        return damaged(seed, rng, tokens, others)
    values = [json.loads(line) for line in seed.data.splitlines()]
    if len(values) == 1 and "line" not in values[0]:
        values[0].pop("digest")
        value = damaged_json(values[0], rng)
        return _sealed_any(value)
    for value in values:
        value.pop("digest"), value.pop("line")
    changed = damaged_json(values, rng)
    if not isinstance(changed, list) or not all(isinstance(v, dict) for v in changed):
        return b"".join(_sealed_any(v) for v in (changed if isinstance(changed, list) else [changed]))
    try:
        return sealed_lines(changed)
    except ValueError:
        return seed.data


def _sealed_any(value: object) -> bytes:
    if not isinstance(value, dict):
        return json.dumps(value).encode() + b"\n"
    if isinstance(value.get("config_digest"), str):  # a forger would mend this as well
        core = {name: v for name, v in value.items() if name != "config_digest"}
        value = {**core, "config_digest": digest(canonical_json(core))}
    return sealed(value)


def _store(folder: Path) -> Store:
    return make_store(folder / "store", count=5, side=8, margin=1)


def _store_files(part: str) -> Callable[[Path], Sequence[Seed]]:
    def seeds(folder: Path) -> Sequence[Seed]:
        path = _store(folder).path
        seed = Seed(part, (path / part).read_bytes())
        return [seed, seed]

    return seeds


def _store_reader(part: str) -> Callable[[Path], Read]:
    """Open a store in which one file is the damaged one, and look at all of it."""

    def reader(folder: Path) -> Read:
        path = _store(folder).path

        def read(data: bytes) -> None:
            (path / part).write_bytes(data)
            list(verify(path))
            store = Store.open(path)
            for k in range(len(store)):
                assert store.image(k).ndim == store.mask(k).ndim == 3
            source_spacing(store), scan_notes(store)

        return read

    return reader


def _plan_seeds(folder: Path) -> Sequence[Seed]:
    lines = [{"shard": shard_name(k), "cases": [f"c{2 * k}", f"c{2 * k + 1}"]} for k in range(3)]
    return [Seed("plan", sealed_lines(lines))]


def _plan_reader(folder: Path) -> Read:
    path = _store(folder).path

    def read(data: bytes) -> None:
        (path / "plan.jsonl").write_bytes(data)
        list(verify(path))
        extend_plan(read_plan(path), ["c1", "c7", "c8"])

    return read


def _split_seeds(folder: Path) -> Sequence[Seed]:
    store = make_store(folder / "store", count=6, side=8, margin=1)
    ids = [nodule.nodule_id for nodule in store.nodules]
    parts = (Partition("a", tuple(ids[:2]), tuple(ids[2:4]), tuple(ids[4:])),)
    write_split(folder / "s.json", Split("rule", 1, store.settings["config_digest"], parts, 0), store)
    return [Seed("split", (folder / "s.json").read_bytes())]


def _split_reader(folder: Path) -> Read:
    store = make_store(folder / "store", count=6, side=8, margin=1)
    path = folder / "split.json"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return read_split(path, store, compare_crops=False)

    return read


def _index_seeds(folder: Path) -> Sequence[Seed]:
    cache = IndexCache(folder / "i")
    cache.put("folder", "/a", [["a.dcm", 1, 2, "other", None]])
    cache.put("mask", "b", {"x": [1, 2.5, None]})
    cache.close()
    data = next((folder / "i").glob("*.sqlite")).read_bytes()
    return [Seed("index", data)]


def _index_reader(folder: Path) -> Read:
    IndexCache(folder / "i").close()
    path = next((folder / "i").glob("*.sqlite"))

    def read(data: bytes) -> None:
        path.write_bytes(data)
        cache = IndexCache(folder / "i")
        cache.get("folder", "/a"), cache.get("mask", "b"), cache.get("mask", "c")
        cache.put("mask", "b", [1])
        cache.close()

    return read


def _model(folder: Path) -> Path:
    import torch

    from tests.inference.model_folders import write_single

    torch.set_num_threads(1)
    options = {"blocks": [1, 1], "growth": 2, "init_features": 4, "bn_size": 1}
    architecture = {"name": "densenet-small", "options": options, "dropout": 0.0, "stem_stride": 2}
    path = folder / "model"
    shutil.rmtree(path, ignore_errors=True)
    write_single(path, architecture=architecture)
    return path


def _model_seeds(part: str) -> Callable[[Path], Sequence[Seed]]:
    def seeds(folder: Path) -> Sequence[Seed]:
        data = (_model(folder) / part).read_bytes()
        return [Seed(part, data, ((0, 8), (0, 4)))]

    return seeds


def _model_reader(part: str) -> Callable[[Path], Read]:
    def reader(folder: Path) -> Read:
        from toolkit.models.folder import JSON, WEIGHTS, load_members

        path = _model(folder)
        told = json.loads((path / JSON).read_bytes())
        told.pop("digest")

        def read(data: bytes) -> object:
            (path / part).write_bytes(data)
            if part == WEIGHTS:
                (path / JSON).write_bytes(sealed({**told, "files": {WEIGHTS: digest(data)}}))
            return load_members(path)

        return read

    return reader


def _safetensors(seed: Seed, rng: Random, tokens: Sequence[bytes], others: Sequence[Seed]) -> bytes:
    """Damage the header of a safetensors file as JSON, with its length told right, or its bytes."""
    if rng.random() < 0.4:
        return damaged(seed, rng, tokens, others)
    size = int.from_bytes(seed.data[:8], "little")
    header = json.loads(seed.data[8 : 8 + size])
    if rng.random() < 0.5:
        name = rng.choice([name for name in header if name != "__metadata__"])
        words = (
            "F64",
            "F32",
            "F16",
            "BF16",
            "F8_E4M3",
            "F8_E5M2",
            "F8_E8M0",
            "F4",
            "C64",
            "I64",
            "BOOL",
            "U16",
            "x",
        )
        header[name]["dtype"] = rng.choice(words)
    else:
        header = damaged_json(header, rng)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + seed.data[8 + size :]


SEALED = (b'{"', b'":', b"[", b"]", b"{", b"}", b"null", b"true", b"NaN", b"Infinity", b"[" * 2000, b"1e999")


def table_targets() -> list[Target]:
    """Return all targets of tables, stores and model folders."""
    ledger, images = "ledger/00000.jsonl", "shards/00000.images.npy"
    sealed_target = partial(Target, tokens=SEALED, damage=_seal_or_raw)
    return [
        Target("manifest", _texts(*MANIFEST), _table("cases.csv", read_manifest), CSV),
        Target("labels", _texts(*LABELS), _table("labels.csv", read_labels), CSV),
        Target("luna16", _texts(*LUNA), _table("annotations.csv", _luna), CSV),
        sealed_target("split", _split_seeds, _split_reader),
        Target("index-cache", _index_seeds, _index_reader, native=True),
        sealed_target("store-json", _store_files("store.json"), _store_reader("store.json")),
        sealed_target("store-ledger", _store_files(ledger), _store_reader(ledger)),
        sealed_target("store-plan", _plan_seeds, _plan_reader),
        Target("store-shard", _store_files(images), _store_reader(images), NPY_TOKENS),
        sealed_target("model-json", _model_seeds("model.json"), _model_reader("model.json"), memory_mib=2048),
        Target(
            "model-weights", _model_seeds("model.safetensors"), _model_reader("model.safetensors"),
            SEALED, _safetensors, native=True, memory_mib=2048,
        ),
    ]  # fmt: skip
