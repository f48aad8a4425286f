"""``toolkit phantom``: write a synthetic chest archive with known answers."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.guard import guarded, print_json
from toolkit.cli.options import Json


class FormatChoice(StrEnum):
    """File formats of the archive."""

    DICOM = "dicom"
    NIFTI = "nifti"
    SEG = "seg"
    RTSTRUCT = "rtstruct"
    MHD = "mhd"
    NRRD = "nrrd"
    ENHANCED = "enhanced"


@guarded
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write; new, empty, or an older phantom.")],
    patients: Annotated[int, typer.Option(min=1, help="How many patients, each with 1 to 4 nodules.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Patient i depends on the seed and i alone.")] = 0,
    chosen: Annotated[
        list[FormatChoice] | None,
        typer.Option("--format", help="May be given again; patients are dealt over them in turn. All."),
    ] = None,
    spoil: Annotated[
        bool, typer.Option("--spoil/--no-spoil", help="Add cases with one defect each, and their fate.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the bytes do not depend on it.")] = 1,
    json: Json = False,
) -> int:
    """Write a synthetic chest archive with known answers.

    DICOM with LIDC XML, DICOM-SEG or RTSTRUCT, Enhanced CT, MHD with points, NRRD and NIfTI with masks.
    """
    import dataclasses

    from rich.console import Console

    from toolkit.phantom.archive import write_archive
    from toolkit.phantom.formats import FORMATS

    formats = tuple(dict.fromkeys(choice.value for choice in chosen or ())) or tuple(FORMATS)
    summary = write_archive(out, patients, seed, formats, workers, spoil=spoil)
    dealt = ", ".join(f"{count} {name}" for name, count in summary.formats.items())
    line = f"{out}: {patients} patients ({dealt}), {summary.nodules} nodules, {summary.malignant} malignant"
    line += f"; {summary.spoiled} spoiled cases" if spoil else ""
    Console(stderr=True).print(line, highlight=False, markup=False, soft_wrap=True)
    if json:
        print_json({"out": str(out), "seed": seed, **dataclasses.asdict(summary)})
    return 0
