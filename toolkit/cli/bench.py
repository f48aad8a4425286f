"""``toolkit bench``: how fast every stage runs here, of what the machine can do, and what to set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from toolkit.cli.bench_shown import show_comparison, show_report
from toolkit.cli.guard import guarded, print_json
from toolkit.cli.options import Json

if TYPE_CHECKING:
    from toolkit.bench.setting import Sizes
    from toolkit.bench.stopwatch import Effort

NAMES = ("read", "extract", "preprocess", "augment", "loader", "model", "train", "pipeline")
COMPARE = "compare"


@guarded
def bench(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="STAGE... | compare A B",
            help=f"Stages to measure, of {', '.join(NAMES)}; all by default. Or two records to compare, "
            "or two commits of the repository here, which are measured in turns.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer sizes and measurements: minutes.")] = False,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="What is measured.")] = "auto",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Try torch.compile on a CPU, too; it compiles for minutes.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Add the figures to a file, one JSON line each; in a folder the file is named by device, "
            "date and commit.",
        ),
    ] = None,
    write_config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Save the recommended settings for toolkit train --config."),
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="With compare and commits: the stages; may be repeated (extract)."),
    ] = None,
    band: Annotated[
        float | None,
        typer.Option(min=0, metavar="SHARE", help="With compare: the least change that counts (0.05)."),
    ] = None,
    json: Json = False,
) -> int:
    """Measure every stage on data made here; first each is checked to give right numbers.

    Exit code 0: done, or nothing changed; 1: wrong numbers and no speed, or a change beyond the noise; 2:
    impossible, and why.
    """
    asked = words or ["all"]
    if asked[0] == COMPARE:
        if quick or compiled or out or write_config or device != "auto":
            raise typer.BadParameter("takes --stage, --band and --json alone", param_hint=COMPARE)
        return _compare(asked[1:], band, stage, json=json)
    if band is not None or stage:
        raise typer.BadParameter("means nothing without compare", param_hint="--band, --stage")
    names = _stages(asked)
    if write_config and not {"train", "loader"} & {*names}:
        raise typer.BadParameter("needs the stages train or loader, or all", param_hint="--write-config")
    return _measure(names, device, quick, compiled, out, write_config, json=json)


def _stages(asked: list[str]) -> list[str]:
    wrong = [word for word in asked if word not in (*NAMES, "all")]
    if wrong:
        known = f"one of {', '.join(NAMES)}, all or compare"
        raise typer.BadParameter(f"{wrong[0]!r} is no stage; {known}", param_hint="STAGE")
    return [name for name in NAMES if name in asked or "all" in asked]


def _measure(
    names: list[str],
    device: Literal["auto", "cpu", "cuda"],
    quick: bool,
    compiled: bool,
    out: Path | None,
    write_config: Path | None,
    *,
    json: bool,
) -> int:
    import tempfile

    from rich.console import Console

    from toolkit.bench.advice import write_config as write
    from toolkit.bench.record import append, default_path
    from toolkit.bench.run import run
    from toolkit.bench.setting import Bench
    from toolkit.device import resolve

    talk = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    kind = resolve(device)
    with tempfile.TemporaryDirectory(prefix="toolkit-bench-") as folder:
        sizes, effort = _how(kind, quick)
        made = Bench(kind, Path(folder), sizes, effort, compiled, say=talk.print)
        report = run(names, made)
    if json:
        print_json(report.to_json(made))
    else:
        show_report(report)
    if out is not None:
        path = default_path(out, kind) if out.is_dir() else out
        append(report.figures, path, kind)
        talk.print(f"record: {path}")
    if write_config is not None:
        write(write_config, report.advice)
        talk.print(f"settings: {write_config}")
    return 0


def _how(kind: Literal["cpu", "cuda"], quick: bool) -> "tuple[Sizes, Effort]":
    """Return sizes and patience for a device."""
    from toolkit.bench import setting
    from toolkit.bench.stopwatch import Effort

    if kind == "cuda":
        return (setting.QUICK_GPU, Effort(10, 0.5, 3)) if quick else (setting.FULL_GPU, Effort(30, 2.0, 3))
    return (setting.QUICK, Effort(5, 0.5)) if quick else (setting.FULL, Effort(10, 2.0))


def _compare(sides: list[str], band: float | None, stage: list[str] | None, *, json: bool) -> int:
    from dataclasses import asdict

    from rich.console import Console

    from toolkit.bench.compare import LEAST, compare
    from toolkit.bench.live import bench_words, live

    if len(sides) != 2:
        raise typer.BadParameter("needs two records or two commits, A and B", param_hint=COMPARE)
    a, b = sides
    least = LEAST if band is None else band
    if stage or not (Path(a).exists() or Path(b).exists()):
        talk = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
        found = live(Path.cwd(), (a, b), bench_words(_stages(stage or ["extract"])), least, talk.print)
    else:
        found = compare(Path(a), Path(b), least)
    if json:
        print_json(asdict(found) | {"changed": found.changed})
    else:
        show_comparison(found)
    return int(found.changed)
