"""The questions that everyone asks of such a run, each with a short answer and its evidence."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from toolkit.evaluation.calibration import log_odds
from toolkit.evaluation.evaluation import Evaluation, OperatingPoint
from toolkit.evaluation.predictions import Predictions
from toolkit.evaluation.thresholds import Goal, explain_goal
from toolkit.report import run_curves
from toolkit.report.axes import fitted, share
from toolkit.report.lines import Curve, Mark, Plot, plot
from toolkit.report.run_files import RunFiles
from toolkit.report.words import fixed, percent, plain, prose, ranged, ranged_percent
from toolkit.training.record import EpochRecord
from toolkit.training.words import Finding, is_peak_real, overfitting, why_recall_falls

STEPS = 80
SMALL_GAP = 0.02  # AUROC
FEW = 3
EXAMPLE = 0.1  # a nodule's true chance, for showing what a prior does to it


@dataclass(frozen=True)
class Answer:
    """A question with its answer, in a sentence or two of plain text, and what speaks for it."""

    question: str
    answer: str
    evidence: Sequence[str] = ()
    chart: str = ""


def questions(run: RunFiles) -> str:
    """Return the section."""
    asked = [*_of_curves(run), _threshold(run), _balance(run), _f_beta(run), _augmentation(run), _size(run)]
    return f'<div class="answers">{"".join(map(_shown, asked))}</div>'


def _shown(one: Answer) -> str:
    evidence = "".join(f"<li>{prose(text)}</li>" for text in one.evidence if text)
    return (
        f'<article class="answer"><div><h3>{escape(one.question)}</h3>'
        f'<p class="short">{prose(one.answer)}</p>'
        f"{f'<ul>{evidence}</ul>' if evidence else ''}</div>{one.chart}</article>"
    )


def _of_curves(run: RunFiles) -> list[Answer]:
    """Return what the curves tell; for a cross-validation the answers of its folds side by side."""
    if run.folds:
        return _of_folds(run)
    if not run.records:
        return []
    charts = (run_curves.drift, run_curves.losses if run_curves.validation(run) is None else run_curves.peak)
    drawn = [plot(each(run)) for each in (*charts, run_curves.losses)]
    return [Answer(f.question, f.answer, f.evidence, c) for f, c in zip(_findings(run), drawn, strict=False)]


def _findings(run: RunFiles) -> list[Finding]:
    """Return what the curves tell; nothing of a peak where the logits of validation are missing."""
    if not run.records:
        return []
    seen = run_curves.validation(run)
    found = [why_recall_falls(run.records, seen)]
    if seen is not None:
        found.append(is_peak_real(seen.logits, seen.label, seen.patient, run.records))
    return [*found, overfitting(run.records, seen)]


def _of_folds(run: RunFiles) -> list[Answer]:
    """Return the answers of all folds, equal ones together; folds without curves have none."""
    told = [(fold.name, _findings(fold)) for fold in run.folds if fold.records]
    answers = []
    for asked in zip(*(found for _, found in told), strict=False):
        question = re.sub(r" at epoch \d+", "", asked[0].question)
        alike: dict[str, list[str]] = {}
        for (name, _), found in zip(told, asked, strict=True):
            answer = re.sub(r"Epoch \d+ is kept, the", "What is kept is the", found.answer)
            alike.setdefault(answer, []).append(name)
        each = [f"{_named(names, len(told))}: {answer}" for answer, names in alike.items()]
        answers.append(Answer(question, f"{len(told)} folds, each by its own validation side.", each))
    return answers


def _named(names: Sequence[str], folds: int) -> str:
    """Name a few folds, count many."""
    if len(names) == folds:
        return "all"
    return ", ".join(names) if len(names) <= FEW else f"{len(names)} folds"


def _threshold(run: RunFiles) -> Answer:
    """Name the frozen threshold, what it gives, and what others would."""
    goal = run.config.threshold.rule
    frozen = run.model.get("threshold")
    answer = (
        f"The one that validation chose for {goal.words}"
        + (f": {fixed(frozen)} on the raw logit. " if isinstance(frozen, float) and not run.folds else ". ")
        + "It is frozen in the model, and no declared prevalence moves it. 0.5 has no special standing: "
        "where it lies depends on how classes were balanced."
    )
    found, evidence = run.evaluation, []
    if found is not None:
        evidence = [
            _point(found.frozen),
            *(_point(each) for each in found.points if "sensitivity" in each.goal),
        ]
    chart = "" if run.val is None or run.folds or frozen is None else _sweep(run.val, float(frozen))
    return Answer("Which threshold?", answer, evidence, chart)


def _point(point: OperatingPoint) -> str:
    basis = "Frozen" if point.basis == "validation" else "Chosen on these very nodules, for illustration"
    return (
        f"{basis}, {point.goal}: recall {ranged_percent(point.recall)}, specificity "
        f"{ranged_percent(point.specificity)}, precision {ranged_percent(point.precision)}."
    )


def _sweep(val: Predictions, frozen: float) -> str:
    """Draw recall and specificity of validation over the threshold."""
    scored = np.isfinite(val.label)
    logit, label = val.logit[scored], val.label[scored]
    ill, well = logit[label == 1], logit[label == 0]
    if not len(ill) or not len(well):
        return ""
    x = np.linspace(min(logit.min(), frozen), max(logit.max(), frozen), STEPS)
    drawn = [
        Curve("recall", x.tolist(), [float((ill >= t).mean()) for t in x], "malignant"),
        Curve("specificity", x.tolist(), [float((well < t).mean()) for t in x], "benign"),
    ]
    axis = fitted("threshold, raw logit", x.tolist())
    return plot(Plot("On validation", axis, share(""), drawn, marks=[Mark(frozen, "frozen")]))


def _balance(run: RunFiles) -> Answer:
    """Say how this run balanced, what that does to the prior, and what is done about it."""
    config = run.config
    model = run.folds[0].model if run.folds else run.model  # the logit of an ensemble carries no prior
    places = config.positives or config.batch // 2
    did = {
        "sampler": f"a sampler ({places} of {config.batch} places in every batch are malignant)",
        "weight": "a class weight in the loss",
        "logit-adjust": "an offset on the logit in the loss",
        "focal": f"the focal loss, gamma {config.loss.focal_gamma:g}",
        "none": "nothing",
    }[config.balance]
    twice = (
        config.force_double_balance
        and config.balance == "sampler"
        and config.loss.pos_weight not in (None, 1)
    )
    answer = (
        "One of them, never both: each makes the network believe that malignant nodules are common. This "
        f"run used {did}"
        + (f", and a weight of {config.loss.pos_weight:g} on top of it, as an experiment." if twice else ".")
    )
    other = "weight" if config.balance == "sampler" else "sampler"
    return Answer(
        "Sampler or weights?",
        answer,
        [
            *_prior(model),
            "A sampler shows each batch enough malignant nodules to learn from; weights give the same prior "
            "with rarer, larger steps. Both lead to the same ranking where training is long enough, and "
            "neither is needed for the threshold, which is chosen afterwards.",
            f"To compare: `{_again(run)} --set balance={other}`.",
        ],
    )


def _prior(model: Any) -> list[str]:
    """Say what the prior was, in numbers, and that it is taken out again."""
    prior, plain_prior = model.get("prior"), model.get("plain_prior")
    if not (isinstance(prior, float) and isinstance(plain_prior, float)):
        return []
    shift = log_odds(prior) - log_odds(plain_prior)
    reads = 1 / (1 + np.exp(-(log_odds(EXAMPLE) + shift)))
    doubled = 1 / (1 + np.exp(-(log_odds(EXAMPLE) + 2 * shift)))
    told = [
        f"{plain(100 * plain_prior)} % of the training nodules are malignant; training showed the network "
        f"{percent(prior)}."
    ]
    if abs(shift) > 0.05:
        told.append(
            f"That adds {fixed(shift)} to every logit: a nodule with a true chance of {percent(EXAMPLE)} "
            f"reads {percent(reads)}; balanced twice it would read {percent(doubled)}."
        )
    method = model.get("calibration", {}).get("method")
    done = {
        "platt": "a straight line on the logit, fitted on validation (Platt), takes that out again",
        "shift": "the known prior is exchanged for that of validation (too few nodules to fit more)",
        "none": "the members of the ensemble are calibrated each by itself",
    }.get(method)
    return [*told, f"Probabilities on this page are calibrated: {done}."] if done else told


def _f_beta(run: RunFiles) -> Answer:
    """Say what F-beta 0.5 favours."""
    found = run.evaluation
    prevalence = found.prevalence if found is not None else float(run.model.get("prevalence") or EXAMPLE)
    told = explain_goal(Goal("f_beta", beta=0.5), "recall", prevalence)
    answer = (
        "Not if a missed malignant nodule is worse than a false alarm. F-beta counts recall beta times as "
        "much as precision: 0.5 favours precision, 2 favours recall."
    )
    evidence = [told] if told else []
    if found is not None:
        evidence += [_point(each) for each in found.points if "F-beta" in each.goal]
    evidence.append(
        "F-beta moves with the share of malignant nodules and ignores cleared ones; this run chose for "
        f"{run.config.threshold.rule.words}. To change it: `--set threshold.goal=sensitivity --set "
        "threshold.at=0.9`."
    )
    return Answer("Is F-beta 0.5 what I want?", answer, evidence)


def _augmentation(run: RunFiles) -> Answer:
    """Say which augmentation was used, and how to find out whether it helps."""
    table = run.config.augment
    name = str(table.get("preset", "own settings"))
    other = "none" if name != "none" else "default"
    answer = (
        f"One run cannot tell. This one used the preset \u201c{name}\u201d; the same training with "
        f"\u201c{other}\u201d, on the same split and seed, can."
    )
    more = [f"{key} = {value}" for key, value in table.items() if key != "preset"]
    kept = run.selected
    return Answer(
        "Does augmentation help?",
        answer,
        [
            f"Changed from the preset: {', '.join(more)}." if more else "",
            f"`{_again(run)} --set augment.preset={other}`; then compare both on the same nodules, paired.",
            _gap(kept),
        ],
    )


def _again(run: RunFiles) -> str:
    """Return the command that trains once more on the same sides from the same seed."""
    return f"toolkit train STORE OTHER --split RUN/split.json --seed {run.config.seed}"


def _gap(kept: EpochRecord | None) -> str:
    """Say what there is to win: how far training is ahead of validation."""
    gap = np.nan if kept is None else kept.train.auroc.value - kept.val.auroc.value
    if not np.isfinite(gap):
        return ""
    if gap < SMALL_GAP:
        return (
            f"At the kept epoch training AUROC is no better than that of validation ({fixed(gap)}): there "
            "is no overfitting for augmentation to cure."
        )
    return (
        f"At the kept epoch training AUROC exceeds that of validation by {fixed(gap)}; augmentation, more "
        "data or a smaller network can win no more than that."
    )


def _size(run: RunFiles) -> Answer:
    """Say what the image adds over size alone."""
    question = "What does the image add over size alone?"
    found = run.evaluation
    if found is None:
        return Answer(
            question, "Not known yet: `toolkit evaluate RUN` fits a model of diameter alone beside it."
        )
    base = found.baseline
    return Answer(question, base.verdict, _beside(found))


def _beside(found: Evaluation) -> list[str]:
    base = found.baseline
    return [
        f"AUROC {ranged(found.auroc)} for the model, {ranged(base.auroc)} for diameter alone; difference "
        f"{ranged(base.auroc_difference)}, on the same patients.",
        f"Average precision {ranged(found.average_precision)} against {ranged(base.average_precision)}; "
        f"difference {ranged(base.average_precision_difference)}.",
    ]
