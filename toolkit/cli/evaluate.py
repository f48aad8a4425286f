"""``toolkit evaluate``: what a trained model is worth on nodules that training never saw."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.guard import guarded, print_json
from toolkit.cli.options import AllowImport, DeviceName, Json, Prevalence

if TYPE_CHECKING:
    from toolkit.evaluation.results import Interval
    from toolkit.inference.test_side import Evaluated


@guarded
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    store: Annotated[
        Path | None, typer.Option(metavar="STORE", help="The store (default: where the run had it).")
    ] = None,
    prevalence: Prevalence = None,
    json: Json = False,
    device: DeviceName = "auto",
    allow_import: AllowImport = False,
) -> int:
    """Evaluate the test side of a run: intervals, calibration, subgroups, beside what diameter alone knows.

    The test side is predicted once a model, and each look at it is counted. Writes evaluation.json. Exit code
    0: done, 2: there is nothing to evaluate, and why.
    """
    from toolkit.evaluation.evaluation import read_evaluation
    from toolkit.inference.test_side import evaluate_run
    from toolkit.training.run_folder import RunFolder

    found = evaluate_run(run, store, prevalence=prevalence, device=device, allow_import=allow_import)
    path = RunFolder(run).evaluation
    if json:
        print_json({**read_evaluation(path), "looks": found.looks})
    else:
        _show(found, path)
    return 0


def _show(found: "Evaluated", path: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = found.evaluation
    table = Table("", "value", "95 % interval", box=None)
    for name, interval in _lines(found).items():
        table.add_row(name, *_interval(interval))
    out = Console(highlight=False, soft_wrap=True)
    out.print(Text(f"{made.nodules} nodules of {made.patients} patients, {made.positives} malignant"))
    out.print(Text(f"threshold: {made.goal}, frozen on validation"))
    out.print(table)
    for sentence in made.sentences:
        out.print(Text(sentence))
    talk = Console(stderr=True, soft_wrap=True, highlight=False)
    if found.looks > 1:
        talk.print(f"{found.looks} looks at this test side; only the first was blind to its result")
    talk.print(Text(f"evaluation: {path}"))


def _lines(found: "Evaluated") -> dict[str, "Interval"]:
    made = found.evaluation
    calibrated = made.calibration["calibrated"]
    return {
        "AUROC": made.auroc,
        "  diameter alone": made.baseline.auroc,
        "  difference": made.baseline.auroc_difference,
        "average precision": made.average_precision,
        "sensitivity (recall)": made.frozen.recall,
        "specificity": made.frozen.specificity,
        "balanced accuracy": made.frozen.balanced_accuracy,
        "precision": made.frozen.precision,
        f"F-beta, beta {made.frozen.beta:g}": made.frozen.f_beta,
        "calibration intercept (0 is right)": calibrated.intercept,
        "calibration slope (1 is right)": calibrated.slope,
        "Brier score": calibrated.brier,
    }


def _interval(interval: "Interval") -> tuple[str, str]:
    """Return value and interval as text; a dash where it is not defined."""
    value, low, high = (f"{each:.3f}" if each == each else "-" for each in interval)
    return value, "-" if "-" in (low, high) else f"{low} to {high}"
