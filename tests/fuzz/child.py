"""The process that reads: limited in memory and time, it writes down which input it is on and what it finds.

``python -m tests.fuzz.child TARGET FIRST STOP SEED FOLDER`` tries the inputs FIRST to STOP - 1. FOLDER gets
``now`` (the number that is being tried) and a line of ``found.jsonl`` for each finding. A finding does not
end it; whatever ends it is a finding of its parent's.
``python -m tests.fuzz.child TARGET FILE smaller FINDING FOLDER`` cuts from a file what its finding can spare.
"""

import faulthandler
import json
import mmap
import os
import resource
import signal
import struct
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fuzz.target import Read, Target, outcome
from tests.fuzz.targets import TARGETS

SECONDS = 5.0


class Hang(BaseException):
    """No reader may catch it."""


@contextmanager
def limits(target: Target) -> Iterator[None]:
    """Cap what the process may add to its address space, and the processor time of an input."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + (target.memory_mib << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def late(*_: object) -> None:
        raise Hang(f"more than {SECONDS:g} s")

    signal.signal(signal.SIGPROF, late)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what a user would see for no reason
        yield


def attempt(read: Read, data: bytes) -> tuple[str, BaseException | None]:
    """Read one input; return the code of its refusal, and what was raised against the contract."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        return outcome(read, data), None
    except (Exception, Hang) as error:
        return type(error).__name__, error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def where(error: BaseException) -> str:
    """Name a finding by its type and by the last line of ours that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/toolkit/" in f.filename] or frames
    place = f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "?"
    return f"{type(error).__name__} in {place}"


def run(target: Target, folder: Path, numbers: range, seed: int) -> dict[str, Any]:
    """Try inputs of a target in this process; return how many, the outcomes and the distinct findings."""
    inputs = target.inputs(_new(folder / "seeds"))
    read = target.reader(_new(folder / "work"))
    codes: Counter[str] = Counter()
    found: dict[str, dict[str, Any]] = {}
    (folder / "now").write_bytes(bytes(8))
    start = time.perf_counter()
    with (folder / "now").open("r+b") as file, mmap.mmap(file.fileno(), 8) as now, limits(target):
        for number in numbers:
            data = inputs.number(number, seed)
            now[:] = struct.pack("<q", number)
            code, error = attempt(read, data)
            codes[code] += 1
            if error is not None:
                name = where(error)
                if name not in found:
                    text = "".join(traceback.format_exception(error))[-3000:]
                    found[name] = {"finding": name, "number": number, "data": data.hex(), "trace": text}
                    with (folder / "found.jsonl").open("a") as out:
                        out.write(json.dumps(found[name]) + "\n")
    return {
        "tried": len(numbers),
        "codes": dict(codes.most_common()),
        "found": sorted(found),
        "seconds": time.perf_counter() - start,
    }


def alone(target: Target, read: Read, data: bytes) -> str:
    """Read one input in a process of its own; return its finding, or nothing."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        faulthandler.disable()  # an abort is what is looked for
        signal.alarm(2 * int(SECONDS))  # native code that hangs hears nothing else
        with limits(target):
            _, error = attempt(read, data)
        os.write(theirs, b"" if error is None else where(error).encode()[:1000])
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return said if code == 0 else ended(code)


def ended(code: int) -> str:
    """Name the finding of a process that ended with a code, negative for a signal."""
    return f"the process ended with {code}"


def smaller(target: Target, read: Read, data: bytes, finding: str, tries: int = 400) -> bytes:
    """Return what is left of an input when parts that its finding can spare are cut out, halves first."""
    size = len(data) // 2
    while size and tries:
        at = 0
        while at < len(data) and tries:
            tries -= 1
            less = data[:at] + data[at + size :]
            if alone(target, read, less) == finding:
                data = less
            else:
                at += size
        size //= 2
    return data


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main() -> None:
    name, first, stop, seed, place = sys.argv[1:]
    target, folder = TARGETS[name], Path(place)
    if stop == "smaller":
        read = target.reader(_new(folder / "work"))
        Path(first).write_bytes(smaller(target, read, Path(first).read_bytes(), seed))
        return
    sys.stdout.write(json.dumps(run(target, folder, range(int(first), int(stop)), int(seed))) + "\n")


if __name__ == "__main__":
    main()
