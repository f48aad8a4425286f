"""What each back end will use here, and why."""

from toolkit.doctor.facts import Facts
from toolkit.doctor.report import Finding


def backends(facts: Facts) -> list[Finding]:
    """Return what extraction, loader and training take with ``auto``."""
    return [extraction(facts), loader(facts), dali(facts), training(facts), compilation(facts)]


def extraction(facts: Facts) -> Finding:
    """Return who crops and resamples."""
    if facts.chosen.device == "cuda":
        return _used("extraction", "CUDA kernel on the GPU")
    return _used("extraction", f"CPU kernels ({facts.chosen.why_no_gpu})")


def loader(facts: Facts) -> Finding:
    """Return who makes the batches."""
    if facts.chosen.device == "cuda":
        return _used(
            "loader", "fused on the GPU, which keeps the store while half of its free memory holds it"
        )
    return _used("loader", f"fused on the CPU, {facts.machine.cores} threads")


def dali(facts: Facts) -> Finding:
    """Return whether the other loader could be asked for."""
    found = facts.software.versions.get("dali")
    if found is None:
        return Finding(
            "back ends",
            "loader dali",
            "note",
            "DALI is not installed",
            "--loader dali is refused; nothing else needs it",
            "install the extra cu12 or cu13; its CPU pipeline needs no GPU",
        )
    where = "GPU" if facts.chosen.device == "cuda" else "CPU"
    return _used("loader dali", f"DALI {found} on the {where}, where --loader dali asks for it")


def training(facts: Facts) -> Finding:
    """Return device and number type of training."""
    if not facts.chosen.amp:
        return Finding(
            "back ends",
            "training",
            "failed",
            facts.chosen.why,
            "nothing trains or predicts",
            "install torch anew",
        )
    device = "GPU" if facts.chosen.device == "cuda" else "CPU"
    return _used("training", f"{device}, {facts.chosen.why}")


def compilation(facts: Facts) -> Finding:
    """Return whether the network is compiled."""
    mode = facts.chosen.compile
    told = {"": "not known", "off": "off; --set compute.compile=default asks for it"}
    return _used("compile", told.get(mode, mode))


def _used(name: str, found: str) -> Finding:
    return Finding("back ends", name, "ok", found)
