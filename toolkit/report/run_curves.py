"""Curves of training: each metric over the epochs with its interval, and which epochs are alike."""

from collections.abc import Callable, Sequence
from html import escape
from itertools import groupby

import numpy as np

from toolkit.evaluation.metrics import within_noise
from toolkit.evaluation.results import Interval, Summary
from toolkit.report.axes import Axis, counted, fitted, share
from toolkit.report.lines import Curve, Mark, Plot, plot
from toolkit.report.run_files import RunFiles
from toolkit.report.run_tables import table
from toolkit.report.words import fixed, ranged
from toolkit.training.change import Validation
from toolkit.training.record import EpochRecord

Pick = Callable[[Summary], Interval]
NAMES = {"auroc": "AUROC", "average_precision": "average precision", "balanced_accuracy": "balanced accuracy",
         "f_beta": "F-beta", "loss": "loss"}  # fmt: skip
NOTES = {
    "balanced_accuracy": "Mean of recall and specificity.",
    "f_beta": "Recall counts beta times as much as precision.",
}


def curves(run: RunFiles) -> str:
    """Return the section of a single run or of one fold."""
    if not run.records:
        return "<p>No epoch is recorded yet; <code>toolkit train</code> writes metrics.jsonl.</p>"
    shaded = spans(run)
    marks = (Mark(run.records[-1].best_epoch, f"kept: {run.records[-1].best_epoch}"),)
    charts = [plot(one) for one in (*_losses(run, marks, shaded), *_metrics(run, marks, shaded))]
    return _lead(run, bool(shaded)) + f'<div class="plots">{"".join(charts)}</div>' + _numbers(run.records)


def validation(run: RunFiles) -> Validation | None:
    """Return the logits of the scored validation nodules; None where files are missing or do not fit."""
    if run.logits is None or run.val is None or not run.records:
        return None
    scored = np.isfinite(run.val.label)
    if run.logits.shape != (len(run.records), int(scored.sum())):
        return None
    return Validation(run.logits, run.val.label[scored], run.val.patient_id[scored])


def spans(run: RunFiles) -> list[tuple[float, float]]:
    """Return stretches of epochs, ends included, that are within the noise of the kept one."""
    seen = validation(run)
    if seen is None:
        return []
    same = within_noise(seen.logits, seen.label, seen.patient, run.records[-1].best_epoch - 1)
    epochs = np.arange(1, len(same) + 1)
    runs = [
        [int(e) for e, _ in group]
        for key, group in groupby(zip(epochs, same, strict=True), lambda p: p[1])
        if key
    ]
    return [(each[0] - 0.5, each[-1] + 0.5) for each in runs]


def _lead(run: RunFiles, shaded: bool) -> str:
    last = run.records[-1]
    rule = run.config.selection
    text = (
        f"Training ran for {len(run.records)} epochs; epoch {last.best_epoch} is kept, by "
        f"{NAMES[rule.metric]} on validation, smoothed over {rule.smoothing} epochs. Bands are 95 % "
        "intervals (patients drawn again). Both sides are measured without augmentation, with the averaged "
        "weights."
    )
    if shaded:
        text += " Grey epochs rank validation no differently from the kept one, as far as can be told."
    return f"<p>{escape(text)}</p>"


def _losses(run: RunFiles, marks: Sequence[Mark], shaded: Sequence[tuple[float, float]]) -> list[Plot]:
    records = run.records
    epochs = [r.epoch for r in records]
    x = counted("epoch", len(records))
    both = [
        Curve("validation", epochs, [r.val.loss for r in records]),
        Curve("training", epochs, [r.train.loss for r in records], "other"),
        Curve("as optimised", epochs, [r.train_loss for r in records], "other", dashed=True),
    ]
    parted = [
        Curve("malignant", epochs, [r.val.loss_positive for r in records], "malignant"),
        Curve("benign", epochs, [r.val.loss_negative for r in records], "benign"),
    ]
    return [
        Plot("Loss", x, _fit(both), both, marks=marks, spans=shaded),
        Plot("Validation loss by class", x, _fit(parted), parted, marks=marks, spans=shaded),
    ]


def _ends(drawn: Sequence[Curve]) -> Axis:
    """Return an axis that holds curves and bands."""
    return fitted(
        "",
        [value for curve in drawn for line in (curve.y, curve.low or (), curve.high or ()) for value in line],
    )


def _fit(drawn: Sequence[Curve]) -> Axis:
    return fitted("", [value for curve in drawn for value in curve.y], floor=0.0)


def _metrics(run: RunFiles, marks: Sequence[Mark], shaded: Sequence[tuple[float, float]]) -> list[Plot]:
    """Return ranking metrics of both sides, then those of decisions at both thresholds."""
    records, x = run.records, counted("epoch", len(run.records))
    beta = run.config.threshold.beta
    ranking: list[tuple[str, Pick]] = [
        ("AUROC", lambda s: s.auroc),
        ("Average precision", lambda s: s.average_precision),
    ]
    at: list[tuple[str, str]] = [
        ("Recall", "recall"),
        ("Specificity", "specificity"),
        ("Balanced accuracy", "balanced_accuracy"),
        (f"F-beta, beta {beta:g}", "f_beta"),
    ]
    charts = []
    for title, pick in ranking:
        both = [
            _curve("training", [pick(r.train) for r in records], "other", band=False),
            _curve("validation", [pick(r.val) for r in records], "model"),
        ]
        y = _ends(both) if title == "AUROC" else share("")
        charts.append(Plot(title, x, y, both, marks=marks, spans=shaded))
    for title, name in at:
        two = [
            _curve("at the threshold", [getattr(r.val.at_threshold, name) for r in records], "model"),
            _curve(
                "at 0.5", [getattr(r.val.at_half, name) for r in records], "model", band=False, dashed=True
            ),
        ]
        charts.append(Plot(title, x, share(""), two, marks=marks, spans=shaded, note=NOTES.get(name, "")))
    drift = [
        Curve(
            "chosen threshold", [r.epoch for r in records], [r.val.at_threshold.threshold for r in records]
        ),
        Curve("0.5", [r.epoch for r in records], [0.0] * len(records), "model", dashed=True),
    ]
    y = fitted("", [value for curve in drift for value in curve.y])
    charts.append(Plot("Threshold, on the raw logit", x, y, drift, marks=marks, spans=shaded))
    return charts


def _curve(
    name: str, values: Sequence[Interval], style: str, *, band: bool = True, dashed: bool = False
) -> Curve:
    epochs = list(range(1, len(values) + 1))
    low, high = ([v.low for v in values], [v.high for v in values]) if band else (None, None)
    return Curve(name, epochs, [v.value for v in values], style, low, high, dashed)


def drift(run: RunFiles) -> Plot:
    """Return recall at both thresholds beside AUROC: what falls, ranking or the threshold."""
    records = run.records
    drawn = [
        _curve("recall at 0.5", [r.val.at_half.recall for r in records], "malignant", band=False),
        _curve(
            "recall at the threshold",
            [r.val.at_threshold.recall for r in records],
            "malignant",
            dashed=True,
            band=False,
        ),
        _curve("AUROC", [r.val.auroc for r in records], "model"),
    ]
    return Plot("On validation", counted("epoch", len(records)), share(""), drawn)


def losses(run: RunFiles) -> Plot:
    """Return the loss of both sides."""
    return _losses(run, (), ())[0]


def peak(run: RunFiles) -> Plot:
    """Return AUROC with its band, the kept epoch, and which epochs are alike."""
    records = run.records
    values = [r.val.auroc for r in records]
    marks = (Mark(records[-1].best_epoch, f"kept: {records[-1].best_epoch}"),)
    drawn = [_curve("", values, "model")]
    return Plot(
        "Validation AUROC", counted("epoch", len(records)), _ends(drawn), drawn, (), marks, spans(run)
    )


def _numbers(records: Sequence[EpochRecord]) -> str:
    """Return the same as a table, for keyboards and for copying."""
    heads = (
        "Epoch",
        "Loss, train",
        "Loss, val",
        "AUROC, val",
        "AP, val",
        "Recall",
        "Specificity",
        "Threshold",
    )
    head = "".join(f'<th class="n">{h}</th>' for h in heads)
    rows = []
    for r in records:
        at = r.val.at_threshold
        cells = (
            str(r.epoch),
            fixed(r.train.loss, 3),
            fixed(r.val.loss, 3),
            ranged(r.val.auroc),
            ranged(r.val.average_precision),
            ranged(at.recall),
            ranged(at.specificity),
            fixed(at.threshold),
        )
        kept = ' class="best"' if r.epoch == records[-1].best_epoch else ""
        rows.append(f"<tr{kept}>" + "".join(f'<td class="n">{c}</td>' for c in cells) + "</tr>")
    return (
        "<details><summary>All epochs as numbers</summary><div class='scroll' tabindex='0'><table><thead><tr>"
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def folds(run: RunFiles) -> str:
    """Return the folds of a cross-validation side by side."""
    longest = max((len(fold.records) for fold in run.folds), default=0)
    if not longest:
        return "<p>No fold has recorded an epoch yet.</p>"
    x = counted("epoch", longest)
    charts = []
    shown: list[tuple[str, Pick]] = [
        ("Validation AUROC, a line a fold", lambda s: s.auroc),
        ("Validation recall at 0.5", lambda s: s.at_half.recall),
        ("Validation recall at the threshold", lambda s: s.at_threshold.recall),
    ]
    for title, pick in shown:
        drawn = [_curve("", [pick(r.val) for r in f.records], "model", band=False) for f in run.folds]
        alt = "; ".join(
            f"{f.name}: {fixed(c.y[-1])} at the end" for f, c in zip(run.folds, drawn, strict=True) if c.y
        )
        charts.append(plot(Plot(title, x, share(""), drawn, alt=alt)))
    rows = [
        (
            fold.name,
            str(len(fold.records)),
            str(fold.records[-1].best_epoch),
            fixed(fold.selected.val.at_threshold.threshold),
            ranged(fold.selected.val.auroc),
            ranged(fold.selected.val.at_threshold.recall),
            ranged(fold.selected.val.at_threshold.specificity),
        )
        for fold in run.folds
        if fold.selected is not None
    ]
    heads = ("Fold", "Epochs", "Kept", "Threshold, raw logit", "AUROC", "Recall", "Specificity")
    note = "On the validation side of each fold, which chose its epoch and its threshold."
    drawn_all = f'<div class="plots">{"".join(charts)}</div>'
    return f'{drawn_all}<h3>Validation</h3>{table(heads, rows)}<p class="note">{note}</p>'
