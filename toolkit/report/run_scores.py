"""What the test side showed, as charts: ranking, calibration, net benefit, predictive values."""

import math
from collections.abc import Sequence

from toolkit.evaluation.evaluation import Curve as Swept
from toolkit.evaluation.evaluation import Evaluation, OperatingPoint
from toolkit.evaluation.quality import Quality
from toolkit.evaluation.results import Interval
from toolkit.report.axes import Axis, fitted, logarithmic, share
from toolkit.report.lines import Curve, Plot, Point, plot
from toolkit.report.words import fixed, percent, plain, ranged, ranged_percent

NAN = math.nan
DIAGONAL = (0.0, 1.0)
FLOOR_SHARE = 0.25  # of the best net benefit: how far below 0 the decision curve shows


def charts(found: Evaluation) -> str:
    """Return all charts of an evaluation."""
    plots = [
        _roc(found),
        _precision_recall(found),
        _reliability(found),
        _decision(found),
        *_predictive(found),
    ]
    return f'<div class="plots">{"".join(plot(one) for one in plots)}</div>'


def _swept(curve: Swept) -> list[Curve]:
    """Return a curve, and its band, which stands on a grid of its own."""
    low, high = [b.low for b in curve.band], [b.high for b in curve.band]
    band = Curve("", curve.grid, [NAN] * len(curve.grid), low=low, high=high)
    return [Curve("", curve.x, curve.y), band]


def _cross(told: str, x: Interval, y: Interval, *, hollow: bool) -> Point:
    """Return an operating point; those chosen on this very side have no interval, being too good already."""
    ends = None if hollow else ((x.low, x.high), (y.low, y.high))
    known = ends is not None and all(math.isfinite(v) for pair in ends for v in pair)
    x_ends, y_ends = ends if ends is not None and known else (None, None)
    return Point(x.value, y.value, told, "model", x_ends, y_ends, hollow)


def _told(point: OperatingPoint) -> str:
    basis = "frozen on validation" if point.basis == "validation" else "chosen on this side, for illustration"
    return (
        f"{point.goal} ({basis}): recall {ranged(point.recall)}, specificity {ranged(point.specificity)}, "
        f"precision {ranged(point.precision)}"
    )


def _roc(found: Evaluation) -> Plot:
    points = []
    for each in (*found.points, found.frozen):
        s = each.specificity
        false = Interval(1 - s.value, 1 - s.high, 1 - s.low)
        points.append(_cross(_told(each), false, each.recall, hollow=each is not found.frozen))
    drawn = [*_swept(found.roc), Curve("", DIAGONAL, DIAGONAL, "other", dashed=True)]
    note = f"AUROC {ranged(found.auroc)}. Filled: the frozen threshold; rings: chosen on this side."
    return Plot("ROC", share("1 \u2212 specificity"), share("recall"), drawn, points, note=note)


def _precision_recall(found: Evaluation) -> Plot:
    points = [
        _cross(_told(each), each.recall, each.precision, hollow=each is not found.frozen)
        for each in (*found.points, found.frozen)
    ]
    chance = Curve("", DIAGONAL, (found.observed, found.observed), "other", dashed=True)
    note = (
        f"Average precision {ranged(found.average_precision)}; chance gives {fixed(found.observed)}, the "
        "share of malignant nodules here."
    )
    drawn = [*_swept(found.precision_recall), chance]
    return Plot("Precision and recall", share("recall"), share("precision"), drawn, points, note=note)


def _reliability(found: Evaluation) -> Plot:
    """Draw what was observed over what was said, before and after calibration."""
    points, drawn = [], [Curve("", DIAGONAL, DIAGONAL, "other", dashed=True)]
    for key, name, style in (("raw", "raw", "malignant"), ("calibrated", "calibrated", "model")):
        quality = found.calibration.get(key)
        if quality is None:
            continue
        bins = quality.bins
        said, seen = [b.mean_probability for b in bins], [b.observed.value for b in bins]
        drawn.append(Curve(name, said, seen, style))
        for b in bins:
            told = f"{name}: said {percent(b.mean_probability)}, "
            told += f"observed {ranged_percent(b.observed)} of {b.nodules}"
            ends = (b.observed.low, b.observed.high) if key == "calibrated" else None
            points.append(Point(b.mean_probability, b.observed.value, told, style, None, ends))
    note = "On the dashed line probabilities mean what they say. Each point is an equal number of nodules."
    return Plot("Calibration", share("probability"), share("observed"), drawn, points, note=note)


def _decision(found: Evaluation) -> Plot:
    """Draw net benefit, down to a little below none."""
    curve = found.decision_curve
    best = max((v.value for v in curve.model if math.isfinite(v.value)), default=0.0)
    floor = -FLOOR_SHARE * best
    x = list(curve.thresholds)

    def above(values: Sequence[float]) -> list[float]:
        return [v if v >= floor else NAN for v in values]

    low, high = (
        [max(floor, v) for v in ends] for ends in zip(*((m.low, m.high) for m in curve.model), strict=True)
    )
    drawn = [
        Curve("model", x, above([m.value for m in curve.model]), "model", low, high),
        Curve("diameter alone", x, above([m.value for m in curve.baseline]), "benign", dashed=True),
        Curve("act on all", x, above(curve.treat_all), "other"),
        Curve("act on none", x, [0.0] * len(x), "other", dashed=True),
    ]
    y = fitted("net benefit", [v for c in drawn for v in c.y], floor=floor)
    top = max(x, default=0.5)
    x_axis = Axis(
        "act from this probability on", 0.0, top, tuple(k / 10 for k in range(int(10 * top + 1e-9) + 1))
    )
    note = (
        f"At a prevalence of {plain(100 * curve.prevalence)} %. A probability of 0.1 means: one miss weighs "
        "as much as nine false alarms. The highest line does the most good."
    )
    return Plot("Decision curve", x_axis, y, drawn, note=note)


def _predictive(found: Evaluation) -> list[Plot]:
    rows = found.predictive
    if len(rows) < 2:
        return []
    x = [row.prevalence for row in rows]
    axis = logarithmic("share of malignant nodules", x[0], x[-1], percent=True)
    plots = []
    for title, style, values in (
        ("Alarms that are right (PPV)", "malignant", [row.positive for row in rows]),
        ("Cleared nodules that are benign (NPV)", "benign", [row.negative for row in rows]),
    ):
        low, high = [v.low for v in values], [v.high for v in values]
        drawn = [Curve("", x, [v.value for v in values], style, low, high)]
        y = share("") if style == "malignant" else fitted("", [*low, 1.0])
        here = f"At the declared prevalence of {plain(100 * found.prevalence)} %: {_near(found, title)}."
        plots.append(Plot(title, axis, y, drawn, note=here))
    return plots


def _near(found: Evaluation, title: str) -> str:
    """Tell a predictive value at the tabled prevalence that is nearest to the declared one."""
    near = min(found.predictive, key=lambda row: abs(math.log(row.prevalence / found.prevalence)))
    value = near.positive if "PPV" in title else near.negative
    told = ranged_percent(value, 0 if "PPV" in title else 1)
    same = math.isclose(near.prevalence, found.prevalence, rel_tol=0.02)
    return told if same else f"{told} at {plain(100 * near.prevalence)} %, the nearest that is drawn"


def quality_rows(found: Evaluation) -> list[tuple[str, Quality]]:
    """Return the three stages of calibration with their names, those that were measured."""
    names = (("raw", "Raw"), ("prior corrected", "Prior corrected"), ("calibrated", "Calibrated"))
    return [(told, found.calibration[key]) for key, told in names if key in found.calibration]
