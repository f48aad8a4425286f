"""The words and facts of an examination; `Report` is what ``toolkit doctor --json`` prints.

The JSON is `Report` field by field: its types are the schema (``pydantic.TypeAdapter(Report).json_schema()``
writes it out). `SCHEMA` rises when a field goes or changes its meaning. No path, no host name, no identifier.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

SCHEMA = 1

Status = Literal["ok", "note", "trap", "failed"]
Group = Literal["back ends", "transfer syntaxes", "self-test", "traps"]
_WORSE: tuple[Status, ...] = ("ok", "note", "trap", "failed")
_CLOSED: dict[str, Any] = {"extra": "forbid"}  # who validates with pydantic meets no unknown field


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    status
        ``ok``; ``note``: worth knowing, nothing to do; ``trap``: works, but slower, refused or unsafe;
        ``failed``: a back end that would be used does not compute what it should.
    found
        What was measured.
    consequence, fix
        Of a note, a trap or a failure; empty where there is none.
    """

    __pydantic_config__ = _CLOSED

    group: Group
    name: str
    status: Status
    found: str
    consequence: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Machine:
    """What the machine has, as this process may use it.

    Attributes
    ----------
    cores
        Processors that this process may run on.
    quota_cores
        What the container's CPU quota grants; None without one.
    vector_units
        ``AVX2``, ``AVX-512``, ``AVX512-BF16``, ``AMX``, ``NEON``, ``SVE``: those there are.
    memory_bytes
        The machine's, or the container's limit where that is lower.
    shared_memory_bytes, cache_free_bytes
        Size of /dev/shm; free space where compiled kernels and the header index lie. None where unknown.
    encoding
        Of text files and of file names.
    """

    __pydantic_config__ = _CLOSED

    system: str
    cpu: str
    cores: int
    quota_cores: float | None
    vector_units: tuple[str, ...]
    memory_bytes: int | None
    shared_memory_bytes: int | None
    cache_free_bytes: int | None
    encoding: str


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver, the newest CUDA that it runs, as (major, minor), and the GPUs that it shows."""

    __pydantic_config__ = _CLOSED

    version: str
    cuda: tuple[int, int]
    gpus: int


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch sees it."""

    __pydantic_config__ = _CLOSED

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int


@dataclass(frozen=True)
class Chosen:
    """What ``auto`` takes here.

    Attributes
    ----------
    device, why_no_gpu
        Of extraction, loader and training; why it is not the GPU, empty where it is.
    amp, compile, why
        Of training, as `toolkit.training.precision.decide` says; `amp` and `compile` are empty where it
        cannot.
    """

    __pydantic_config__ = _CLOSED

    device: Literal["cpu", "cuda"]
    why_no_gpu: str = ""
    amp: str = ""
    compile: str = ""
    why: str = ""


@dataclass(frozen=True)
class Syntax:
    """A compressed transfer syntax (PS3.5 A.4) and what became of its sample.

    ``decoded``: to the right pixels; ``present``: the decoder is there, no sample is; ``wrong``; ``missing``.
    """

    __pydantic_config__ = _CLOSED

    uid: str
    decoder: str
    outcome: Literal["decoded", "present", "wrong", "missing"]


@dataclass(frozen=True)
class Report:
    """A whole examination.

    Attributes
    ----------
    status
        The worst of all findings.
    versions
        Of what speed and last bits depend on; None where it is not installed.
    syntaxes
        Empty with ``--quick``, as are the findings of their group and of the self-test.
    """

    __pydantic_config__ = _CLOSED

    schema: int
    status: Status
    machine: Machine
    driver: Driver | None
    gpus: tuple[Gpu, ...]
    chosen: Chosen
    versions: dict[str, str | None]
    syntaxes: tuple[Syntax, ...]
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """1 where something failed; notes and traps are 0."""
        return int(self.status == "failed")


def worst(findings: Sequence[Finding]) -> Status:
    """Return the worst status of some findings."""
    return max((finding.status for finding in findings), key=_WORSE.index, default="ok")
