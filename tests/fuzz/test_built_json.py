"""Stores and model files with wrong values under right digests: refused, or read as just what they say."""

import json
from dataclasses import asdict, fields, replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.built import examples, read_or_refused
from tests.loading.stores import make_store
from toolkit.evaluation.results import to_json
from toolkit.models.folder import JSON, ModelFile, Range, read_model_file
from toolkit.store import Nodule, Store
from toolkit.store.format import canonical_json, digest, sealed, sealed_lines, unseal, unseal_lines
from toolkit.store.verify import verify

NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 0.5, 1.5, 2.5, 6, 1e11, 1e13, -0.0, 5e-324, 1e308, 2**31, 2**63, 10**40]),
    st.floats(0, 1),
)
OTHERS = st.sampled_from(
    [None, True, False, "", "0", "nan", "x\0", "\u00e9", "\ud800", "../x", [], {}, [1, 2], [[]]]
)


@cache
def leaves(text):
    """Return the paths to all values inside a JSON value."""
    found = []

    def walk(value, path):
        found.append(path)
        inside = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for key, each in inside:
            walk(each, (*path, key))

    walk(json.loads(text), ())
    return tuple(path for path in found if path)


@st.composite
def edited(draw, value):
    """Draw the value after one or two changes, most of them from a number to another one."""
    text = json.dumps(value)
    value = json.loads(text)
    for path in draw(st.lists(st.sampled_from(leaves(text)), min_size=1, max_size=2)):
        holder = value
        try:
            for key in path[:-1]:
                holder = holder[key]
            old, how = holder[path[-1]], draw(st.integers(0, 9))
            if how == 0:
                del holder[path[-1]]
            elif how == 1 and isinstance(holder, dict):
                holder[draw(st.sampled_from(["more", *holder]))] = old
            elif how == 2 and isinstance(holder, list):
                holder.insert(path[-1], old)
            else:
                numeric = isinstance(old, int | float) and not isinstance(old, bool)
                holder[path[-1]] = draw(NUMBERS if numeric and how < 8 else st.one_of(NUMBERS, OTHERS))
        except (LookupError, TypeError):  # the first change took it away
            continue
    return value


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("built") / "store", count=4, side=6, margin=1).path


def opened(path):
    list(verify(path))
    return Store.open(path)


@examples(60)
@given(data=st.data())
def test_settings_of_a_store(store, data):
    path = store / "store.json"
    before = path.read_bytes()
    told = data.draw(edited({k: v for k, v in unseal(before, path).items() if k != "config_digest"}))
    told["config_digest"] = digest(canonical_json({k: v for k, v in told.items() if k != "config_digest"}))
    path.write_bytes(sealed(told))
    found = read_or_refused(opened, store)
    path.write_bytes(before)
    if found is not None:
        assert found.settings == told
        assert (found.size, found.margin, found.spacing_mm) == (
            told["size"],
            told["margin"],
            told["spacing_mm"],
        )
        assert (type(told["size"]), found.size + 2 * found.margin) == (int, 6)
        assert found.spacing_mm > 0


@examples(60)
@given(data=st.data())
def test_lines_of_a_ledger(store, data):
    path = store / "ledger" / "00000.jsonl"
    before = path.read_bytes()
    lines = data.draw(edited(unseal_lines(path)))
    path.write_bytes(sealed_lines([line if isinstance(line, dict) else {} for line in lines]))
    found = read_or_refused(opened, store)
    path.write_bytes(before)
    if found is None:
        return
    told = [nodule for line in lines for nodule in line["nodules"]]
    assert len(found) == len(told) == 4
    names = [field.name for field in fields(Nodule)]
    for nodule, value in zip(found.nodules, told, strict=True):
        said = asdict(nodule) | {"center_lps_mm": list(nodule.center_lps_mm)}
        assert {name: said[name] for name in names if name in value} == {
            n: value[n] for n in names if n in value
        }
        assert (nodule.diameter_mm or 0) >= 0
        assert (nodule.volume_mm3 or 0) >= 0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from tests.inference.model_folders import CONTRACT, write_single

    path = tmp_path_factory.mktemp("built") / "model"
    options = {"blocks": [1, 1], "growth": 2, "init_features": 4, "bn_size": 1}
    architecture = {"name": "densenet-small", "options": options, "dropout": 0.0, "stem_stride": 2}
    contract, measured = replace(CONTRACT, measured=("diameter",)), {"diameter": (2.0, 0.5)}
    seen = {"diameter_mm": Range(3.0, 4.0, 8.5, 30.0, 41.0)}
    write_single(path, architecture=architecture, input=contract, measured=measured, seen=seen)
    return path


@examples(100)
@given(data=st.data())
def test_what_a_model_file_says(model, data):
    path = model / JSON
    before = path.read_bytes()
    told = data.draw(edited(unseal(before, path)))
    path.write_bytes(sealed(told))
    found = read_or_refused(read_model_file, model)
    path.write_bytes(before)
    if found is None:
        return
    said = to_json(found)
    known = {field.name for field in fields(ModelFile)} & {*told}
    assert_says({name: said[name] for name in known}, {name: told[name] for name in known})
    assert 0 < found.prior < 1
    assert found.calibration.slope > 0


def assert_says(said, told):
    """Compare what was read with JSON; what the file leaves out has its default, what it adds is not read."""
    if isinstance(said, dict) and isinstance(told, dict):
        for name in said.keys() & told.keys():
            assert_says(said[name], told[name])
    elif isinstance(said, list) and isinstance(told, list):
        assert len(said) == len(told)
        for one, other in zip(said, told, strict=True):
            assert_says(one, other)
    else:
        assert said == (float(told) if isinstance(said, float) and isinstance(told, int) else told)
        assert isinstance(said, bool) == isinstance(told, bool)
