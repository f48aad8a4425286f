"""Options that several commands share."""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

Archive = Annotated[Path, typer.Argument(help="Folder with CT scans: DICOM, MHD/MHA, NRRD or NIfTI.")]
Cases = Annotated[
    Path | None,
    typer.Option(metavar="CSV", help="Manifest that names the cases, instead of the usual conventions."),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="CSV",
        help="Labels, joined on case, nodule or position (default: the archive's labels.csv).",
    ),
]
IndexFolder = Annotated[
    Path | None,
    typer.Option(
        "--index-cache", metavar="DIR", help="Folder of the header index (default: the user's cache)."
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Worker processes (default: one for each processor).")
]
WorkerMemory = Annotated[
    float | None,
    typer.Option(
        "--worker-memory",
        min=0,
        metavar="GiB",
        help="Memory that a worker may take; a case that needs more is refused (default: an equal share of "
        "the machine's, at least 2; 0: any amount).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON on stdout.")]


def _pattern(text: str) -> str:
    """Check a regular expression."""
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise typer.BadParameter(f"is no regular expression: {error}") from error
    return text


RegionPattern = Annotated[
    str,
    typer.Option(
        "--region",
        metavar="PATTERN",
        callback=_pattern,
        help="Segments and structures to take: a regular expression over their names, in any case "
        "(default: all but anatomy and planning volumes).",
    ),
]
AllowUneven = Annotated[
    bool, typer.Option("--allow-uneven", help="Sample unevenly spaced slices where they are, not refuse.")
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Interpolate across missing slices, not refuse.")
]
SeriesUids = Annotated[
    list[str] | None,
    typer.Option("--series-uid", metavar="UID", help="Only this DICOM series; may be given several times."),
]
IdKeyText = Annotated[
    str | None,
    typer.Option(
        "--id-key",
        metavar="FILE",
        help="Key of the hashed ids: a file, or the key itself (default: the user's own).",
    ),
]
MinDiameter = Annotated[
    float, typer.Option(min=0, metavar="MM", help="Drop smaller components of binary masks.")
]
DeviceName = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Where the work is done.")
]
Prevalence = Annotated[
    float | None,
    typer.Option(
        "--prevalence",
        metavar="P",
        help="Share of malignant nodules where the model is used; probabilities follow it, decisions do not "
        "(default: the model's).",
    ),
]
AllowImport = Annotated[
    bool,
    typer.Option("--allow-import", help="Let the model name any installed network; it runs that code."),
]


def gib(size: float | None) -> int | None:
    """Return GiB as bytes."""
    return None if size is None else int(size * 2**30)
