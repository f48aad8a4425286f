"""What the test side showed, as tables: operating points, calibration, subgroups, baseline, folds."""

from collections.abc import Sequence
from html import escape

from toolkit.evaluation.evaluation import Evaluation, OperatingPoint
from toolkit.report.run_scores import quality_rows
from toolkit.report.words import fixed, plain, prose, ranged

Row = Sequence[str]


def table(heads: Row, rows: Sequence[Row], best: int | None = None, words: int = 1) -> str:
    """Return a table of plain text; the first `words` columns are words, the others numbers.

    Row `best` stands out.
    """
    head = "".join(f"<th{'' if k < words else _N}>{escape(h)}</th>" for k, h in enumerate(heads))
    body = ""
    for n, row in enumerate(rows):
        cells = "".join(f"<td{'' if k < words else _N}>{escape(cell)}</td>" for k, cell in enumerate(row))
        body += f"<tr{_BEST if n == best else ''}>{cells}</tr>"
    inner = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll" tabindex="0"><table class="figures">{inner}</table></div>'


_N, _BEST = ' class="n"', ' class="best"'


def tables(found: Evaluation) -> str:
    """Return all tables of an evaluation."""
    said = "".join(f"<li>{prose(text)}</li>" for text in found.sentences)
    parts = [
        f"<details><summary>All findings in sentences</summary><ul>{said}</ul></details>",
        "<h3>Operating points</h3>",
        "<p>The first was frozen on validation, before this side was looked at. The others are chosen on "
        "this very side: they show what is possible, and are a little too good.</p>",
        _points(found),
        "<h3>Calibration</h3>",
        _calibration(found),
        "<h3>What the image adds over size</h3>",
        _baseline(found),
        "<h3>Subgroups</h3>",
        _subgroups(found),
    ]
    if len(found.parts) > 1:
        parts += ["<h3>Fold by fold</h3>", _parts(found)]
    return "".join(parts)


def _points(found: Evaluation) -> str:
    heads = (
        "Chosen for",
        "Recall",
        "Specificity",
        "Precision",
        "NPV",
        "Balanced acc.",
        "F-beta",
        "TP \u00b7 FN \u00b7 FP \u00b7 TN",
    )
    return table(heads, [_point(each) for each in (found.frozen, *found.points)], best=0)


def _point(point: OperatingPoint) -> Row:
    frozen = "frozen: " if point.basis == "validation" else ""
    counts = (point.true_positive, point.false_negative, point.false_positive, point.true_negative)
    return (
        f"{frozen}{point.goal}",
        ranged(point.recall),
        ranged(point.specificity),
        ranged(point.precision),
        ranged(point.negative_predictive_value),
        ranged(point.balanced_accuracy),
        f"{fixed(point.f_beta.value)} (beta {point.beta:g})",
        " \u00b7 ".join(plain(round(count, 1)) for count in counts),
    )


def _calibration(found: Evaluation) -> str:
    heads = ("Probability", "Intercept (0)", "Slope (1)", "Brier", "Skill", "ECE", "ECE by chance")
    rows = [
        (
            name,
            ranged(q.intercept),
            ranged(q.slope),
            ranged(q.brier, 3),
            ranged(q.brier_skill),
            fixed(q.ece, 3),
            f"{fixed(q.ece_by_chance.low, 3)} to {fixed(q.ece_by_chance.high, 3)}",
        )
        for name, q in quality_rows(found)
    ]
    estimator = next((q.estimator for _, q in quality_rows(found)), "")
    note = (
        "In brackets what perfect calibration has. An intercept below 0: probabilities are too high; a slope "
        f"below 1: too extreme. ECE: {estimator}."
    )
    return table(heads, rows) + f'<p class="note">{escape(note)}</p>'


def _baseline(found: Evaluation) -> str:
    base = found.baseline
    rows = [
        ("model", ranged(found.auroc), ranged(found.average_precision)),
        ("diameter alone", ranged(base.auroc), ranged(base.average_precision)),
        ("difference, paired", ranged(base.auroc_difference), ranged(base.average_precision_difference)),
    ]
    return table(("", "AUROC", "Average precision"), rows) + f"<p>{escape(base.verdict)}</p>"


def _subgroups(found: Evaluation) -> str:
    heads = ("Group", "Nodules", "Patients", "Malignant", "AUROC", "Recall", "Specificity")
    rows = [
        (
            f"{group.by}: {group.name}",
            f"{group.nodules:,}",
            f"{group.patients:,}",
            f"{group.positives:,}",
            *(
                (group.note, "", "")
                if group.note
                else map(ranged, (group.auroc, group.recall, group.specificity))
            ),
        )
        for group in found.subgroups
    ]
    return table(heads, rows) if rows else "<p>No subgroup was measured.</p>"


def _parts(found: Evaluation) -> str:
    heads = ("Fold", "Nodules", "Malignant", "AUROC", "AP", "Recall", "Specificity", "Threshold, raw logit")
    rows = [
        (
            part.partition,
            f"{part.nodules:,}",
            f"{part.positives:,}",
            fixed(part.auroc),
            fixed(part.average_precision),
            fixed(part.recall),
            fixed(part.specificity),
            fixed(part.threshold),
        )
        for part in found.parts
    ]
    note = "Each fold is small, so these spread; the pooled figures above have the intervals."
    return table(heads, rows) + f'<p class="note">{note}</p>'
