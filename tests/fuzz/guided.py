"""The process that atheris steers: it keeps what reaches new lines of ours and damages that further.

``python -m tests.fuzz.guided TARGET SECONDS RUNS SEED FOLDER`` starts from FOLDER/corpus, or from the
target's valid files where there is none. FOLDER gets ``now`` and ``found.jsonl`` as in `tests.fuzz.child`,
and ``input``: the size and bytes of what is being read, for whatever ends the process.
"""

import contextlib
import json
import mmap
import os
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import NoReturn
from zlib import crc32

import atheris

INSTRUMENTED = ["toolkit", "pydicom", "nrrd", "nibabel"]
with atheris.instrument_imports(include=INSTRUMENTED):
    from tests.fuzz.child import attempt, limits, where
    from tests.fuzz.mutate import Seed
    from tests.fuzz.target import Target
    from tests.fuzz.targets import TARGETS

LEAST_BYTES = 16 << 10  # that an input may have before it is packed, or twice the largest valid file
ROOM = 16 << 20
OWN_MIB = 512  # for the corpus and the counters
LONGEST_WORD = 60  # libFuzzer refuses a longer one in its dictionary
QUIET = ("segv", "abrt", "bus", "ill", "fpe", "int", "term", "xfsz")  # let the signal end the process


def mutator(target: Target, seeds: tuple[Seed, ...]) -> Callable[[bytes, int, int], bytes]:
    """Return what makes the next input of one: half the time the target's own damage, which knows more."""
    hot = {len(seed.data): seed.hot for seed in seeds}

    def mutated(data: bytes, most: int, seed: int) -> bytes:
        rng = Random(seed)
        if rng.random() < 0.5:
            with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
                return target.damage(Seed("", data, hot.get(len(data), ())), rng, target.tokens, seeds)[:most]
        return bytes(atheris.Mutate(data, len(data)))  # type: ignore[no-any-return]

    return mutated


def options(folder: Path, target: Target, seeds: tuple[Seed, ...], seed: int) -> list[str]:
    """Return libFuzzer's command line; the limits are ours, and time is looked at between inputs."""
    words = {word for word in target.tokens if 0 < len(word) <= LONGEST_WORD}
    lines = ("".join(f"\\x{byte:02x}" for byte in word) for word in sorted(words))
    (folder / "words").write_text("".join(f'"{line}"\n' for line in lines))
    most = max(LEAST_BYTES, *(2 * len(valid.data) for valid in seeds))
    told: dict[str, object] = {"seed": seed + 1, "max_len": most, "len_control": 0}
    told |= {"rss_limit_mb": 0, "timeout": 3600}  # atheris takes a timeout of 0 for that
    told |= {f"handle_{name}": 0 for name in QUIET}
    told["artifact_prefix"] = f"{folder}/"
    if words:  # libFuzzer refuses a file without any
        told["dict"] = folder / "words"
    return ["guided", *(f"-{name}={value}" for name, value in told.items()), f"{folder}/corpus"]


def main() -> None:
    name, seconds, runs, seed, place = sys.argv[1:]
    target, folder = TARGETS[name], Path(place)
    for part in ("seeds", "work", "corpus"):
        (folder / part).mkdir(exist_ok=True)
    with atheris.instrument_imports(include=INSTRUMENTED):  # some readers import theirs late
        seeds = target.inputs(folder / "seeds").seeds
        read = target.reader(folder / "work")
    if not any((folder / "corpus").iterdir()):
        for number, valid in enumerate(seeds):
            (folder / "corpus" / f"seed{number}").write_bytes(valid.data)
    (folder / "now").write_bytes(bytes(8))
    (folder / "input").write_bytes(b"")
    os.truncate(folder / "input", ROOM)
    start, codes, found = time.process_time(), Counter[str](), set[str]()

    def done() -> NoReturn:
        sys.stdout.write(json.dumps({"tried": codes.total(), "codes": dict(codes.most_common())}) + "\n")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    with (folder / "now").open("r+b") as a, (folder / "input").open("r+b") as b:
        now, copy = mmap.mmap(a.fileno(), 8), mmap.mmap(b.fileno(), ROOM)

        def one(inner: bytes) -> None:
            if codes.total() >= int(runs) or time.process_time() - start > float(seconds):
                done()
            data = target.packed(inner, Random(crc32(inner)))[: ROOM - 8]
            copy[: 8 + len(data)] = struct.pack("<q", len(data)) + data
            now[:] = struct.pack("<q", codes.total() + 1)
            code, error = attempt(read, data)
            codes[code] += 1
            if error is not None and (finding := where(error)) not in found:
                found.add(finding)
                text = "".join(traceback.format_exception(error))[-3000:]
                with (folder / "found.jsonl").open("a") as out:
                    out.write(json.dumps({"finding": finding, "data": data.hex(), "trace": text}) + "\n")

        def guarded(inner: bytes) -> None:
            try:
                one(inner)
            except BaseException:  # ours: atheris would end as for an exception of C++
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(3)

        atheris.Setup(
            options(folder, target, seeds, int(seed)), guarded, custom_mutator=mutator(target, seeds)
        )
        with limits(replace(target, memory_mib=target.memory_mib + OWN_MIB)):
            atheris.Fuzz()


if __name__ == "__main__":
    main()
