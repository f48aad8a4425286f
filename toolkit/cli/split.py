"""``toolkit split``: patients onto train, validation and test."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.guard import guarded, print_json
from toolkit.cli.options import Json

if TYPE_CHECKING:
    from toolkit.loading.split import Split
    from toolkit.store import Store


def _shares(text: str | None) -> str | None:
    """Check ``VAL/TEST``."""
    if text is not None and not re.fullmatch(r"(\d*\.)?\d+/(\d*\.)?\d+", text):
        raise typer.BadParameter("must be VAL/TEST, as 0.15/0.15")
    return text


@guarded
def split(
    store: Annotated[Path, typer.Argument(help="Folder of the store.")],
    out: Annotated[Path, typer.Option(metavar="JSON", help="Where to write the split.")] = Path("split.json"),
    holdout: Annotated[
        str | None,
        typer.Option(
            metavar="VAL/TEST", callback=_shares, help="One split with these shares (default: 0.15/0.15)."
        ),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=2, metavar="K", help="K folds, each the test side once.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, metavar="R", help="Deal the folds anew R times.")] = 1,
    inner_val: Annotated[
        float, typer.Option(metavar="SHARE", help="With --folds: share of the rest that validates.")
    ] = 0.15,
    from_store: Annotated[
        bool,
        typer.Option("--from-store", help="Take the manifest's sides (default where all nodules have one)."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another split.")] = 0,
    allow_similar: Annotated[
        bool,
        typer.Option(
            "--allow-similar", help="With --from-store: let crops of two sides show the same thing."
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Put every patient of a store on one side, classes and sizes shared alike.

    Patients whose crops show the same thing stay together. Exit code 2: impossible, and why.
    """
    from toolkit.errors import Problem, UsageError
    from toolkit.loading import split as rules
    from toolkit.loading.split_file import check_crops, check_ids, write_split
    from toolkit.store import Store

    if sum((holdout is not None, folds is not None, from_store)) > 1:
        what = "--holdout, --folds and --from-store exclude each other"
        raise UsageError(Problem("E-SPLIT-006", what, action="Nothing written; give one of them"))
    opened = Store.open(store)
    told = bool(opened.nodules) and all(nodule.split for nodule in opened.nodules)
    if from_store or (told and holdout is None and folds is None):
        made = rules.from_store(opened)
        check_ids(made, opened)
        if not allow_similar:
            from toolkit.loading.alike import alike

            check_crops(made, opened, alike(opened))
    elif folds is not None:
        made = rules.cross_validation(opened, folds, repeats, inner_val, seed)
    else:
        val, test = map(float, (holdout or "0.15/0.15").split("/"))
        made = rules.holdout(opened, val, test, seed)
    write_split(out, made, opened)
    if json:
        print_json(_as_json(made, opened, out))
    else:
        _show(made, opened, out)
    return 0


def _as_json(made: "Split", store: "Store", out: Path) -> dict[str, object]:
    from toolkit.loading.split import count

    return {
        "out": str(out),
        "rule": made.rule,
        "seed": made.seed,
        "tied": made.tied,
        "partitions": [{"name": part.name, "counts": count(store, part)} for part in made.partitions],
    }


def _show(made: "Split", store: "Store", out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from toolkit.loading.split import CLASSES, count

    table = Table("partition", "side", "patients", "nodules", *CLASSES, box=None)
    for part in made.partitions:
        for side, numbers in count(store, part).items():
            table.add_row(part.name, side, *(str(n) for n in numbers.values()))
    Console().print(table)
    talk = Console(stderr=True, soft_wrap=True, highlight=False)
    if made.tied:
        talk.print(f"{made.tied} pairs of patients show the same thing and were kept on one side")
    talk.print(f"split: {out} ({made.rule})", markup=False)
