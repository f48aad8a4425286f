"""Which of the two ways to compute our networks a run takes: plain or fast (`toolkit.models.fast`).

Their numbers are the same to rounding, so this may be a race; but last bits differ, so a run that goes on
takes what it took before.
"""

import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from toolkit.errors import Problem, UsageError
from toolkit.training.config import TrainConfig
from toolkit.training.precision import Decision, Impl
from toolkit.training.ranks import Ranks
from toolkit.training.run_folder import RunFolder

if TYPE_CHECKING:
    from toolkit.training.job import Job

GAIN = 0.03
"""The fast one is taken for a median step that is 3 % shorter, not for less."""
WARM, STEPS = 3, 7


def choose(
    config: TrainConfig,
    kind: Literal["cpu", "cuda"],
    decision: Decision,
    before: tuple[Impl, str] | None,
    trial: "Trial",
) -> Decision:
    """Return the decision with the way that is taken, and why.

    ``auto`` takes what an interrupted run took `before`, for the reason it gave then; for our networks on a
    GPU what `trial` shows; plain otherwise.

    Raises `UsageError` E-CONF-002 where fast is asked for and the network is not ours.
    """
    from toolkit.models.densenet import SIZES

    impl, ours = config.compute.impl, config.model.name in SIZES
    if impl == "fast" and not ours:
        measured, action = (
            f"model.name {config.model.name!r:.60}",
            "Nothing trained; set compute.impl to plain",
        )
        problem = Problem(
            "E-CONF-002", "only our networks have a fast twin", measured, ", ".join(SIZES), action
        )
        raise UsageError(problem)
    if impl != "auto":
        return told(decision, impl, "was asked for")
    if not ours:
        return decision
    if before is not None:
        return told(decision, *before)
    if kind == "cpu":
        return told(decision, "plain", "the fast twin is made for GPUs")
    return told(decision, *trial(decision))


Trial = Callable[[Decision], tuple[Impl, str]]


def told(decision: Decision, impl: Impl, why: str) -> Decision:
    """Return a decision with the way that is taken."""
    return replace(decision, impl=impl, impl_why=why, why=f"{decision.why}; {impl} network ({why})")


def taken_before(run: RunFolder) -> tuple[Impl, str] | None:
    """Return the way that an interrupted run took and why, None for a new one."""
    for path in (run.environment, *sorted(run.path.glob("folds/*/environment.json"))):
        try:
            found = json.loads(path.read_text("utf-8"))
            before, why = found["impl"], str(found["impl_why"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if before in ("plain", "fast"):
            return ("fast" if before == "fast" else "plain"), why
    return None


def race(job: "Job", decision: Decision) -> tuple[Impl, str]:
    """Return the faster way of a GPU's training step, and why; steps in turn, after each has compiled."""
    import torch

    steps: dict[Impl, Callable[[], float]] = {}
    first: Impl = "plain"
    for impl in (first, "fast"):
        try:
            steps[impl] = _step(job, replace(decision, impl=impl))
            for _ in range(WARM):
                steps[impl]()
        except Exception as error:  # memory, a driver, a compiler: whatever keeps it from running here
            if impl == "plain":
                raise
            return "plain", f"the fast one does not run here: {type(error).__name__}: {str(error)[:120]}"
    taken: dict[Impl, list[float]] = {impl: [] for impl in steps}
    for _ in range(STEPS):
        for impl, step in steps.items():
            taken[impl].append(step())
    steps.clear()
    gc.collect()
    torch.cuda.empty_cache()
    return verdict(taken["plain"], taken["fast"])


def verdict(plain: list[float], fast: list[float]) -> tuple[Impl, str]:
    """Return which is taken for seconds of steps, and why."""
    before, after = statistics.median(plain), statistics.median(fast)
    why = f"a step takes {1e3 * after:.1f} ms fast, {1e3 * before:.1f} ms plain"
    return ("fast" if after < (1 - GAIN) * before else "plain"), why


def agreed(decision: Decision, ranks: Ranks) -> Decision:
    """Return rank 0's decision."""
    if ranks.ranks > 1:
        from torch import distributed

        found = [decision]
        distributed.broadcast_object_list(found, 0)
        return found[0]
    return decision


def _step(job: "Job", decision: Decision) -> Callable[[], float]:
    """Return a training step on noise that tells its seconds."""
    import torch

    machine = replace(job.machine, decision=decision, ranks=Ranks(local=job.machine.ranks.local))
    learner = replace(job, machine=machine).learner()
    device, size = machine.device, job.size
    batch = job.config.batch // job.machine.ranks.ranks
    image = torch.rand(batch, job.channels, size, size, size, device=device, dtype=decision.dtype)
    image = image.contiguous(memory_format=torch.channels_last_3d)
    target = (torch.arange(batch, device=device) % 2).float()
    features = None if job.measured is None else torch.zeros(batch, job.measured.shape[1], device=device)

    def step() -> float:
        torch.cuda.synchronize(device)
        begun = time.perf_counter()
        learner.step(0, 0, image, target, features)
        torch.cuda.synchronize(device)
        return time.perf_counter() - begun

    return step
