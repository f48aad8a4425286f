"""``toolkit report``: one page that tells what a run can do and how sure that is."""

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.guard import guarded, print_json
from toolkit.cli.options import AllowImport, Json


@guarded
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of a cross-validation.")],
    store: Annotated[
        Path | None,
        typer.Option(metavar="STORE", help="The run's store, where it was moved; for the pictures."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write the page (default: RUN/report.html).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is no such page.")] = False,
    allow_import: AllowImport = False,
    json: Json = False,
) -> int:
    """Write a page that explains a run: what it can do, how sure that is, curves, the worst misses.

    One file that opens anywhere and asks the network for nothing. What is missing is told, with the command
    that makes it. Exit code 0: written, 2: no run, or a damaged one.
    """
    from functools import partial

    from toolkit.inference.evidence import run_evidence
    from toolkit.report.run_page import as_json, report_run
    from toolkit.report.store_page import write_page
    from toolkit.training.run_folder import RunFolder

    page = out or RunFolder(run).report
    made = report_run(run, store, partial(run_evidence, allow_import=allow_import))
    write_page(page, made.page, force=force)
    told = as_json(made)
    if json:
        print_json({"run": str(run), "page": str(page), **told})
        return 0
    typer.echo(f"{page}: {len(made.page) / 1e6:.1f} MB")
    for command in told["missing"]:
        typer.echo(f"not on it yet: {command}", err=True)
    return 0
