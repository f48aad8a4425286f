"""The loader that was asked for, or the one that fits, and why."""

from typing import Literal

from toolkit.device import Device, resolve
from toolkit.loading.batch import Loader
from toolkit.loading.plan import Plan, choose

SHARE_FOR_STORE = 0.5  # of a GPU's free memory: the model, its gradients and its activations need the rest


def open_loader(
    plan: Plan,
    loader: Literal["auto", "fused", "dali"] = "auto",
    device: Device = "auto",
    threads: int | None = None,
) -> Loader:
    """Return the loader of a plan; its `reason` says which it is and why.

    Parameters
    ----------
    plan
        What is read and what happens to it.
    loader
        ``auto`` and ``fused`` keep the store on the GPU where there is one and the store takes no more than
        half of its free memory; otherwise threads of the CPU read it where it lies.
    threads
        Of the CPU; all cores when None.

    Raises
    ------
    UsageError
        E-DEV-001 where a GPU is asked for and there is none, E-LOAD-021 where DALI is not installed,
        E-LOAD-022 on what DALI does not have.
    """
    where = resolve(device)
    free = 0
    if where == "cuda" and loader != "dali":
        import torch

        free = int(SHARE_FOR_STORE * torch.cuda.mem_get_info()[0])
    kind, reason = choose(plan, loader, where, free)
    if kind == "dali":
        from toolkit.loading.dali import DaliLoader

        return DaliLoader(plan, device=where, threads=threads)
    if kind == "fused-cuda":
        from toolkit.loading.resident import ResidentLoader

        return ResidentLoader(plan, reason=reason)
    from toolkit.loading.fused import FusedLoader

    return FusedLoader(plan, threads=threads, reason=reason)
