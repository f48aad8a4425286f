"""The page of a run: plain words first, then the user's questions, then the evidence, in one file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.evaluation.predictions import Predictions
from toolkit.evaluation.results import to_json
from toolkit.report import run_curves, run_facts, run_scores, run_tables
from toolkit.report.misses import Explain, Viewer, viewer
from toolkit.report.page import Section, render
from toolkit.report.run_files import RunFiles, open_store, read_run
from toolkit.report.run_questions import questions
from toolkit.report.run_summary import meaning, missing, summary
from toolkit.store import Store
from toolkit.training.run_folder import RunFolder

Explainer = Callable[[RunFolder, Store], Explain | None]
HASHES = "Identifiers are hashes; the pixels are not de-identified."


@dataclass(frozen=True, eq=False)
class RunReport:
    """A run, its store or why there is none, and its page."""

    run: RunFiles
    store: Store | None
    why_no_store: str
    page: bytes


def report_run(path: Path, store: Path | None = None, explainer: Explainer | None = None) -> RunReport:
    """Read a run and make its page.

    Parameters
    ----------
    store
        The run's store, where it is no longer where the run says.
    explainer
        Makes what gives evidence, of the run and its store; without it no evidence is shown.

    Raises
    ------
    UsageError
        E-RUN-001 where there is no run, or a file of it is damaged; E-EVAL-002, E-EVAL-004; and those
        of the explainer.
    StoreError
        Where `store` is none, damaged, or another than the run's.
    """
    run = read_run(path)
    opened, why = open_store(run, store)
    explain = explainer(RunFolder(path), opened) if explainer and opened is not None else None
    return RunReport(run, opened, why, make_page(run, opened, why, explain))


def make_page(run: RunFiles, store: Store | None, why_no_store: str, explain: Explain | None = None) -> bytes:
    """Return the page of what was read."""
    looks = _misses(run, store, why_no_store, explain)
    parts = [
        Section("summary", "In plain words", summary(run, store, why_no_store)),
        Section("questions", "Your questions", questions(run)),
        Section("curves", "Curves", run_curves.folds(run) if run.folds else run_curves.curves(run)),
        Section("evaluation", "Evaluation", _evaluation(run)),
        Section("misses", "Worst misses", looks.body),
        Section("data", "Data", run_facts.data(run, store)),
        Section("settings", "Settings", run_facts.settings(run)),
        Section("card", "Model card", run_facts.card(run, meaning(run, store))),
        Section("files", "Files", run_facts.files(run)),
    ]
    scripts = ("slices.js", "misses.js") if looks.blocks else ()
    kind = f"Cross-validation, {len(run.folds)} folds" if run.folds else "One training"
    lead = f"{kind}. Research only, not for clinical use. {HASHES}"
    return render("Malignancy of lung nodules", lead, parts, scripts, looks.blocks)


def _evaluation(run: RunFiles) -> str:
    if run.evaluation is None:
        return (
            "<p>The test side has not been looked at. <code>toolkit evaluate RUN</code> looks at it once "
            "and writes evaluation.json; then make this page again.</p>"
        )
    return run_scores.charts(run.evaluation) + run_tables.tables(run.evaluation)


def _misses(run: RunFiles, store: Store | None, why_no_store: str, explain: Explain | None) -> Viewer:
    """Show wrong decisions of the test side, or of validation where that is all there is."""
    predictions, side = _predicted(run)
    if predictions is None:
        return Viewer("<p>There are no predictions yet.</p>", ())
    if store is None:
        return Viewer(
            f"<p>No pictures: {why_no_store}. <code>toolkit report RUN --store STORE</code> shows them.</p>",
            (),
        )
    return viewer(predictions, store, explain, side)


def _predicted(run: RunFiles) -> tuple[Predictions | None, str]:
    if run.test is not None:
        return run.test, "out-of-fold" if run.folds else "test"
    return run.val, "validation"


def as_json(made: RunReport) -> dict[str, Any]:
    """Return the headline numbers as plain JSON types."""
    run, found = made.run, made.run.evaluation
    kept = run.selected
    headline = None
    if found is not None:
        headline = {
            "nodules": found.nodules,
            "patients": found.patients,
            "positives": found.positives,
            "auroc": found.auroc,
            "average_precision": found.average_precision,
            "recall": found.frozen.recall,
            "specificity": found.frozen.specificity,
            "over_diameter": found.baseline.auroc_difference,
        }
    value = {
        "epochs": len(run.records),
        "folds": [fold.name for fold in run.folds],
        "best_epoch": run.records[-1].best_epoch if run.records else None,
        "validation_auroc": kept.val.auroc if kept is not None else None,
        "evaluation": headline,
        "missing": [command for _, _, command in missing(run, made.why_no_store)],
        "page_bytes": len(made.page),
    }
    told: dict[str, Any] = to_json(value)
    return told
