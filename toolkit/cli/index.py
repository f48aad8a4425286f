"""``toolkit index``: what an archive holds, and a manifest of it to edit."""

import sys
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
    Labels,
    RegionPattern,
    Workers,
)

if TYPE_CHECKING:
    from toolkit.archive.case import Case
    from toolkit.archive.catalog import Scanned
    from toolkit.archive.discover import Discovery
    from toolkit.archive.region_rule import RegionRule

SHOWN = 40


@guarded
def index(
    archive: Archive,
    out: Annotated[Path, typer.Option(metavar="CSV", help="Where to write the manifest.")] = Path(
        "cases.csv"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace a manifest that differs.")] = False,
    files: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Write what became of every single file, slices included."),
    ] = None,
    cases: Cases = None,
    labels: Labels = None,
    workers: Workers = None,
    index_cache: IndexFolder = None,
    allow_uneven: AllowUneven = False,
    allow_missing: AllowMissing = False,
    region: RegionPattern = "",
    json: Json = False,
) -> int:
    """Show what an archive holds, and write it as a manifest to edit.

    Reads headers only. Exit code 0: all usable, 8: some, 4: none, 3: nothing found.
    """
    from toolkit.archive.catalog import catalog, default_labels
    from toolkit.archive.dicom_series import SeriesRules
    from toolkit.archive.index_cache import IndexCache, default_folder
    from toolkit.archive.manifest import write_manifest
    from toolkit.archive.region_rule import RegionRule
    from toolkit.preprocess.pool import Pool, default_workers
    from toolkit.preprocess.run import scan_in

    cache = IndexCache(index_cache or default_folder())
    rules, rule = SeriesRules(allow_uneven, allow_missing), RegionRule(region)
    pool: Pool[str, Scanned]
    with Pool(workers or default_workers()) as pool:
        found = catalog(
            archive,
            cases,
            rules,
            cache,
            lambda folders: scan_in(pool, folders),
            labels=labels or default_labels(archive, cases),
        )
    cache.close()
    if json:
        print_json(_as_json(found, out, rule))
    else:
        _show(found, rule)
    write_manifest(out, found.cases, force)
    if files is not None:
        _write_files(files, found)
    if not json:
        typer.echo(f"manifest: {out}", err=True)
    bad = sum(case.problem is not None for case in found.cases) + len(found.refused)
    if not bad:
        return 0
    return 8 if any(case.problem is None for case in found.cases) else 4


def _as_json(found: "Discovery", out: Path, rule: "RegionRule") -> dict[str, Any]:
    from toolkit.archive.outcomes import outcomes

    return {
        "cases": [
            {
                "case_id": case.case_id,
                "patient_id": case.patient_id,
                "image": case.image,
                "shape_zyx": list(case.source.geometry.shape_zyx) if case.source else None,
                "spacing_mm": list(case.source.geometry.spacing_mm) if case.source else None,
                "masks": [mask.path for mask in case.masks],
                "regions": [
                    {"mask": mask.path, "number": r.number, "name": r.name, "taken": rule.takes(r)}
                    for mask in case.masks
                    for r in mask.regions
                ],
                "points": len(case.points),
                "labels": len(case.told),
                "notes": [str(note) for note in case.notes],
                "code": case.problem.code if case.problem else None,
                "problem": str(case.problem) if case.problem else None,
            }
            for case in found.cases
        ],
        "refused": [{"code": p.code, "files": list(p.files), "problem": str(p)} for p in found.refused],
        "ignored": {what: list(paths) for what, paths in found.ignored.items()},
        "files": [o._asdict() for o in outcomes(found) if o.outcome != "read"],
        "manifest": str(out),
    }


def _write_files(path: Path, found: "Discovery") -> None:
    """Write the outcome of every file as a table."""
    import csv

    from toolkit.archive.outcomes import FileOutcome, outcomes

    try:
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(FileOutcome._fields)
            table.writerows(outcomes(found))
    except OSError as error:
        from toolkit.errors import Problem, ResourceError

        reason = error.strerror or ""
        raise ResourceError(Problem("E-DISK-001", "writing failed", reason, files=(str(path),))) from error


def _show(found: "Discovery", rule: "RegionRule") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        "case", "patient", "slices x rows x columns", "spacing zyx mm", "regions", "state", box=None
    )
    for case in found.cases[:SHOWN]:
        table.add_row(*(Text(cell, overflow="fold") for cell in _cells(case, rule)))
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    if len(found.cases) > SHOWN:
        console.print(f"... and {len(found.cases) - SHOWN} more (all of them in the manifest)")
    talk = Console(stderr=True, soft_wrap=True, highlight=False)
    for problem in (*(case.problem for case in found.cases if case.problem), *found.refused):
        talk.print(Text(str(problem)))
    usable = sum(case.problem is None for case in found.cases)
    talk.print(f"{len(found.cases)} cases, {usable} usable; {len(found.refused)} other files refused")
    for what, paths in sorted(found.ignored.items()):
        more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
        talk.print(Text(f"ignored: {len(paths)} {what} [{', '.join(paths[:SHOWN])}{more}]"))


def _cells(case: "Case", rule: "RegionRule") -> tuple[str, ...]:
    regions = (
        f"{len(case.masks)} masks" if case.masks else f"{len(case.points)} points" if case.points else "none"
    )
    named = [region for mask in case.masks for region in mask.regions]
    if named:
        regions += f", {sum(map(rule.takes, named))} of {len(named)} regions"
    if case.source is None:
        state = case.problem.code if case.problem else "?"
        return case.case_id, case.patient_id, "", "", regions, state
    geometry = case.source.geometry
    shape = " x ".join(map(str, geometry.shape_zyx))
    spacing = " ".join(f"{s:.3g}" for s in geometry.spacing_mm)
    notes = " ".join(sorted({note.code for note in case.notes}))
    return case.case_id, case.patient_id, shape, spacing, regions, notes or "ok"
