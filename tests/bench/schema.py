"""The part of JSON Schema (draft 2020-12) that our schemas use; a keyword that is not known here fails."""

import json
from pathlib import Path
from typing import Any

import toolkit.bench

SCHEMA = json.loads((Path(toolkit.bench.__file__).parent / "schema.json").read_text("utf-8"))
TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
    "number": (int, float), "integer": int,
}  # fmt: skip
SAYS_NOTHING = {"$schema", "$defs", "title", "description"}


def wrong(value: Any, schema: dict[str, Any], where: str = "$") -> list[str]:
    """Return what in a value is against a schema."""
    found = []
    for keyword, rule in schema.items():
        if keyword in SAYS_NOTHING:
            continue
        if keyword == "$ref":
            found += wrong(value, SCHEMA["$defs"][rule.removeprefix("#/$defs/")], where)
        elif keyword == "allOf":
            found += [each for part in rule for each in wrong(value, part, where)]
        elif keyword == "type":
            kinds = rule if isinstance(rule, list) else [rule]
            if not any(_is(value, kind) for kind in kinds):
                found.append(f"{where} is no {' or '.join(kinds)}: {value!r}")
        elif keyword == "enum":
            found += [] if value in rule else [f"{where} is {value!r}"]
        elif keyword == "const":
            found += [] if value == rule else [f"{where} is {value!r}"]
        elif keyword == "minimum":
            found += [f"{where} is {value}"] if isinstance(value, int | float) and value < rule else []
        elif keyword == "required":
            found += [
                f"{where} lacks {name}" for name in rule if isinstance(value, dict) and name not in value
            ]
        elif keyword == "items":
            found += [e for k, each in enumerate(value) for e in wrong(each, rule, f"{where}[{k}]")]
        elif keyword == "properties":
            for name in rule.keys() & (value.keys() if isinstance(value, dict) else set()):
                found += wrong(value[name], rule[name], f"{where}.{name}")
        elif keyword == "additionalProperties":
            for name in value.keys() - schema.get("properties", {}).keys():
                found += [f"{where}.{name} is unknown"] if rule is False else wrong(value[name], rule, name)
        else:
            raise AssertionError(f"keyword {keyword} is not known here")
    return found


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, TYPES[kind]) and (kind in ("boolean",) or not isinstance(value, bool))
