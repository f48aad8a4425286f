"""``toolkit index``: what an archive holds, and a manifest of it to edit."""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.guard import guarded, print_json
from toolkit.cli.options import (
    AllowMissing,
    AllowUneven,
    Archive,
    Cases,
    IndexFolder,
    Json,
    SeriesUids,
    Workers,
)

if TYPE_CHECKING:
    from toolkit.archive.case import Case
    from toolkit.archive.deep import Judged
    from toolkit.archive.discover import Discovery

SHOWN = 40


@guarded
def index(
    archive: Archive,
    out: Annotated[Path, typer.Option(metavar="CSV", help="Where to write the manifest.")] = Path(
        "cases.csv"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace a manifest that differs.")] = False,
    cases: Cases = None,
    workers: Workers = None,
    index_cache: IndexFolder = None,
    allow_uneven: AllowUneven = False,
    allow_missing: AllowMissing = False,
    series_uid: SeriesUids = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Decode every voxel and look at every mask, too.")
    ] = False,
    json: Json = False,
) -> int:
    """Show what an archive holds, and write it as a manifest to edit.

    Reads headers only, unless --deep. Exit code 0: all usable, 8: some, 4: none, 3: nothing found.
    """
    from dataclasses import replace

    from toolkit.archive.catalog import catalog
    from toolkit.archive.dicom_series import SeriesRules
    from toolkit.archive.index_cache import IndexCache, default_folder
    from toolkit.archive.manifest import write_manifest
    from toolkit.preprocess.deep import judge_all
    from toolkit.preprocess.plan import Settings
    from toolkit.preprocess.pool import Pool, default_workers
    from toolkit.preprocess.run import scan_in

    cache = IndexCache(index_cache or default_folder())
    rules = SeriesRules(allow_uneven, allow_missing)
    judged: list[Judged] = []
    pool: Pool[Any, Any]
    with Pool(workers or default_workers()) as pool:
        uids = tuple(series_uid or ())
        scan = functools.partial(scan_in, pool)
        found = catalog(archive, cases, rules, cache, scan, open_cases=not deep, series_uids=uids)
        if deep:
            judged = judge_all(pool, found.cases, Settings().min_diameter_mm)
            found = replace(found, cases=tuple(one.case for one in judged))
    cache.close()
    if json:
        print_json(_as_json(found, out, judged))
    else:
        _show(found)
    write_manifest(out, found.cases, force)
    if not json:
        typer.echo(f"manifest: {out}", err=True)
    bad = sum(case.problem is not None for case in found.cases) + len(found.refused)
    if not bad:
        return 0
    return 8 if any(case.problem is None for case in found.cases) else 4


def _as_json(found: "Discovery", out: Path, judged: "Sequence[Judged]") -> dict[str, Any]:
    deep = {one.case.case_id: _deep_json(one) for one in judged}
    return {
        "cases": [
            {
                **deep.get(case.case_id, {}),
                "case_id": case.case_id,
                "patient_id": case.patient_id,
                "image": case.image,
                "shape_zyx": list(case.source.geometry.shape_zyx) if case.source else None,
                "spacing_mm": list(case.source.geometry.spacing_mm) if case.source else None,
                "masks": [mask.path for mask in case.masks],
                "points": len(case.points),
                "notes": [str(note) for note in case.notes],
                "code": case.problem.code if case.problem else None,
                "problem": str(case.problem) if case.problem else None,
            }
            for case in found.cases
        ],
        "refused": [{"code": p.code, "files": list(p.files), "problem": str(p)} for p in found.refused],
        "ignored": found.ignored,
        "skipped": {what: list(files) for what, files in found.skipped.items()},
        "manifest": str(out),
    }


def _deep_json(judged: "Judged") -> dict[str, Any]:
    """Return what only --deep knows of a case: each image file with its outcome."""
    files = [
        {"file": path, "code": problem and problem.code, "problem": problem and str(problem)}
        for path, problem in judged.files
    ]
    return {"files": files, "nodules": judged.nodules, "seconds": round(judged.seconds, 3)}


def _show(found: "Discovery") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        "case", "patient", "slices x rows x columns", "spacing zyx mm", "regions", "state", box=None
    )
    for case in found.cases[:SHOWN]:
        table.add_row(*(Text(cell, overflow="fold") for cell in _cells(case)))
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    if len(found.cases) > SHOWN:
        console.print(f"... and {len(found.cases) - SHOWN} more (all of them in the manifest)")
    talk = Console(stderr=True, soft_wrap=True, highlight=False)
    for problem in (*(case.problem for case in found.cases if case.problem), *found.refused):
        talk.print(Text(str(problem)))
    usable = sum(case.problem is None for case in found.cases)
    talk.print(f"{len(found.cases)} cases, {usable} usable; {len(found.refused)} other files refused")
    for what, count in sorted(found.ignored.items()):
        talk.print(f"ignored: {count} {what}")


def _cells(case: "Case") -> tuple[str, ...]:
    regions = (
        f"{len(case.masks)} masks" if case.masks else f"{len(case.points)} points" if case.points else "none"
    )
    if case.source is None:
        state = case.problem.code if case.problem else "?"
        return case.case_id, case.patient_id, "", "", regions, state
    geometry = case.source.geometry
    shape = " x ".join(map(str, geometry.shape_zyx))
    spacing = " ".join(f"{s:.3g}" for s in geometry.spacing_mm)
    notes = " ".join(sorted({note.code for note in case.notes}))
    return case.case_id, case.patient_id, shape, spacing, regions, notes or "ok"
