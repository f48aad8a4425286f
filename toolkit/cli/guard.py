"""How a command ends: every error becomes one message on stderr and an exit code."""

import functools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec

import typer

from toolkit.cli.plain import plain
from toolkit.errors import ToolkitError

P = ParamSpec("P")
INTERRUPTED = 75


def guarded(command: Callable[P, int | None]) -> Callable[P, None]:
    """Make a command end with the code that it returns, or with that of its error, never a traceback.

    SIGTERM and Ctrl-C end with 75: what is committed stays, the same call resumes. TOOLKIT_DEBUG=1
    shows the traceback of an internal error.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            code = command(*args, **kwargs) or 0
        except ToolkitError as error:
            fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            fail("interrupted; what was committed is kept, run the same command again to resume", INTERRUPTED)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        except MemoryError:
            fail("out of memory; run again with fewer --workers", INTERRUPTED)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:
            if os.environ.get("TOOLKIT_DEBUG"):
                traceback.print_exc()
            fail(f"internal error: {type(error).__name__}: {error} (TOOLKIT_DEBUG=1 shows where)", 1)
        finally:
            signal.signal(signal.SIGTERM, previous)
        raise typer.Exit(code)

    return run


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def fail(message: str, code: int) -> NoReturn:
    """Print an error and end with a code."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text("error: ", style="bold red") + plain(message))
    raise typer.Exit(code)


def print_json(value: Any) -> None:
    """Print JSON on stdout."""
    typer.echo(json.dumps(value, indent=2, sort_keys=True, default=str))
