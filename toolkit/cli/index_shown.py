"""How ``toolkit index`` tells what it found: as a table for people, as JSON, and file by file."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cli.plain import plain

if TYPE_CHECKING:
    from toolkit.archive.case import Case
    from toolkit.archive.deep import Judged
    from toolkit.archive.discover import Discovery
    from toolkit.archive.region_rule import RegionRule

SHOWN = 40


def as_json(found: "Discovery", out: Path, rule: "RegionRule", judged: "Sequence[Judged]") -> dict[str, Any]:
    """Return all of it; `judged` is what only --deep knows."""
    from toolkit.archive.outcomes import outcomes

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


def _deep_json(judged: "Judged") -> dict[str, Any]:
    """Return what only --deep knows of a case: each image file with its outcome."""
    files = [
        {"file": path, "code": problem and problem.code, "problem": problem and str(problem)}
        for path, problem in judged.files
    ]
    return {"files": files, "nodules": judged.nodules, "seconds": round(judged.seconds, 3)}


def write_files(path: Path, found: "Discovery") -> None:
    """Write the outcome of every file as a table."""
    import csv
    import io

    from toolkit.archive.outcomes import FileOutcome, outcomes
    from toolkit.store.files import write_atomic

    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(FileOutcome._fields)
    table.writerows(outcomes(found))
    write_atomic(path, text.getvalue().encode(errors="backslashreplace"))


def show(found: "Discovery", rule: "RegionRule") -> None:
    """Print a table on stdout, and what was refused and ignored on stderr."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "case", "patient", "slices x rows x columns", "spacing zyx mm", "regions", "state", box=None
    )
    for case in found.cases[:SHOWN]:
        table.add_row(*(plain(cell, fold=True) for cell in _cells(case, rule)))
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    if len(found.cases) > SHOWN:
        console.print(f"... and {len(found.cases) - SHOWN} more (all of them in the manifest)")
    talk = Console(stderr=True, soft_wrap=True, highlight=False)
    for problem in (*(case.problem for case in found.cases if case.problem), *found.refused):
        talk.print(plain(str(problem)))
    usable = sum(case.problem is None for case in found.cases)
    talk.print(f"{len(found.cases)} cases, {usable} usable; {len(found.refused)} other files refused")
    for what, paths in sorted(found.ignored.items()):
        more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
        talk.print(plain(f"ignored: {len(paths)} {what} [{', '.join(paths[:SHOWN])}{more}]"))


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
