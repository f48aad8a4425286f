"""``toolkit train``: from a store to a run folder with a calibrated model."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from toolkit.cli.guard import guarded, print_json
from toolkit.cli.options import Json


@guarded
def train(
    store: Annotated[Path, typer.Argument(help="Folder of the store.")],
    run: Annotated[Path, typer.Argument(help="Folder of the run; new, or one to go on with.")],
    config: Annotated[Path | None, typer.Option(metavar="FILE.toml", help="Settings; see README.")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One setting, as model.dropout=0.2; may be repeated."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    folds: Annotated[int, typer.Option(metavar="K", help="Cross-validation with K folds.")] = 0,
    repeats: Annotated[int, typer.Option(min=1, metavar="R", help="Deal the folds anew R times.")] = 1,
    split: Annotated[
        Path | None, typer.Option(metavar="JSON", help="A file of toolkit split, instead of a new one.")
    ] = None,
    allow_similar: Annotated[
        bool,
        typer.Option("--allow-similar", help="Let crops on two sides of the split show the same thing."),
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of split, weights, batches and augmentation.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    loader: Annotated[
        Literal["auto", "fused", "dali"], typer.Option(help="Who makes the batches; auto says why.")
    ] = "auto",
    impl: Annotated[
        Literal["auto", "plain", "fast"] | None,
        typer.Option(help="How our networks are computed; auto tries both on a GPU and says why."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with an interrupted run, or begin it anew.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and say what would be trained; write nothing.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="A line an epoch where there is no terminal.")
    ] = False,
    json: Json = False,
) -> int:
    """Train a classifier, choose its threshold and calibrate it, all on training and validation sides.

    Exit code 0: done, 2: impossible, and why; 75: interrupted, the same command goes on.
    """
    from toolkit.training.config import read_config
    from toolkit.training.prepare import Asked
    from toolkit.training.run import train
    from toolkit.training.watch import watching

    if folds == 1 or folds < 0:
        raise typer.BadParameter("must be at least 2", param_hint="--folds")
    if repeats > 1 and not folds:
        raise typer.BadParameter("means nothing without --folds", param_hint="--repeats")
    settings = read_config(config, sets or [], {"epochs": epochs, "seed": seed, "compute.impl": impl})
    asked = Asked(split, folds, repeats, device, loader, resume, allow_similar, dry_run)
    told = train(store, run, settings, asked, watching(verbose=verbose))
    if json:
        print_json(told)
    elif dry_run:
        for part in told["partitions"]:
            typer.echo(_planned(part))
        typer.echo(told["decided"])
    else:
        for part in told["partitions"]:
            typer.echo(
                f"{part['partition']}: epoch {part['best_epoch']} of {part['epochs']}, "
                f"validation AUROC {_interval(part['validation']['auroc'])}"
            )
        typer.echo(f"model: {run / 'model'}")
    return 0


def _planned(part: dict[str, Any]) -> str:
    teach, judge = part["training"], part["validation"]
    return (
        f"{part['partition']}: {teach['nodules']} nodules teach ({teach['malignant']} malignant, "
        f"{teach['benign']} benign), {judge['malignant']} malignant and {judge['benign']} benign validate, "
        f"{part['test_nodules']} test; {part['steps_per_epoch']} steps an epoch; {part['balance']}"
    )


def _interval(told: list[float | None]) -> str:
    value, low, high = told
    if value is None:
        return "not defined"
    if low is None or high is None:
        return f"{value:.3f} (too few patients for an interval)"
    return f"{value:.3f} ({low:.3f} to {high:.3f})"
