"""``toolkit verify``: look at every byte of a store."""

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.guard import guarded, print_json
from toolkit.cli.options import Json
from toolkit.cli.plain import plain


@guarded
def verify(
    store: Annotated[Path, typer.Argument(help="Folder of the store.")],
    json: Json = False,
) -> int:
    """Look at every byte of a store and name each damaged file.

    Exit code 0: sound, 8: some files are damaged or the store is not finished, 2: no store.
    """
    from rich.console import Console

    from toolkit.store.verify import verify as run

    problems = list(run(store))
    if json:
        found = [{"code": p.code, "files": list(p.files), "problem": str(p)} for p in problems]
        print_json({"store": str(store), "sound": not problems, "problems": found})
    else:
        talk = Console(stderr=True, soft_wrap=True, highlight=False)
        for problem in problems:
            talk.print(plain(str(problem)))
        typer.echo(f"{store}: {'sound' if not problems else f'{len(problems)} problems'}")
    return 8 if problems else 0
