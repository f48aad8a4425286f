"""The first words of the page: what the model can do, how sure that is, what limits it, what is missing."""

from html import escape

import numpy as np

from toolkit.evaluation.evaluation import Evaluation
from toolkit.evaluation.results import Interval, Summary
from toolkit.report.run_files import RunFiles
from toolkit.report.words import fixed, percent, plain, plural, prose, ranged, ranged_percent
from toolkit.store import Store

RATINGS = (
    "What counts as malignant here is the opinion of radiologists who rated the images (LIDC-style "
    "ratings), not pathology: the model learns to agree with readers, and its figures say how well it does."
)
GIVEN = (
    "Labels are taken as given. The run does not know whether they stand for pathology, follow-up or "
    "opinion; its figures say how well the model agrees with them."
)
FEW = 100


def meaning(run: RunFiles, store: Store | None) -> str:
    """Return what a label means: readers' opinion, or as given."""
    rated = run.config.labels.source == "rating"
    if store is not None and store.settings.get("label_source") == "own":
        rated = rated or any(nodule.rating is not None for nodule in store.nodules)
    return f"{RATINGS if rated else GIVEN} Rule: {run.config.labels.rule.name}."


def missing(run: RunFiles, why_no_store: str) -> list[tuple[str, str, str]]:
    """Return what the page lacks, why that matters, and the command that makes it."""
    found = []
    if not run.records and not any(fold.records for fold in run.folds):
        found.append(("Curves", "no epoch is recorded.", "toolkit train STORE RUN"))
    if not run.model:
        found.append(("Model", "there is no model folder yet.", "toolkit train STORE RUN"))
    if run.evaluation is None:
        what = "nothing on this page was measured on nodules that took no part in training."
        found.append(("Evaluation", what, "toolkit evaluate RUN"))
    if why_no_store:
        found.append(("Pictures", f"{why_no_store}.", "toolkit report RUN --store STORE"))
    return found


def summary(run: RunFiles, store: Store | None, why_no_store: str) -> str:
    """Return the section."""
    lacks = "".join(
        f"<li><b>{escape(what)}</b> {escape(why)} <code>{escape(command)}</code></li>"
        for what, why, command in missing(run, why_no_store)
    )
    warned = f'<ul class="warnings">{lacks}</ul>' if lacks else ""
    found = run.evaluation
    if found is not None:
        told = _tiles(found) + _said([*_can(found), *_limits(run, found), meaning(run, store)])
    elif run.selected is not None:
        told = _said([*_validation(run, run.selected.val), meaning(run, store)])
    else:
        told = _said([meaning(run, store)])
    return warned + told


def _said(sentences: list[str]) -> str:
    return '<div class="said">' + "".join(f"<p>{prose(text)}</p>" for text in sentences if text) + "</div>"


def _tiles(found: Evaluation) -> str:
    def ends(value: Interval, *, share: bool = False) -> str:
        if np.isnan(value.low):
            return ""
        if share:
            return f"95 %: {fixed(100 * value.low, 0)} to {fixed(100 * value.high, 0)} %"
        return f"95 %: {fixed(value.low)} to {fixed(value.high)}"

    def whole(value: Interval) -> str:
        return "\u2013" if np.isnan(value.value) else percent(value.value)

    calibrated = found.calibration.get("calibrated")
    added = found.baseline.auroc_difference
    tiles = [
        ("AUROC", fixed(found.auroc.value), ends(found.auroc)),
        ("Recall, at the threshold", whole(found.frozen.recall), ends(found.frozen.recall, share=True)),
        ("Specificity", whole(found.frozen.specificity), ends(found.frozen.specificity, share=True)),
        ("Over diameter alone", _signed(added.value), _joined("AUROC", ends(added))),
    ]
    if calibrated is not None:
        tiles.append(
            (
                "Calibration slope",
                fixed(calibrated.slope.value),
                _joined("1 is perfect", ends(calibrated.slope)),
            )
        )
    tiles.append(
        ("Nodules", f"{found.nodules:,}", f"{found.positives:,} malignant, {found.patients:,} patients")
    )
    shown = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)} <small>{escape(more)}</small></dd></div>"
        for name, value, more in tiles
    )
    return f'<dl class="tiles">{shown}</dl>'


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _signed(value: float) -> str:
    return f"+{fixed(value)}" if value > 0 else fixed(value)


def _can(found: Evaluation) -> list[str]:
    """Say what the model can do, on whom, and how sure that is."""
    whom = (
        f"{plural(found.nodules, 'nodule')} of {plural(found.patients, 'patient')} that the model had not "
        f"seen, {found.positives:,} of them malignant"
    )
    ranks = (
        f"On {whom}, it ranks a malignant nodule above a benign one in {ranged_percent(found.auroc)} of "
        "pairs. The numbers in brackets are 95 % intervals: other patients of the same kind would give "
        "other figures."
    )
    frozen = found.frozen
    finds = (
        f"At the threshold that was frozen on validation ({found.goal}), it finds "
        f"{ranged_percent(frozen.recall)} of malignant nodules and clears "
        f"{ranged_percent(frozen.specificity)} of benign ones."
    )
    return [ranks, f"{finds} {_alarms(found)}".strip(), found.baseline.verdict]


def _alarms(found: Evaluation) -> str:
    """Say what an alarm means where malignancy is as rare as declared."""
    if not found.predictive:
        return ""
    near = min(found.predictive, key=lambda row: abs(row.prevalence - found.prevalence))
    return (
        f"Where {plain(100 * near.prevalence)} % of nodules are malignant, {ranged_percent(near.positive)} "
        f"of its alarms are right, and {ranged_percent(near.negative, 1)} of the nodules that it clears are "
        "benign."
    )


def _limits(run: RunFiles, found: Evaluation) -> list[str]:
    """Say what limits it."""
    few = min(found.positives, found.nodules - found.positives)
    limits = []
    if few < FEW:
        kind = "malignant" if found.positives <= found.nodules - found.positives else "benign"
        limits.append(
            f"Only {few} {kind} nodules stand behind these figures, which is why the intervals are wide."
        )
    small = [group.name for group in found.subgroups if group.note]
    if small:
        limits.append(f"{plural(len(small), 'subgroup')} had too few nodules to be judged.")
    if run.looks > 1 and not run.folds:
        limits.append(
            f"The test side was looked at {run.looks} times; whoever chooses after looking, fools himself."
        )
    if run.folds:
        limits.append(
            "Figures are out of fold: each nodule was judged by models that never saw its patient; the "
            "model folder holds their mean, which has itself been tested on nobody."
        )
    return [" ".join(limits)]


def _validation(run: RunFiles, val: Summary) -> list[str]:
    """Say what validation shows, which is all there is."""
    where = (
        f"epoch {run.records[-1].best_epoch}, {plural(val.nodules, 'nodule')}, {val.positives:,} malignant"
    )
    return [
        f"On validation ({where}) AUROC is {ranged(val.auroc)}; at the threshold, recall is "
        f"{ranged_percent(val.at_threshold.recall)} and specificity "
        f"{ranged_percent(val.at_threshold.specificity)}.",
        "These nodules chose the epoch and the threshold, so the figures are too good; the test side will "
        "tell.",
    ]
