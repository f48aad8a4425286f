"""A run of several ranks of which one gets a signal at a chosen batch; not a test itself.

``STORE OUT SIGNAL RANK BATCH``; no signal where it is 0, nor after ``torchrun`` has started again.
"""

import os
import sys
from pathlib import Path

from tests.training.runs import Watcher, config, run

OPTIONS = {"blocks": [1, 1], "growth": 32}  # wide enough for the fast twin's way on a CPU
SETTINGS = config(
    epochs=3,
    model={"name": "densenet-small", "dropout": 0.3, "options": OPTIONS},
    compute={"impl": "fast"},
)
"""By the fast twin: that it learns over ranks as the plain network does, test_ranks shows."""


class Signalled(Watcher):
    """Gets a signal at a batch, as from a scheduler or a kernel that is out of memory."""

    def __init__(self, number: int, at: int) -> None:
        super().__init__()
        self._number, self._at = number, at

    def batch(self, samples: int, waited_s: float) -> None:
        super().batch(samples, waited_s)
        if self._number and self.batches == self._at:
            os.kill(os.getpid(), self._number)

    def note(self, text: str) -> None:
        print(text, flush=True)  # noqa: T201


def main(store: str, out: str, *numbers: str) -> int:
    """Train; return the exit code that the command line would give."""
    number, rank, batch = (int(each) for each in numbers)
    mine = (
        rank == int(os.environ.get("RANK", "0")) and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    )
    try:
        run(Path(store), Path(out), SETTINGS, Signalled(number if mine else 0, batch))
    except KeyboardInterrupt:
        return 75
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
