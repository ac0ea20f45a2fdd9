"""The commands together, and the options before them."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from .errors import is_first, reported
from .version import version_line

# Name, which is also that of the module and its function, and the line in the list of commands.
COMMANDS = {
    "demo": "See it work: train, attack and compare two small networks.",
    "train": "Train a network, standard or robust.",
    "attack": "Measure how robust a network is.",
    "certify": "Certify a network, by randomised smoothing or by bounds.",
    "prune": "Take out a network's least important weights.",
    "compare": "Compare networks layer by layer.",
    "record": "Run networks once, to be compared again and again.",
    "extend": "Add recorded networks to a comparison.",
    "report": "Write results as a page to explore.",
    "info": "Show versions, build, devices and what is missing.",
}


# Commands that several processes, as torchrun starts them, work on together.
_SHARED = ("train", "compare", "record")


class _Commands(TyperGroup):
    """Commands whose errors end as one line and an exit code, each imported when it is called:
    their modules need torch, which takes seconds."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # For lists, completion and suggestions.
        for name, line in COMMANDS.items():
            self.add_command(TyperCommand(name, short_help=line))

    def invoke(self, ctx: Any) -> Any:
        with reported(debug=ctx.params["debug"]):
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command itself, to be called or to complete its options."""
        name, command, rest = super().resolve_command(ctx, args)
        if name not in _SHARED and not is_first():
            raise typer.Exit  # what one process does, the others need not
        return name, command and loaded(str(command.name)), rest


def loaded(name: str) -> Any:
    """The command of that name, with its options."""
    function = getattr(importlib.import_module(f".{name}", __package__), name)
    alone = typer.Typer(**_STYLE)
    alone.command(name, short_help=COMMANDS[name])(function)
    return typer.main.get_command(alone)


# Plain help: examples keep their lines, and logs stay readable.
_STYLE: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100},
}
app = typer.Typer(cls=_Commands, no_args_is_help=True, **{**_STYLE, "add_completion": True})


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


def main() -> None:
    """Run the command line."""
    app(prog_name="repsim-fast")
