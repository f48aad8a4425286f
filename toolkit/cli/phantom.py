"""``toolkit phantom``: write a synthetic chest archive with known answers."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.guard import guarded, print_json
from toolkit.cli.options import Json


class FormatChoice(StrEnum):
    """File formats of the archive."""

    MIXED = "mixed"
    DICOM = "dicom"
    NIFTI = "nifti"


@guarded
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write; new, empty, or an older phantom.")],
    patients: Annotated[int, typer.Option(min=1, help="How many patients, each with 1 to 4 nodules.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Patient i depends on the seed and i alone.")] = 0,
    file_format: Annotated[
        FormatChoice, typer.Option("--format", help="One format, or patients dealt over all in turn.")
    ] = FormatChoice.MIXED,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the bytes do not depend on it.")] = 1,
    json: Json = False,
) -> int:
    """Write a synthetic chest archive with known answers: DICOM with LIDC XML, NIfTI with masks."""
    import dataclasses

    from rich.console import Console

    from toolkit.phantom.archive import FORMATS, write_archive

    formats = tuple(FORMATS) if file_format is FormatChoice.MIXED else (file_format.value,)
    summary = write_archive(out, patients, seed, formats, workers)
    dealt = ", ".join(f"{count} {name}" for name, count in summary.formats.items())
    line = f"{out}: {patients} patients ({dealt}), {summary.nodules} nodules, {summary.malignant} malignant"
    Console(stderr=True).print(line, highlight=False, markup=False, soft_wrap=True)
    if json:
        print_json({"out": str(out), "seed": seed, **dataclasses.asdict(summary)})
    return 0
