"""The commands together, and the options before them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .attack import attack
from .certify import certify
from .compare import compare
from .demo import demo
from .errors import reported
from .info import info, version_line
from .prune import prune
from .train import train


class _Commands(TyperGroup):
    """Commands whose errors end as one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        with reported(debug=ctx.params["debug"]):
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    # Plain help: examples keep their lines, and logs stay readable.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version_line())
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error comes from (a traceback).")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """See what neural networks have in common, layer by layer.

    \b
    Start here (about a minute, needs no data and no GPU):
      repsim-fast demo --out out/demo

    \b
    The same on your own images:
      repsim-fast train --data DATA --model wrn-10-2 --method standard --out standard.safetensors
      repsim-fast train --data DATA --model wrn-10-2 --method pgd --out robust.safetensors
      repsim-fast compare standard.safetensors robust.safetensors --data DATA --out out/compare

    Each command has a --help of its own.
    """


app.command(short_help="See it work: train, attack and compare two small networks.")(demo)
app.command(short_help="Train a network, standard or robust.")(train)
app.command(short_help="Measure how robust a network is.")(attack)
app.command(short_help="Certify a network by randomised smoothing.")(certify)
app.command(short_help="Take out a network's least important weights.")(prune)
app.command(short_help="Compare networks layer by layer.")(compare)
app.command(short_help="Show versions, build, devices and what is missing.")(info)


def main() -> None:
    """Run the command line."""
    app(prog_name="repsim-fast")
