"""Machines for tests: one without a fault, to change one thing at a time."""

from dataclasses import replace
from typing import Any

from toolkit.doctor.facts import Facts, Software, Torch
from toolkit.doctor.report import Chosen, Driver, Gpu, Machine

H100 = Gpu("NVIDIA H100 80GB HBM3", (9, 0), 80 << 30)
SOUND = Facts(
    machine=Machine(
        system="Linux x86_64",
        cpu="a CPU",
        cores=16,
        quota_cores=None,
        vector_units=("AVX2", "AVX-512", "AVX512-BF16", "AMX"),
        memory_bytes=128 << 30,
        shared_memory_bytes=64 << 30,
        cache_free_bytes=100 << 30,
        encoding="UTF-8, utf-8",
    ),
    driver=Driver("580.65.06", (13, 0), 1),
    gpus=(H100,),
    torch=Torch(
        cuda="12.8",
        cudnn=91501,
        arches=("sm_80", "sm_90", "compute_90"),
        threads=16,
        sees_gpu=True,
        bfloat16_error=0.003,
    ),
    software=Software(
        versions={
            "torch": "2.13.0+cu128",
            "pydicom": "3.0.2",
            "python-gdcm": "3.2.6",
            "cudnn": "9.15.1",
            "dali": "2.4.0",
            "dataclasses": None,
        },
        builds=("cupy-cuda12x", "nvidia-dali-cuda120"),
        numba_layers=("tbb", "omp", "workqueue"),
    ),
    chosen=Chosen("cuda", "", "bfloat16", "default", "bfloat16 (compute capability 9.0), compiled"),
)


def changed(room: str, **fields: Any) -> Facts:
    """Return the sound machine with other fields of one part."""
    return replace(SOUND, **{room: replace(getattr(SOUND, room), **fields)})


def with_version(**versions: str | None) -> Facts:
    """Return the sound machine with other versions; an underscore stands for a hyphen."""
    named = {name.replace("_", "-"): version for name, version in versions.items()}
    return changed("software", versions={**SOUND.software.versions, **named})
