"""``toolkit inspect``: a page that shows a store."""

from pathlib import Path
from typing import Annotated, Literal

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
    augment: Annotated[
        bool,
        typer.Option(
            "--augment", help="Write augment.html, too: the same nodules under many draws, fused beside DALI."
        ),
    ] = False,
    preset: Annotated[
        Literal["none", "light", "default", "strong"], typer.Option(help="Which draws --augment shows.")
    ] = "default",
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
    second = None
    if augment and found.flags:
        from toolkit.loading.augment import PRESETS
        from toolkit.report.augment_page import make_page
        from toolkit.store.reader import Store

        second = page.with_name("augment.html")
        write_page(second, make_page(Store.open(store), PRESETS[preset], preset), force=force)
    if json:
        pages = {"page": str(page), "augment_page": second and str(second)}
        print_json({"store": str(store), **pages, **as_json(found)})
        return 0
    flagged = sum(bool(keys) for keys in found.flags)
    told = f"{len(found.flags)} nodules, {flagged} flagged, {len(found.sheet.indices)} shown"
    typer.echo(f"{page}: {told}, {len(found.page) / 1e6:.1f} MB")
    if second is not None:
        typer.echo(f"{second}: {preset}")
    return 0
