"""What a run was made of: data, settings, environment, the model's card, its files."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from toolkit.report.charts import Series, histogram
from toolkit.report.run_curves import NAMES
from toolkit.report.run_files import RunFiles
from toolkit.report.run_tables import table
from toolkit.report.words import plain, ranged, size
from toolkit.store import Store
from toolkit.training.config import TrainConfig

SIDES = (("train", "training"), ("val", "validation"), ("test", "test"))
CLASSES = (("malignant", 1.0), ("benign", 0.0))
INTENDED = (
    "Research on how to tell malignant from benign lung nodules in chest CT that someone has already found "
    "and marked. It does not find nodules."
)
NOT_FOR = (
    "Clinical use. It is no medical device, was assessed by no authority, and no one has shown that "
    "decisions made with it do patients good."
)
LIMITS = (
    "Scanners, protocols, populations and ways of finding nodules other than those of the training data are "
    "untested. Probabilities hold at the declared prevalence only. Crops are taken at marks made by people "
    "or other software, whose errors are not part of these figures."
)


def data(run: RunFiles, store: Store | None) -> str:
    """Return counts by side and class, and sizes."""
    parts = run.split.get("partitions") or []
    rows = [
        (name if len(parts) == 1 else f"{part.get('name', '')}: {name}", *_counts(part, key))
        for part in parts
        for key, name in SIDES
        if _counts(part, key)
    ]
    heads = ("Side", "Patients", "Nodules", "Malignant", "Benign", "Without a label")
    told = table(heads, rows) if rows else "<p>The run holds no split.json.</p>"
    if run.split:
        tied = run.split.get("tied", 0)
        rule = f"Rule: {run.split.get('rule', '')}. No patient is on two sides"
        rule += f"; {tied} pairs of patients with the same crops were kept together." if tied else "."
        told += f'<p class="note">{escape(rule)}</p>'
    return told + _sizes(run, store)


def _counts(part: Mapping[str, Any], side: str) -> list[str]:
    counts = part.get("counts", {}).get(side, {})
    names = ("patients", "nodules", "malignant", "benign", "unknown")
    return [f"{int(counts[name]):,}" for name in names] if {*names} <= {*counts} and counts["nodules"] else []


def _sizes(run: RunFiles, store: Store | None) -> str:
    """Return diameters by class: of all of the store, or of those that were predicted."""
    if store is not None:
        rule = run.config.labels.rule
        label = rule.classes(rule.targets(store.nodules))
        diameter = np.array([n.diameter_mm or np.nan for n in store.nodules])
        title = "Diameter of all nodules"
    else:
        found = [p for p in (run.val, run.test) if p is not None]
        if not found:
            return ""
        label = np.concatenate([p.label for p in found])
        diameter = np.concatenate([p.diameter_mm for p in found])
        title = "Diameter of the nodules that were predicted"
    series = [
        Series(name, diameter[(label == number) & np.isfinite(diameter)].tolist(), name)
        for name, number in CLASSES
    ]
    return f'<div class="charts">{histogram(title, "mm", series)}</div>'


def settings(run: RunFiles) -> str:
    """Return the configuration, what is not the default first, and the environment."""
    given = dict(flat(run.config.model_dump(mode="json")))
    usual = dict(flat(TrainConfig().model_dump(mode="json")))
    changed = [f"{name} = {value}" for name, value in given.items() if value != usual.get(name)]
    every = "\n".join(f"{name} = {value}" for name, value in given.items())
    around = "\n".join(f"{name} = {value}" for name, value in flat(run.environment))
    own = "\n".join(changed) or "nothing: all settings are the defaults"
    return (
        f"<h3>Settings that are not the defaults</h3><pre>{escape(own)}</pre>"
        + _folded("All settings", every)
        + _folded("Environment", around or "environment.json is missing")
    )


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary><pre>{escape(text)}</pre></details>"


def flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested tables as dotted names and texts."""
    for name, each in value.items():
        if isinstance(each, Mapping):
            if each:
                yield from flat(each, f"{before}{name}.")
        else:
            yield f"{before}{name}", _text(each)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    return "not set" if value is None else str(value)


def card(run: RunFiles, meaning: str) -> str:
    """Return the model's card, after Mitchell et al. 2019, TRIPOD+AI and CLAIM where they apply."""
    rows = [
        ("Model", _model(run)),
        ("Intended use", INTENDED),
        ("Not for", NOT_FOR),
        ("Input", _input(run.model)),
        ("Labels", meaning),
        ("Training data", _source(run)),
        ("Seen in training", _seen(run.model)),
        ("Classes were balanced by", f"{run.config.balance}; see the questions above"),
        ("Selection", _selection(run.config)),
        ("Evaluation", _evaluation(run)),
        ("Figures", _figures(run)),
        ("Known limits", LIMITS),
        ("Provenance", _listed(run.model.get("provenance", {}), "; ") or "model.json is missing"),
    ]
    shown = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows)
    return f'<dl class="card-list">{shown}</dl>'


def _listed(value: Mapping[str, Any], between: str) -> str:
    return between.join(f"{name} {text}" for name, text in flat(value))


def _selection(config: TrainConfig) -> str:
    return (
        f"Epoch by {NAMES[config.selection.metric]} on validation; threshold for "
        f"{config.threshold.rule.words}, frozen before the test side was looked at."
    )


def _model(run: RunFiles) -> str:
    members = run.model.get("members") or []
    options = ", ".join(
        f"{name} {value}" for name, value in flat(run.model.get("architecture", {}).get("options", {}))
    )
    name = run.config.model.name + (f" ({options})" if options else "")
    return f"Mean of {len(members)} models, one a fold: {name}" if members else name


def _input(model: Mapping[str, Any]) -> str:
    contract = model.get("input")
    if not contract:
        return "model.json is missing"
    window = contract.get("window_hu")
    hu = f"{window[0]:g} to {window[1]:g} HU" if window else "no window"
    measured = ", ".join(contract.get("measured") or ()) or "nothing else"
    return (
        f"Crops of {contract['size']}\u00b3 voxels of {contract['spacing_mm']:g} mm, {hu}; mask: "
        f"{contract['mask_mode']}; beside the image: {measured}."
    )


def _source(run: RunFiles) -> str:
    if not run.split:
        return "split.json is missing"
    store, rule = run.split.get("store", ""), run.split.get("rule", "")
    return f"Store {store!s:.8}, split: {rule}; counts stand under Data."


def _seen(model: Mapping[str, Any]) -> str:
    seen = model.get("seen") or {}
    told = []
    for name, r in seen.items():
        what, _, unit = name.rpartition("_")
        unit = unit.replace("hu", "HU")
        what = what.replace("_", " ")
        told.append(
            f"{what} {plain(r['least'])} to {plain(r['largest'])} {unit}, median {plain(r['median'])}"
        )
    return "; ".join(told) or "not recorded"


def _evaluation(run: RunFiles) -> str:
    if run.evaluation is None:
        return "None on nodules that took no part in training: toolkit evaluate makes it."
    if run.folds:
        return "Out of fold: each nodule by models that never saw its patient. Intervals: patient bootstrap."
    times = "once" if run.looks <= 1 else f"{run.looks} times, so its figures may be too good"
    whom = "On patients that took no part in training or selection"
    return f"{whom}, looked at {times}. Intervals: patient bootstrap."


def _figures(run: RunFiles) -> str:
    found = run.evaluation
    if found is None:
        return "None yet."
    return (
        f"AUROC {ranged(found.auroc)}, average precision {ranged(found.average_precision)}; at the frozen "
        f"threshold recall {ranged(found.frozen.recall)}, specificity {ranged(found.frozen.specificity)}; "
        f"over diameter alone AUROC {ranged(found.baseline.auroc_difference)}. Subgroups stand under "
        "Evaluation."
    )


def files(run: RunFiles) -> str:
    """Return the files of the run with their sizes."""
    folder = run.folder
    single = [
        ("metrics.jsonl", folder.metrics, "a line an epoch"),
        ("validation_logits.npy", folder.validation_logits, "every validation nodule after every epoch"),
        ("predictions_val.csv", folder.predictions("val"), "of the kept epoch"),
        ("model/model.safetensors", folder.model / "model.safetensors", "the weights"),
    ]
    known = [
        ("config.json", folder.config, "every setting"),
        ("environment.json", folder.environment, "versions and device"),
        ("split.json", folder.split, "who is on which side"),
        *([] if run.folds else single),
        (
            "predictions_test.csv",
            folder.predictions("test"),
            "out of fold" if run.folds else "of the test side",
        ),
        ("evaluation.json", folder.evaluation, "every figure of the evaluation"),
        ("model/model.json", folder.model / "model.json", "what toolkit predict reads"),
    ]
    rows: Sequence[Sequence[str]] = [
        (name, what, size(path.stat().st_size) if path.is_file() else "missing") for name, path, what in known
    ]
    more = (
        f"<p>Each fold is a run of its own: {len(run.folds)} of them lie under folds/.</p>"
        if run.folds
        else ""
    )
    return table(("File", "Holds", "Size"), rows, words=2) + more
