"""What to set, and why, out of the figures of ``preprocess``, ``loader``, ``train`` and ``pipeline``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toolkit.bench.pipeline import FED
from toolkit.bench.record import Figure
from toolkit.bench.train import COMPILING, STEP
from toolkit.bench.transfers import FORMS
from toolkit.bench.workers import NAME as WORKERS
from toolkit.errors import Problem, UsageError
from toolkit.store.files import write_atomic
from toolkit.training.config import TrainConfig, read_config

LEAST_GAIN = 0.03
"""A setting is changed for a median that is 3 % faster and a spread that does not overlap, not for less."""
STARVED = 90.0
"""Per cent of the resident rate below which the loader is what a step waits for."""
KEYS = {
    "batch": "batch",
    "amp": "compute.amp",
    "compile": "compute.compile",
    "channels_last": "compute.channels_last",
    "impl": "compute.impl",
    "threads": "compute.threads",
}
FLAGS = {"loader": "toolkit train --loader", "workers": "toolkit preprocess --workers"}
"""What is no setting of a configuration."""
ENOUGH = 0.95
"""Fewer threads that are so fast as all are named."""


@dataclass(frozen=True)
class Advice:
    """One recommendation.

    Attributes
    ----------
    key, value
        A setting of `toolkit.training.config`, ``loader``, or ``workers``, which is a flag of ``toolkit
        preprocess``; `key` is empty for a remark.
    changed
        Whether it is another value than ``toolkit train`` takes by itself.
    why
        The figures behind it, in a sentence.
    """

    key: str
    value: Any
    changed: bool
    why: str

    @property
    def flag(self) -> str:
        """What to give to the command; empty for a remark and for what it takes anyway."""
        if not self.key or not self.changed:
            return ""
        return f"--{self.key} {self.value}" if self.key in FLAGS else f"--set {self.key}={_toml(self.value)}"


def advise(figures: Iterable[Figure]) -> list[Advice]:
    """Return what follows from the figures; each setting is judged with all others as they are."""
    by_name = {each.name: each for each in figures}
    found: list[Advice] = []
    base = by_name.get(STEP)
    if base is not None:
        for name, key in KEYS.items():
            others = [f for f in by_name.values() if f.name.startswith(f"{STEP}, {name}=")]
            if others:
                found.append(_setting(name, key, base, others))
        found = [_with_compile_time(each, by_name) for each in found]
    fused = by_name.get("loader/fused")
    if fused is not None:
        dali = [f for f in by_name.values() if f.name == "loader/dali"]
        found.append(_setting("loader", "loader", fused, dali))
        found += _threads(fused, [f for f in by_name.values() if f.name.startswith("loader/fused, threads=")])
    usual = by_name.get(WORKERS)
    if usual is not None:
        fewer = [f for f in by_name.values() if f.name.startswith(f"{WORKERS}, workers=")]
        found.append(_setting("workers", "workers", usual, fewer))
    found += _transfers([by_name[name] for form in FORMS if (name := f"extract/{form}") in by_name])
    if FED in by_name:
        found.append(_remark(by_name[FED]))
    return found


def _setting(name: str, key: str, base: Figure, others: Sequence[Figure]) -> Advice:
    """Judge one setting; of batches that are equally fast the smaller is taken."""
    usual = base.config[name]
    better = [f for f in others if f.p50 > base.p50 * (1 + LEAST_GAIN) and f.p20 > base.p80]
    if name == "batch":
        best = max((base, *others), key=lambda f: f.p50)
        level = [f for f in (base, *others) if f.p50 >= best.p50 * (1 - LEAST_GAIN) or f.p80 >= best.p20]
        chosen = base if base in level and not better else min(level, key=lambda f: int(f.config["batch"]))
    else:
        chosen = max(better, key=lambda f: f.p50, default=base)
    rates = ", ".join(
        f"{_toml(f.config[name])}: {f.p50:,.4g}" for f in (base, *sorted(others, key=lambda f: f.name))
    )
    if not others:
        why = f"nothing else is installed; {rates} {base.unit}"
    elif chosen is base:
        why = f"nothing tried is faster beyond the noise; {rates} {base.unit}"
    else:
        why = f"{chosen.p50 / base.p50:.2f}x of {_toml(usual)}; {rates} {base.unit}"
    return Advice(key, chosen.config[name], chosen is not base, why)


def _threads(all_of_them: Figure, others: Sequence[Figure]) -> list[Advice]:
    """Say how many threads of the loader are enough; ``toolkit train`` gives it all of its cores."""
    if not others:
        return []
    every = sorted((*others, all_of_them), key=lambda f: int(f.config["threads"]))
    enough = next(f for f in every if f.p50 >= ENOUGH * all_of_them.p50)
    rates = ", ".join(f"{f.config['threads']}: {f.p50:,.4g}" for f in every)
    what = f"{enough.config['threads']} threads of the fused loader are as fast as any"
    return [Advice("", None, False, f"{what}; {rates} {all_of_them.unit}")]


def _transfers(forms: Sequence[Figure]) -> list[Advice]:
    """Say what pinned memory and streams would bring to extraction on this GPU."""
    if len(forms) < 2:
        return []
    plain, best = forms[0], max(forms[1:], key=lambda f: f.p50)
    gain = best.p50 > plain.p50 * (1 + LEAST_GAIN) and best.p20 > plain.p80
    rates = ", ".join(f"{f.name.removeprefix('extract/')}: {f.p50:,.4g}" for f in forms)
    what = (
        f"{best.name.removeprefix('extract/with transfers, ')}: {best.p50 / plain.p50:.2f}x the plain copies"
    )
    verdict = what if gain else "neither pinned memory nor a second stream gains beyond the noise"
    return [Advice("", None, False, f"extraction and its copies, {verdict}; {rates} {plain.unit}")]


def _with_compile_time(advice: Advice, by_name: Mapping[str, Figure]) -> Advice:
    """Say what compiling costs once, where it is recommended anew."""
    cost = by_name.get(f"{COMPILING}, compile={advice.value}")
    if advice.key != KEYS["compile"] or cost is None:
        return advice
    return replace(advice, why=f"{advice.why}; compiling takes {cost.p50:.0f} s once a run")


def _remark(fed: Figure) -> Advice:
    if fed.p50 >= STARVED:
        why = f"the loader keeps up: steps that it feeds run at {fed.p50:.0f} % of steps on a resident batch"
    else:
        why = (
            f"steps wait for the loader: fed, they run at {fed.p50:.0f} % of steps on a resident batch; "
            "a GPU with room for the store, more cores, or a lighter augmentation would help"
        )
    return Advice("", None, False, why)


def write_config(path: Path, advice: Sequence[Advice]) -> TrainConfig:
    """Write a file for ``toolkit train --config`` that says why of every line, and return what it says.

    Threads stand in it only where fewer are faster: otherwise the machine of the run decides.

    Raises `UsageError` E-BENCH-004 where no setting was tried.
    """
    told = [each for each in advice if each.key]
    if not [each for each in told if each.key != "workers"]:
        action = "Nothing written; run the stages train and loader, or all"
        raise UsageError(Problem("E-BENCH-004", "no setting was tried", action=action))
    lines = ["# Written by toolkit bench: settings for this machine and the sizes that were measured."]
    for each in (a for a in told if "." not in a.key and a.key not in FLAGS):
        lines += [f"# {each.why}", f"{each.key} = {_toml(each.value)}"]
    for each in (a for a in told if a.key in FLAGS):
        lines += [f"# a flag, not a setting: {FLAGS[each.key]} {each.value}", f"# {each.why}"]
    grouped = [a for a in told if a.key.startswith("compute.") and (a.changed or a.key != KEYS["threads"])]
    lines += ["", "[compute]"] if grouped else []
    for each in grouped:
        lines += [f"# {each.why}", f"{each.key.removeprefix('compute.')} = {_toml(each.value)}"]
    write_atomic(path, ("\n".join(lines) + "\n").encode())
    return read_config(path)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
