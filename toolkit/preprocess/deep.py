"""All cases of an archive judged by their voxels and masks, in worker processes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from toolkit.archive.case import Case
from toolkit.archive.deep import Judged, judge_case
from toolkit.archive.region_rule import RegionRule
from toolkit.preprocess.pool import Lost, Pool, death
from toolkit.progress import bar


def judge_all(
    pool: Pool[Any, Any], cases: Sequence[Case], min_diameter_mm: float, rule: RegionRule
) -> list[Judged]:
    """Return what became of each case, in order; a worker that dies costs its own case alone."""
    judged: list[Judged] = [Judged(case) for case in cases]
    with bar("deep", len(cases), "series") as advance:
        for number, result in pool.map(judge_case, [(case, min_diameter_mm, rule) for case in cases]):
            if isinstance(result, Lost):
                judged[number] = Judged(replace(cases[number], problem=death(result)))
            else:
                judged[number] = result
            advance(1, judged[number].bytes_read)
    return judged
