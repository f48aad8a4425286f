"""``toolkit index``: what an archive holds, and a manifest of it to edit."""

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
    SeriesUids,
    WorkerMemory,
    Workers,
    gib,
)

if TYPE_CHECKING:
    from toolkit.archive.deep import Judged


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
    worker_memory: WorkerMemory = None,
    index_cache: IndexFolder = None,
    allow_uneven: AllowUneven = False,
    allow_missing: AllowMissing = False,
    region: RegionPattern = "",
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

    from toolkit.archive.catalog import catalog, default_labels
    from toolkit.archive.dicom_series import SeriesRules
    from toolkit.archive.index_cache import IndexCache, default_folder
    from toolkit.archive.manifest import write_manifest
    from toolkit.archive.region_rule import RegionRule
    from toolkit.cli.index_shown import as_json, show, write_files
    from toolkit.memory import cores
    from toolkit.preprocess.deep import judge_all
    from toolkit.preprocess.local import scan_in
    from toolkit.preprocess.plan import Settings
    from toolkit.preprocess.pool import Pool
    from toolkit.store.files import write_atomic

    cache = IndexCache(index_cache or default_folder())
    rules, rule = SeriesRules(allow_uneven, allow_missing), RegionRule(region)
    judged: list[Judged] = []
    pool: Pool[Any, Any]
    with Pool(workers or cores(), gib(worker_memory)) as pool:
        found = catalog(
            archive,
            cases,
            rules,
            cache,
            lambda folders: scan_in(pool, folders),
            labels=labels or default_labels(archive, cases),
            series_uids=tuple(series_uid or ()),
            open_cases=not deep,
        )
        if deep:
            judged = judge_all(pool, found.cases, Settings().min_diameter_mm, rule)
            found = replace(found, cases=tuple(one.case for one in judged))
    cache.close()
    if json:
        print_json(as_json(found, out, rule, judged))
    else:
        show(found, rule)
    write_manifest(out, found.cases, force, write_atomic)
    if files is not None:
        write_files(files, found)
    if not json:
        typer.echo(f"manifest: {out}", err=True)
    bad = sum(case.problem is not None for case in found.cases) + len(found.refused)
    if not bad:
        return 0
    return 8 if any(case.problem is None for case in found.cases) else 4
