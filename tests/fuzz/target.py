"""One reader under test: its valid files, how they are damaged, and what reading one comes to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.fuzz.mutate import Seed, damaged
from toolkit.errors import ToolkitError

Read = Callable[[bytes], object]


def _as_it_is(data: bytes, rng: Random) -> bytes:
    return data


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes
    ----------
    seeds
        Makes the valid files, given an empty folder to work in; the same ones each time.
    reader
        Given an empty folder, returns what reads one file's bytes: it returns or raises `ToolkitError`.
    tokens
        Words of the format.
    damage, packed
        How a seed is damaged, and how the result becomes a file: the inside of a compressed or sealed one is
        damaged before it is packed.
    native
        Whether code that is not Python reads the bytes and may end the process.
    memory_mib
        Most address space that reading one small file may add.
    """

    name: str
    seeds: Callable[[Path], Sequence[Seed]]
    reader: Callable[[Path], Read]
    tokens: tuple[bytes, ...] = ()
    damage: Callable[[Seed, Random, Sequence[bytes], Sequence[Seed]], bytes] = damaged
    packed: Callable[[bytes, Random], bytes] = _as_it_is
    native: bool = False
    memory_mib: int = 768

    def inputs(self, folder: Path) -> "Inputs":
        """Return the inputs of this target, made of its seeds."""
        return Inputs(self, tuple(self.seeds(folder)))


@dataclass(frozen=True)
class Inputs:
    """The inputs of a target: one for each number and seed."""

    target: Target
    seeds: tuple[Seed, ...]

    def number(self, number: int, seed: int) -> bytes:
        """Return input `number`; the first ones are the seeds themselves."""
        rng = Random(f"{seed}/{self.target.name}/{number}")
        if number < len(self.seeds):
            return self.target.packed(self.seeds[number].data, rng)
        data = self.target.damage(rng.choice(self.seeds), rng, self.target.tokens, self.seeds)
        return self.target.packed(data, rng)


class OverMemoryError(Exception):
    """A reader asked for more memory than the cap and hid it in a refusal."""


def outcome(read: Read, data: bytes) -> str:
    """Return the code of a refusal, or nothing for a value; whatever else is raised is a finding."""
    try:
        read(data)
    except ToolkitError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                raise OverMemoryError(str(error)) from error
            cause = cause.__cause__ or cause.__context__
        error.problem.public.encode()  # what a store or a terminal cannot take
        return error.problem.code
    return ""
