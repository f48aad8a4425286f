"""``toolkit doctor``: what this machine has, what will be used, and whether it computes what it should."""

from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.guard import guarded, print_json
from toolkit.cli.options import Json

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.doctor.report import Finding, Report

STYLES = {"ok": "green", "note": "cyan", "trap": "yellow", "failed": "bold red"}


@guarded
def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Compute nothing, decode nothing.")] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Try torch.compile, too; on a CPU that takes half a minute.")
    ] = False,
    json: Json = False,
) -> int:
    """Look at this machine: what it has, what each back end will use, known traps and their fixes.

    Each kernel, decoder and a training step computes something small and is compared with exact mathematics.
    Exit code 0: whatever is used computes what it should (notes and traps included), 1: something does not.
    """
    from dataclasses import asdict

    from rich.console import Console

    from toolkit.doctor.examine import examine

    if quick and compiled:
        raise typer.BadParameter("--quick computes nothing, --compile does: give one of them")
    with Console(stderr=True).status("looking (CPU kernels are compiled first, once: 20 s)"):
        report = examine(quick=quick, compiled=compiled)
    if json:
        print_json(asdict(report))
    else:
        _show(report)
    return report.exit_code


def _show(report: "Report") -> None:
    """Print the machine, then what was found group by group."""
    from rich.console import Console
    from rich.table import Table

    talk = Console(highlight=False)
    machine = Table("machine", "", box=None, pad_edge=False)
    for name, value in _machine(report):
        machine.add_row(name, value)
    talk.print(machine)
    for group in dict.fromkeys(finding.group for finding in report.findings):
        talk.print()
        talk.print(_table(group, [each for each in report.findings if each.group == group]))
    counts = {status: sum(each.status == status for each in report.findings) for status in STYLES}
    talk.print()
    talk.print(", ".join(f"{count} {status}" for status, count in counts.items() if count))


def _table(group: str, findings: "list[Finding]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(group, "", "", box=None, pad_edge=False)
    for each in findings:
        told = Text(each.found)
        for word, text in (("so", each.consequence), ("fix", each.fix)):
            if text:
                told.append(f"\n{word}: ", style="bold").append(text, style="not bold")
        table.add_row(each.name, Text(each.status, style=STYLES[each.status]), told)
    return table


def _machine(report: "Report") -> list[tuple[str, str]]:
    """Return name and value of what there is."""
    has, driver = report.machine, report.driver
    rows = [
        ("system", has.system),
        ("CPU", f"{has.cpu}, {has.cores} cores, {', '.join(has.vector_units) or 'no vector units named'}"),
        ("memory", _gib(has.memory_bytes)),
        ("shared memory", _gib(has.shared_memory_bytes)),
        ("disk", f"{_gib(has.cache_free_bytes)} free at the cache folder"),
    ]
    if driver is None:
        rows.append(("GPU", "none"))
    else:
        major, minor = driver.cuda
        rows.append(("driver", f"{driver.version}, for CUDA {major}.{minor}, {driver.gpus} GPUs"))
    for gpu in report.gpus:
        major, minor = gpu.compute_capability
        rows.append(("GPU", f"{gpu.name}, compute capability {major}.{minor}, {_gib(gpu.memory_bytes)}"))
    told = (f"{name} {found}" for name, found in report.versions.items() if found)
    return [*rows, ("versions", ", ".join(told))]


def _gib(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**30:.1f} GiB"
