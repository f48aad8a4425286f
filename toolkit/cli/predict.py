"""``toolkit predict``: from raw scans to probabilities and decisions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from toolkit.cli.guard import INTERRUPTED, fail, guarded, print_json
from toolkit.cli.options import (
    AllowImport,
    AllowMissing,
    AllowUneven,
    Cases,
    DeviceName,
    IdKeyText,
    IndexFolder,
    Json,
    MinDiameter,
    Prevalence,
    RegionPattern,
    SeriesUids,
    WorkerMemory,
    Workers,
    gib,
)
from toolkit.cli.plain import plain

if TYPE_CHECKING:
    from toolkit.inference.archive import Answer, Source
    from toolkit.inference.predictor import Predictor

SHOWN = 20


@guarded
def predict(
    model: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run, or its model folder.")],
    archive: Annotated[Path, typer.Argument(help="Folder with CT scans and marked nodules, or a store.")],
    out: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Where to write the table (default: stdout).")
    ] = None,
    prevalence: Prevalence = None,
    names: Annotated[
        bool,
        typer.Option(
            "--names", help="Add the archive's own names of case, patient and image; the file is private."
        ),
    ] = False,
    json: Json = False,
    device: DeviceName = "auto",
    amp: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"], typer.Option(help="Precision of the network.")
    ] = "auto",
    loader: Annotated[
        Literal["auto", "fused", "dali"], typer.Option(help="What makes the batches.")
    ] = "auto",
    workers: Workers = None,
    worker_memory: WorkerMemory = None,
    keep_store: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the crops there; the same command then resumes."),
    ] = None,
    cases: Cases = None,
    region: RegionPattern = "",
    series_uid: SeriesUids = None,
    index_cache: IndexFolder = None,
    id_key: IdKeyText = None,
    allow_uneven: AllowUneven = False,
    allow_missing: AllowMissing = False,
    min_diameter: MinDiameter = 3.0,
    allow_import: AllowImport = False,
) -> int:
    """Predict every marked nodule of an archive: probability, decision, and what to be wary of.

    Crops are made as the model's training had them. Labels are not used. Exit code 0: done, 8: some cases
    were refused (each is named), 4: all were, 3: nothing found, 2: model and data do not fit.
    """
    from toolkit.archive.dicom_series import SeriesRules
    from toolkit.archive.index_cache import default_folder
    from toolkit.archive.region_rule import RegionRule
    from toolkit.inference.archive import Source
    from toolkit.inference.model_folder import model_folder
    from toolkit.inference.predictor import open_predictor
    from toolkit.memory import cores
    from toolkit.preprocess.identity import load_key

    predictor = open_predictor(model_folder(model), device, amp, allow_import=allow_import)
    source = Source(
        archive=archive,
        id_key=load_key(id_key),
        keep_store=keep_store,
        manifest=cases,
        min_diameter_mm=min_diameter,
        rules=SeriesRules(allow_uneven, allow_missing),
        regions=RegionRule(region),
        series_uids=tuple(series_uid or ()),
        workers=workers or cores(),
        worker_memory=gib(worker_memory),
        index_cache=index_cache or default_folder(),
    )
    options = {"loader": loader, "threads": workers, "prevalence": prevalence, "names": names}
    answer = _answer(predictor, source, options)
    if json:
        print_json(_as_json(predictor, answer))
    _write(answer, out, shown=not json)
    _tell(answer, out)
    return answer.exit_code


def _answer(predictor: "Predictor", source: "Source", options: dict[str, Any]) -> "Answer":
    from toolkit.inference.archive import predict_archive, predict_ready

    if (source.archive / "store.json").is_file():
        return predict_ready(predictor, source.archive, **options)
    try:
        return predict_archive(predictor, source, **options)
    except KeyboardInterrupt:
        if source.keep_store is not None:
            raise
        fail("interrupted; nothing is kept (with --keep-store DIR the same command resumes)", INTERRUPTED)


def _rows(answer: "Answer") -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return a mapping a nodule, and its columns."""
    from toolkit.inference.archive import Name
    from toolkit.inference.scores import COLUMNS

    rows = answer.scores.rows() if answer.scores is not None else []
    if answer.names is None:
        return rows, COLUMNS
    named = [row | answer.names[row["case_id"]]._asdict() for row in rows]
    return named, (*COLUMNS, *Name._fields)


def _write(answer: "Answer", out: Path | None, *, shown: bool) -> None:
    """Write the table to its file, private where it holds names, or show it on stdout."""
    from toolkit.inference.scores import as_csv
    from toolkit.store.files import write_atomic

    if answer.scores is None:
        return
    text = as_csv(*_rows(answer))
    if out is not None:
        write_atomic(out, text.encode(errors="surrogateescape"), 0o600 if answer.names is not None else None)
    elif shown:
        typer.echo(text, nl=False)


def _tell(answer: "Answer", out: Path | None) -> None:
    """Say on stderr what was refused, by name, and which nodules to be wary of."""
    from rich.console import Console
    from rich.text import Text

    from toolkit.cli.refusals import tell_refusals

    talk = Console(stderr=True, soft_wrap=True, highlight=False)
    if answer.summary is not None:
        tell_refusals(answer.summary, shown=10**9)  # whoever predicts must know of every scan left out
    if answer.scores is None:
        talk.print("nothing predicted: no nodule could be read")
        return
    told = [
        (note.code, f"{nodule.nodule_id}: {note}")
        for nodule, notes in zip(answer.scores.nodules, answer.scores.notes, strict=True)
        for note in notes
    ]
    for _, line in sorted(told, key=lambda each: each[0])[:SHOWN]:
        talk.print(plain(line))
    if len(told) > SHOWN:
        talk.print(f"... and {len(told) - SHOWN} more warnings; --json lists all")
    where = "" if out is None else f", {out}"
    count = f"{len(answer.scores)} nodules, {int(answer.scores.decision.sum())} decided malignant"
    talk.print(Text(f"{count}, prevalence {answer.scores.prevalence:.3g}{where}"))


def _as_json(predictor: "Predictor", answer: "Answer") -> dict[str, Any]:
    scores, summary = answer.scores, answer.summary
    rows, _ = _rows(answer)
    if scores is not None:
        for row, notes in zip(rows, scores.notes, strict=True):
            row["notes"] = [note.public for note in notes]
    failures = () if summary is None else summary.failures
    files = () if summary is None else summary.files
    return {
        "model": predictor.digest,
        "threshold": predictor.file.threshold,
        "prevalence": None if scores is None else scores.prevalence,
        "nodules": rows,
        "empty": [] if summary is None else list(summary.empties),
        "refused": [{"case_name": c, "code": p.code, "problem": str(p)} for c, p in failures],
        "files": [{"code": p.code, "files": list(p.files), "problem": str(p)} for p in files],
        "exit_code": answer.exit_code,
    }
