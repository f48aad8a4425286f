"""A training step recorded as one CUDA graph: a thousand launches become one.

It pays where launches, not arithmetic, take the time: small batches, small patches. Off unless asked for
(``compute.graph``).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from toolkit.errors import Problem, UsageError
from toolkit.training.config import Compute
from toolkit.training.precision import Decision

if TYPE_CHECKING:
    import torch

WARM = 3
"""Steps before the recorded one, in which libraries pick algorithms and a compiler compiles."""
RECORD_THEMSELVES = ("reduce-overhead", "max-autotune")


def with_graph(compute: Compute, kind: Literal["cpu", "cuda"], decision: Decision, ranks: int) -> Decision:
    """Return the decision, with `graph` where it is asked for.

    Raises `UsageError` E-CONF-002 where a step cannot be recorded: on a CPU, over several ranks, with
    float16, whose scaler skips steps, and with compilers that record graphs themselves.
    """
    if not compute.graph:
        return decision
    reasons = {
        "there is no GPU": kind != "cuda",
        f"{ranks} ranks wait for each other within a step": ranks > 1,
        "float16 skips steps": decision.amp == "float16",
        f"compile {decision.compile} records graphs itself": decision.compile in RECORD_THEMSELVES,
    }
    for reason, holds in reasons.items():
        if holds:
            expected = "one GPU; bfloat16 or float32; compile off, default or max-autotune-no-cudagraphs"
            action = "Nothing trained; set compute.graph to false"
            problem = Problem("E-CONF-002", "this step cannot be recorded", reason, expected, action)
            raise UsageError(problem)
    return replace(decision, graph=True, why=f"{decision.why}; steps are recorded")


class Recorded:
    """A step as one graph, for batches of one shape; called, it copies a batch in and replays.

    Parameters
    ----------
    step
        Moves by a batch and returns a tensor. It finds all it changes where it was, waits for nothing on the
        device, and leaves gradients behind.
    optimizer
        The step's; ``capturable``.
    state
        What the step changes besides the optimiser's state. Recording changes nothing.
    batch
        The first batch. Its shapes and layouts are those of all.
    """

    def __init__(
        self,
        step: "Callable[..., torch.Tensor]",
        optimizer: "torch.optim.Optimizer",
        state: "Sequence[torch.Tensor]",
        batch: "Sequence[torch.Tensor]",
    ) -> None:
        import torch

        self._batch = [each.clone() for each in batch]
        self._graph = torch.cuda.CUDAGraph()
        with unchanged(optimizer, state):
            here, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                for _ in range(WARM):
                    step(*self._batch)
            here.wait_stream(aside)
            optimizer.zero_grad(set_to_none=True)  # so that the graph owns the memory of gradients
            # other threads may go on loading
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._result = step(*self._batch)

    def __call__(self, *batch: "torch.Tensor") -> "torch.Tensor":
        """Move by a batch; what is returned is overwritten by the next. `ValueError` on another shape."""
        for there, here in zip(self._batch, batch, strict=True):
            if there.shape != here.shape:
                raise ValueError(f"recorded for {tuple(there.shape)}, given {tuple(here.shape)}")
            there.copy_(here)
        self._graph.replay()
        return self._result


@contextmanager
def unchanged(optimizer: "torch.optim.Optimizer", state: "Sequence[torch.Tensor]") -> Iterator[None]:
    """Give the tensors of `state` and of the optimiser their values back, in place.

    State that the optimiser did not have before becomes 0, which is how Adam's begins.
    """
    import torch

    def of_optimizer() -> list[torch.Tensor]:
        return [value for each in optimizer.state.values() for value in each.values()]

    kept = [(each, each.clone()) for each in (*state, *of_optimizer())]
    yield
    known = {id(each) for each, _ in kept}
    with torch.no_grad():
        for each in of_optimizer():
            if id(each) not in known:
                each.zero_()
        for each, before in kept:
            each.copy_(before)
