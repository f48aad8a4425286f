"""The command line: parse, call one function, print. Heavy imports wait until a command runs."""

import signal

import typer

from toolkit import __version__
from toolkit.cli.bench import bench
from toolkit.cli.doctor import doctor
from toolkit.cli.evaluate import evaluate
from toolkit.cli.index import index
from toolkit.cli.inspect import inspect
from toolkit.cli.phantom import phantom
from toolkit.cli.predict import predict
from toolkit.cli.preprocess import preprocess
from toolkit.cli.report import report
from toolkit.cli.split import split
from toolkit.cli.train import train
from toolkit.cli.verify import verify

app = typer.Typer(
    name="toolkit",
    help="From a raw chest-CT archive to a lung-nodule malignancy classifier that can be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    doctor,
    phantom,
    index,
    preprocess,
    inspect,
    split,
    train,
    evaluate,
    report,
    predict,
    verify,
    bench,
)
for command in COMMANDS:
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line; once a command has ended, SIGTERM no longer changes its exit code."""
    try:
        app()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torch's libraries take a second to leave
