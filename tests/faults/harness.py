"""One seed: faults in a row and power losses, each looked at, then a run without any, compared by bytes."""

import contextlib
import importlib
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.disk import MODES, STRUCK, Disk, Operation, broken_promises, read_journal
from tests.faults.door import FAULTS, Fault, arm, disarm

LIMIT_S = 300.0
LOSSES = ("gone", "an older one", "not on disk after the last run", "not as without faults")
UNNOTICED = "not noticed"
Files = dict[str, bytes]


@dataclass(frozen=True)
class Job:
    """What is put to the test.

    Attributes
    ----------
    commands
        Of the root: arguments of ``toolkit``, one command after the other.
    same
        Of a file's path below the root and its bytes: what must be as without faults, or None.
    exempt
        Names of folders whose files nothing is promised of.
    whole
        Of the root: what is wrong with what is committed.
    flipped
        Of the root, the file that got a wrong bit and what all files should hold: how that was noticed. Mends
        it as the messages say.
    prepare
        Called in the child first, with the chance of the seed.
    """

    name: str
    commands: Callable[[Path], list[list[str]]]
    same: Callable[[str, bytes], bytes | None]
    exempt: tuple[str, ...]
    whole: Callable[[Path], list[str]]
    flipped: Callable[[Path, str, Files], str]
    prepare: Callable[[random.Random], None] = lambda chance: None


@dataclass
class Ended:
    """How a run ended: its exit code, negative for a signal; what it did to its files; what it said."""

    code: int
    operations: list[Operation]
    talk: str

    @property
    def struck(self) -> Operation | None:
        """The moment of the fault; None where the run was over before."""
        return next((o for o in self.operations if o.kind == STRUCK), None)


@dataclass
class Tally:
    """What was tried in all seeds, how the runs ended, and what was wrong."""

    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    power: Counter[str] = field(default_factory=Counter)
    flips: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def run(job: Job, work: Path, fault: Fault, seed: int) -> Ended:
    """Run all commands of a job in a forked child, above the shim."""
    root, journal, talk = work / "root", work / "journal", work / "talk"
    child = os.fork()
    if not child:
        _child(job, root, journal, talk, fault, seed)
    end = time.monotonic() + LIMIT_S
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Ended(-signal.SIGALRM, list(read_journal(journal, root)), talk.read_text())
        time.sleep(0.002)
    return Ended(
        os.waitstatus_to_exitcode(status), list(read_journal(journal, root)), talk.read_text(errors="replace")
    )


def _child(job: Job, root: Path, journal: Path, talk: Path, fault: Fault, seed: int) -> None:
    """Be the process that is spoiled; never returns."""
    code: object = 70
    try:
        spoken = os.open(talk, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(spoken, 1)
        os.dup2(spoken, 2)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
        job.prepare(random.Random(seed))
        from toolkit.cli import app

        arm(root, journal, fault)
        for command in job.commands(root):
            try:
                app(command, prog_name="toolkit")
            except SystemExit as ended:
                code = ended.code
            if code:
                break
    except BaseException:
        traceback.print_exc()
        code = 70
    finally:
        disarm()
        (journal.parent / "modules").write_text("\n".join(sys.modules))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(str(code)) if code is not None else 0)


def read(root: Path) -> Files:
    """Return all files below a root."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def folders(root: Path) -> list[str]:
    """Return all folders below a root, the outer before the inner."""
    return [str(p.relative_to(root)) for p in sorted(root.rglob("*")) if p.is_dir()]


def lay(root: Path, files: Files, names: Sequence[str]) -> None:
    """Put files and folders in place of all that is below a root."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / name).write_bytes(content)


def compared(job: Job, files: Files) -> Files:
    """Return what must be as without faults."""
    given = {path: job.same(path, content) for path, content in files.items()}
    return {path: content for path, content in given.items() if content is not None}


def reference(job: Job, work: Path) -> tuple[Files, int]:
    """Return what a run without faults leaves, and how many operations it takes.

    What its child had to import is imported here: its brothers inherit it.
    """
    work.mkdir()
    lay(work / "root", {}, ())
    ended = run(job, work, Fault(), 0)
    assert ended.code == 0, ended.talk
    problems = _unseen(ended, Disk({}, []), work / "root")
    assert not problems, problems
    for name in (work / "modules").read_text().splitlines():
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    return compared(job, read(work / "root")), ended.operations[-1].number


def _unseen(ended: Ended, disk: Disk, root: Path) -> list[str]:
    """Play a run on the disk; return what the shim did not see: it must give the files that are there."""
    for operation in ended.operations:
        disk.play(operation)
    now, found = disk.now(), read(root)
    differ = [path for path in sorted({*now, *found}) if now.get(path) != found.get(path)]
    return [f"not seen by the shim: {path}" for path in differ] + [f"not modelled: {u}" for u in disk.unknown]


def draw(chance: random.Random, operations: int) -> Fault:
    """Draw a fault; two of five are kills."""
    kinds = [*FAULTS[1:4] * 2, *FAULTS[4:], "bit flipped"]
    return Fault(chance.choice(kinds), chance.randint(1, operations), chance.getrandbits(63))


def try_seed(job: Job, work: Path, seed: int, expected: Files, operations: int, tally: Tally) -> None:
    """Try a seed: one to three faults, then a run without; adds to the tally."""
    chance = random.Random(f"{job.name} {seed}")
    root, story = work / "root", []
    lay(root, {}, ())
    disk = Disk({}, [])
    wrong: list[str] = []
    for turn in range(chance.choice((1, 1, 2, 3))):
        fault = draw(chance, operations // (1 + turn))  # a resumed run does less
        ended = run(job, work, fault, seed)
        tally.faults[fault.kind if ended.struck else "not reached"] += 1
        tally.ends["killed" if ended.code == -signal.SIGKILL else f"exit {ended.code}"] += 1
        where = ended.struck.path if ended.struck else "nothing"
        story.append(f"{fault.kind} at {fault.number} ({where}) -> {ended.code}")
        wrong += _unseen(ended, disk, root) + _badly_ended(fault, ended)
        mode = "none"
        if fault.kind == "bit flipped" and ended.struck:
            noticed = job.flipped(root, ended.struck.path, expected)
            tally.flips[noticed] += 1
            wrong += [noticed] if noticed.startswith(UNNOTICED) else []
            disk = Disk(read(root), folders(root))
            continue
        if chance.random() < (0.75 if ended.code < 0 else 0.4):
            mode = chance.choice(MODES)
            lay(root, *disk.after_power_loss(chance, mode))
        wrong += broken_promises(disk, read(root), job.exempt) + job.whole(root)
        tally.power[mode] += 1
        story.append(f"power: {mode}")
        if mode != "none":
            disk = Disk(read(root), folders(root))
        if wrong:
            break
    if not wrong:
        wrong += _last_run(job, work, disk, seed, expected)
    tally.wrong += [f"{job.name} --seed {seed}: {'; '.join(story)}: {each}" for each in wrong]


def _last_run(job: Job, work: Path, disk: Disk, seed: int, expected: Files) -> list[str]:
    """Run without faults; return what differs from a run that never met one, now and after a power loss."""
    last = run(job, work, Fault(), seed)
    if last.code:
        return [f"the run without faults ended with {last.code}: {last.talk[-600:]}"]
    wrong = _unseen(last, disk, work / "root")
    found = compared(job, read(work / "root"))
    kept = compared(job, disk.after_power_loss(random.Random(seed), MODES[0])[0])
    for path in sorted({*found, *expected}):
        if found.get(path) != expected.get(path):
            wrong.append(f"{path}: not as without faults")
        elif kept.get(path) != expected[path]:
            wrong.append(f"{path}: not on disk after the last run")
    return wrong


def _badly_ended(fault: Fault, ended: Ended) -> list[str]:
    """Return what is wrong with an exit code or with what was said."""
    if ended.code < 0:
        killed = fault.kills and ended.code == -signal.SIGKILL
        return [] if killed else [f"ended by signal {-ended.code}: {ended.talk[-300:]}"]
    allowed = {0}
    if fault.kind.startswith(("disk", "input")) and ended.struck:
        allowed = {0, 75}
    if fault.kind == "bit flipped" and ended.struck:
        allowed = {0, 2, 75}
    wrong = [] if ended.code in allowed else [f"exit code {ended.code}: {ended.talk[-600:]}"]
    wrong += [
        f"said {word!r}: {ended.talk[-600:]}"
        for word in ("Traceback", "internal error")
        if word in ended.talk
    ]
    if ended.code == 75 and "E-DISK-001" not in ended.talk:
        wrong.append(f"75 without E-DISK-001: {ended.talk[-600:]}")
    return wrong
