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

INNER_VAL = 0.15


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
    ] = INNER_VAL,
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
    from toolkit.loading.split import cross_validation
    from toolkit.loading.split import holdout as once
    from toolkit.loading.split_file import write_split
    from toolkit.store import Store

    asked = [name for name, given in (("--holdout", holdout), ("--folds", folds)) if given is not None]
    asked += ["--from-store"] * from_store
    _refuse_contradictions(asked, repeats != 1, inner_val != INNER_VAL, allow_similar)
    opened = Store.open(store)
    told = bool(opened.nodules) and all(nodule.split for nodule in opened.nodules)
    if from_store or (told and not asked):
        made = _taken(opened, allow_similar)
    elif folds is not None:
        made = cross_validation(opened, folds, repeats, inner_val, seed)
    else:
        val, test = map(float, (holdout or "0.15/0.15").split("/"))
        made = once(opened, val, test, seed)
    write_split(out, made, opened)
    if json:
        print_json(_as_json(made, opened, out))
    else:
        _show(made, opened, out)
    return 0


def _refuse_contradictions(asked: list[str], repeats: bool, inner_val: bool, allow_similar: bool) -> None:
    """Refuse flags that exclude each other, and flags that would be ignored."""
    from toolkit.errors import Problem, UsageError

    if len(asked) > 1:
        what = "--holdout, --folds and --from-store exclude each other"
        raise UsageError(Problem("E-SPLIT-006", what, action="Nothing written; give one of them"))
    for flag, given, needs in (
        ("--repeats", repeats and asked != ["--folds"], "--folds"),
        ("--inner-val", inner_val and asked != ["--folds"], "--folds"),
        ("--allow-similar", allow_similar and asked not in ([], ["--from-store"]), "--from-store"),
    ):
        if given:
            what = f"{flag} means nothing without {needs}"
            raise UsageError(Problem("E-SPLIT-006", what, action="Nothing written; give both or neither"))


def _taken(store: "Store", allow_similar: bool) -> "Split":
    """Return the manifest's sides, checked."""
    from toolkit.loading.alike import alike
    from toolkit.loading.split import from_store
    from toolkit.loading.split_file import check_crops, check_ids

    made = from_store(store)
    check_ids(made, store)
    if not allow_similar:
        check_crops(made, store, alike(store))
    return made


def _as_json(made: "Split", store: "Store", out: Path) -> dict[str, object]:
    from toolkit.loading.numbered import count

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

    from toolkit.loading.numbered import count
    from toolkit.loading.split import CLASSES

    table = Table("partition", "side", "patients", "nodules", *CLASSES, box=None)
    for part in made.partitions:
        for side, numbers in count(store, part).items():
            table.add_row(part.name, side, *(str(n) for n in numbers.values()))
    Console().print(table)
    talk = Console(stderr=True, soft_wrap=True, highlight=False)
    if made.tied:
        talk.print(f"{made.tied} pairs of patients show the same thing and were kept on one side")
    talk.print(f"split: {out} ({made.rule})", markup=False)
