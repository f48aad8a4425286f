"""``toolkit preprocess``: from an archive to a nodule store."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from toolkit.cli.guard import guarded, print_json
from toolkit.cli.options import (
    AllowMissing,
    AllowUneven,
    Archive,
    Cases,
    IdKeyText,
    IndexFolder,
    Json,
    Labels,
    MinDiameter,
    RegionPattern,
    SeriesUids,
    WorkerMemory,
    Workers,
    gib,
)
from toolkit.cli.refusals import tell_refusals

if TYPE_CHECKING:
    from toolkit.preprocess.job import Summary
    from toolkit.preprocess.plan import Settings


def _part(text: str) -> str:
    """Check ``i/N``."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[2]) < 1 or int(match[1]) > int(match[2]):
        raise typer.BadParameter("must be i/N with i from 1 to N (0 to N-1 works, too)")
    return text


@guarded
def preprocess(
    archive: Archive,
    store: Annotated[Path, typer.Argument(help="Folder of the store; made, or resumed.")],
    cases: Cases = None,
    labels: Labels = None,
    spacing: Annotated[
        float, typer.Option(min=0.05, max=20, metavar="MM", help="Voxel spacing of crops.")
    ] = 1.0,
    size: Annotated[int, typer.Option(min=4, max=512, metavar="VOXELS", help="Side of a crop.")] = 64,
    margin: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=256,
            metavar="VOXELS",
            help="More voxels on each side (default: what augmentation needs).",
        ),
    ] = None,
    min_diameter: MinDiameter = 3.0,
    workers: Workers = None,
    worker_memory: WorkerMemory = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where the kernels run.")] = "auto",
    index_cache: IndexFolder = None,
    id_key: IdKeyText = None,
    shard: Annotated[
        str, typer.Option(metavar="i/N", callback=_part, help="Do part i of N; parts may run at once.")
    ] = "1/1",
    engine: Annotated[
        Literal["local", "dask"], typer.Option(help="Who makes the shards: this machine, or a Dask cluster.")
    ] = "local",
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Of the Dask cluster, or its scheduler file *.json (default: a cluster of this machine).",
        ),
    ] = None,
    allow_uneven: AllowUneven = False,
    allow_missing: AllowMissing = False,
    region: RegionPattern = "",
    series_uid: SeriesUids = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write no store.")
    ] = False,
    json: Json = False,
    max_failures: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Stop when more than N cases are refused.")
    ] = None,
) -> int:
    """Crop, mask and resample the nodules of an archive into a store; run again to resume.

    Exit code 0: all cases done, 8: some refused (each is named), 4: all refused, 3: nothing found,
    75: interrupted.
    """
    from toolkit.archive.catalog import default_labels
    from toolkit.archive.dicom_series import SeriesRules
    from toolkit.archive.index_cache import default_folder
    from toolkit.archive.region_rule import RegionRule
    from toolkit.device import resolve
    from toolkit.memory import cores
    from toolkit.preprocess.identity import load_key
    from toolkit.preprocess.job import Job
    from toolkit.preprocess.plan import Settings, default_margin
    from toolkit.preprocess.run import preprocess as run

    if scheduler is not None and engine != "dask":
        raise typer.BadParameter("needs --engine dask", param_hint="--scheduler")
    labels = labels or default_labels(archive, cases)
    part, parts = (int(number) for number in shard.split("/"))
    settings = Settings(
        spacing_mm=spacing,
        size=size,
        margin=default_margin(size, spacing) if margin is None else margin,
        min_diameter_mm=min_diameter,
        rules=SeriesRules(allow_uneven, allow_missing),
        regions=RegionRule(region),
        label_source="own" if labels is None else "table",
    )
    job = Job(
        archive=archive,
        store=store,
        id_key=load_key(id_key),
        manifest=cases,
        labels=labels,
        settings=settings,
        workers=workers or cores(),
        worker_memory=gib(worker_memory),
        device=resolve(device) if engine == "local" else device,
        index_cache=index_cache or default_folder(),
        part=(part, parts),
        dry_run=dry_run,
        max_failures=max_failures,
        series_uids=tuple(series_uid or ()),
        engine=engine,
        scheduler=scheduler,
    )
    summary = run(job)
    if json:
        print_json(_as_json(summary, settings))
    else:
        _show(summary, settings, store, dry_run)
    return summary.exit_code


def _as_json(summary: "Summary", settings: "Settings") -> dict[str, Any]:
    from toolkit.preprocess.plan import stored_bytes

    plain = {k: v for k, v in vars(summary).items() if k not in ("failures", "files", "outcomes")}
    return {
        **plain,
        "outcomes": [outcome._asdict() for outcome in summary.outcomes],
        "failures": [{"case_id": c, "code": p.code, "problem": str(p)} for c, p in summary.failures],
        "files": [{"code": p.code, "files": list(p.files), "problem": str(p)} for p in summary.files],
        "settings": settings.resolved(),
        "store_bytes": stored_bytes(summary.nodules, settings),
        "exit_code": summary.exit_code,
    }


def _show(summary: "Summary", settings: "Settings", store: Path, dry_run: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from toolkit.preprocess.plan import stored_bytes

    talk = Console(stderr=True, soft_wrap=True, highlight=False)
    tell_refusals(summary)
    if summary.stopped:
        talk.print("stopped by --max-failures; run the same command again to resume")
    table = Table("", "", box=None, show_header=False)
    table.add_row("cases", str(summary.cases))
    table.add_row("  finished before", str(summary.resumed))
    if not dry_run:
        table.add_row("  done", str(summary.done))
        table.add_row("  empty", str(summary.empty))
    table.add_row("  refused", str(sum(summary.refused.values())))
    for code, count in summary.refused.items():
        table.add_row(f"    {code}", str(count))
    table.add_row("other files refused", str(len(summary.files)))
    per_nodule = stored_bytes(1, settings)
    crop = f"{settings.side}^3 voxels of {settings.spacing_mm:g} mm, margin {settings.margin} on each side"
    table.add_row("crop", f"{crop}, {per_nodule / 1e6:.2f} MB")
    if not dry_run:
        table.add_row("nodules", f"{summary.nodules}, {stored_bytes(summary.nodules, settings) / 1e9:.3f} GB")
        table.add_row("store", str(store))
    table.add_row("seconds", f"{summary.seconds['total']:.2f} ({summary.seconds['index']:.2f} of it index)")
    Console().print(table)
