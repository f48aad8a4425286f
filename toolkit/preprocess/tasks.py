"""A case as a worker's task, whichever engine sends it, and what comes back when the worker dies."""

from toolkit.archive.case import Case
from toolkit.archive.index_cache import IndexCache
from toolkit.errors import Problem
from toolkit.preprocess import cached_findings
from toolkit.preprocess.extract import Extracted, Task
from toolkit.preprocess.job import Job, Work
from toolkit.preprocess.pool import Lost, death


def task_of(job: Job, work: Work, cache: IndexCache, case_id: str) -> Task:
    """Return the task of a planned case; one that left the archive is refused by it."""
    case = work.cases.get(case_id)
    if case is None:
        action = "Left out; it returns when its files do"
        what = "planned case is no longer in the archive"
        gone = Problem("E-CASE-001", what, action=action, transient=True)
        case = Case(case_id, "", "", None, problem=gone)
    known = cached_findings.load(cache, case, job.settings)
    findings, notes = known if known is not None else (None, ())
    return Task(case, job.settings, findings, notes, job.device == "cuda")


def outcome_of(result: Extracted | Lost) -> Extracted:
    """Turn a dead worker or an unforeseen error into a refusal of its case."""
    if isinstance(result, Extracted):
        return result
    return Extracted(death(result))
