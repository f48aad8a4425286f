"""From a raw archive to predictions: preprocessing by the model's contract, then the model."""

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.region_rule import RegionRule
from toolkit.errors import NothingFoundError, Problem, UsageError
from toolkit.inference.predictor import LoaderName, Predictor, check_prevalence, predict_store
from toolkit.inference.scores import Scores
from toolkit.models.folder import InputContract
from toolkit.preprocess.crosswalk import read_crosswalk
from toolkit.preprocess.identity import IdKey
from toolkit.preprocess.job import Job, Summary
from toolkit.preprocess.plan import Settings
from toolkit.preprocess.run import preprocess
from toolkit.progress import bar
from toolkit.store import Store


@dataclass(frozen=True)
class Source:
    """An archive, and how it is read; fields as ``toolkit preprocess`` has them.

    `keep_store` is where the crops stay, so that the same call resumes; None keeps nothing.
    """

    archive: Path
    id_key: IdKey
    keep_store: Path | None = None
    manifest: Path | None = None
    min_diameter_mm: float = 3.0
    rules: SeriesRules = field(default_factory=SeriesRules)
    regions: RegionRule = field(default_factory=RegionRule)
    series_uids: tuple[str, ...] = ()
    workers: int = 1
    worker_memory: int | None = None
    index_cache: Path | None = None


class Name(NamedTuple):
    """What a case is called in the archive; a DICOM series that was found by itself is called by its UID."""

    case_name: str
    patient_name: str
    image: str


@dataclass(frozen=True, eq=False)
class Answer:
    """What became of an archive.

    Attributes
    ----------
    scores
        None where no nodule could be read.
    summary
        Of preprocessing, which names every refused case; None for a ready store.
    names
        Of each hashed case, where they were asked for.
    """

    scores: Scores | None
    summary: Summary | None = None
    names: Mapping[str, Name] | None = None

    @property
    def exit_code(self) -> int:
        """0 done, 8 some cases refused, 4 nothing could be predicted and something was refused."""
        return 0 if self.summary is None else self.summary.exit_code


def settings_of(contract: InputContract, source: Source) -> Settings:
    """Return the settings of preprocessing that give a model the crops it was trained on.

    The crop is the patch, with a margin only where a softened mask reaches in from outside of it.
    """
    edge = math.ceil(contract.edge_mm / contract.spacing_mm) + 1 if contract.edge_mm else 0
    return Settings(
        spacing_mm=contract.spacing_mm,
        size=contract.size + contract.half_voxel,
        margin=edge,
        min_diameter_mm=source.min_diameter_mm,
        rules=source.rules,
        regions=source.regions,
    )


def predict_archive(
    predictor: Predictor,
    source: Source,
    *,
    loader: LoaderName = "auto",
    threads: int | None = None,
    prevalence: float | None = None,
    names: bool = False,
) -> Answer:
    """Predict every nodule of an archive; labels that it may hold are not read.

    Raises
    ------
    NothingFoundError
        E-CASE-004 where there is no case, E-PRED-003 where every scan was read and nothing is marked in any.
    UsageError
        As `predict_store`, and where preprocessing is impossible.
    """
    if prevalence is not None:
        check_prevalence(prevalence)
    with _folder(source.keep_store) as store:
        job = Job(
            archive=source.archive,
            store=store,
            id_key=source.id_key,
            manifest=source.manifest,
            settings=settings_of(predictor.file.input, source),
            workers=source.workers,
            worker_memory=source.worker_memory,
            device=predictor.device,
            index_cache=source.index_cache,
            series_uids=source.series_uids,
        )
        summary = preprocess(job)
        if not summary.nodules:
            if not summary.exit_code:
                raise _nothing(f"{summary.empty} scans are read, nothing is marked in them", source.archive)
            return Answer(None, summary)
        answer = predict_ready(
            predictor, store, loader=loader, threads=threads, prevalence=prevalence, names=names
        )
        return Answer(answer.scores, summary, answer.names)


def predict_ready(
    predictor: Predictor,
    path: Path,
    *,
    loader: LoaderName = "auto",
    threads: int | None = None,
    prevalence: float | None = None,
    names: bool = False,
) -> Answer:
    """Predict every nodule of a store that is there already.

    Raises `NothingFoundError` E-PRED-003 where it has none, `UsageError` E-PRED-005 where names are asked for
    and its crosswalk is not beside it; else as `predict_store`.
    """
    store = Store.open(path)
    if not len(store):
        raise _nothing("the store holds 0 nodules", path)
    named = names_of(store) if names else None
    with bar("predict", len(store) * len(predictor.models), "nodules") as advance:
        scores = predict_store(
            predictor, store, loader=loader, threads=threads, prevalence=prevalence, progress=advance
        )
    return Answer(scores, None, named)


def names_of(store: Store) -> dict[str, Name]:
    """Return what each case of a store is called; raises `UsageError` E-PRED-005 without a crosswalk."""
    try:
        found = read_crosswalk(store.path)
    except FileNotFoundError as error:
        what, action = "the store's crosswalk is not beside it", "Nothing predicted; leave --names out"
        raise UsageError(Problem("E-PRED-005", what, action=action, files=(str(store.path),))) from error
    names = {}
    for nodule in store.nodules:
        case, image = found.get(("case", nodule.case_id), ("", ""))
        names[nodule.case_id] = Name(case, found.get(("patient", nodule.patient_id), ("", ""))[0], image)
    return names


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Give the store's folder: the one to keep, or one that is private and gone afterwards."""
    if keep is not None:
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="toolkit-predict-") as folder:
        yield Path(folder) / "store"


def _nothing(measured: str, where: Path) -> NothingFoundError:
    action = "Nothing predicted; a nodule needs a mask or a point, and --cases names what no convention pairs"
    return NothingFoundError(
        Problem("E-PRED-003", "no nodule to predict", measured, "at least 1", action, (str(where),))
    )
