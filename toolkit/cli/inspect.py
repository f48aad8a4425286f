"""``toolkit inspect``: a page that shows a store."""

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.guard import guarded, print_json
from toolkit.cli.options import Json


@guarded
def inspect(
    store: Annotated[Path, typer.Argument(help="Folder of the store.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write the page (default: STORE/qc.html).")
    ] = None,
    nodules: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Show N nodules at most: flagged ones, then an even sample."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is no such page.")] = False,
    json: Json = False,
) -> int:
    """Write a page that shows a store: crops with their masks, flags, refusals, settings that would fit.

    One file that opens anywhere and asks the network for nothing. Exit code 0: written, 2: no store, or
    a damaged one.
    """
    from toolkit.preprocess.plan import default_margin
    from toolkit.report.store_page import as_json, inspect_store, write_page

    page = out or store / "qc.html"
    found = inspect_store(store, default_margin, nodules)
    write_page(page, found.page, force=force)
    if json:
        print_json({"store": str(store), "page": str(page), **as_json(found)})
        return 0
    flagged = sum(bool(keys) for keys in found.flags)
    told = f"{len(found.flags)} nodules, {flagged} flagged, {len(found.sheet.indices)} shown"
    typer.echo(f"{page}: {told}, {len(found.page) / 1e6:.1f} MB")
    return 0
