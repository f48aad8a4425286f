"""What the system says, read as it is written; and this machine against psutil."""

import os
from pathlib import Path

import psutil
import pytest

from toolkit.device import cpu_name
from toolkit.doctor.machine import driver_version, quota, read_machine, vector_units
from toolkit.doctor.software import cudnn_version
from toolkit.doctor.try_folders import judge_folders, writable
from toolkit.memory import memory

XEON = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8480+
flags\t\t: fpu sse2 avx avx2 avx512f avx512_bf16 amx_bf16 amx_tile amx_int8
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd sve bf16\n"


def test_vector_units() -> None:
    assert vector_units(XEON) == ("AVX2", "AVX-512", "AVX512-BF16", "AMX")
    assert vector_units(ARM) == ("NEON", "SVE")
    assert vector_units("flags\t\t: fpu avx avx512fp16") == ()
    assert vector_units("") == ()
    assert cpu_name(XEON) == "Intel(R) Xeon(R) Platinum 8480+"
    assert cpu_name(ARM) == cpu_name("") != ""
    assert cpu_name() != ""


@pytest.mark.parametrize(("text", "cores"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("", None)])
def test_quota(text: str, cores: float | None) -> None:
    assert quota(text) == cores


def test_memory_is_the_lower_of_machine_and_container() -> None:
    told = "MemTotal:       1000 kB\nMemFree:  10 kB\n"
    assert memory(told, "max\n") == 1_024_000
    assert memory(told, "4096\n") == 4096
    assert memory(told, "99999999999\n") == 1_024_000
    assert memory("", "") is None


def test_driver_version() -> None:
    """Both forms of /proc/driver/nvidia/version, proprietary and open."""
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Jul 30 22:54:11 UTC 2025\nGCC 12"
    assert driver_version(text) == "550.54.15"
    text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (a@b)"
    assert driver_version(text) == "580.65.06"
    assert driver_version("") == "unknown"


def test_cudnn_versions() -> None:
    assert [cudnn_version(n) for n in (91501, 91002, 90100, 8902)] == ["9.15.1", "9.10.2", "9.1.0", "8.9.2"]


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="not Linux")
def test_this_machine_as_psutil_sees_it() -> None:
    found = read_machine()
    assert found.cores == len(psutil.Process().cpu_affinity())
    assert found.memory_bytes is not None
    assert 0 < found.memory_bytes <= psutil.virtual_memory().total
    assert found.shared_memory_bytes == psutil.disk_usage("/dev/shm").total
    assert found.cpu
    assert ("AVX2" in found.vector_units) == (" avx2 " in Path("/proc/cpuinfo").read_text())


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    assert {each.status for each in judge_folders(tmp_path / "new" / "cache", tmp_path / "new")} == {"ok"}
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("in the way")
    found = judge_folders(tmp_path / "file" / "cache", tmp_path / "file" / "config")
    assert [each.status for each in found] == ["trap", "trap"]
    assert "--id-key" in found[1].fix
    assert str(tmp_path) not in str(found)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert not writable(tmp_path)
