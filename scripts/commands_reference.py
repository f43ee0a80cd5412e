"""docs/commands.md: every command with its options, from click, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator

import click

from olmix import errors
from olmix.cli.main import EXIT_CODES, FILE, cli
from olmix.terminal.exits import ERROR, INTERRUPTED, OK, SOMETHING_TO_DO

_KINDS: dict[type, str] = {type(FILE): "PATH", click.Path: "PATH", type(click.INT): "N", click.IntRange: "N"}
_KINDS |= {type(click.FLOAT): "NUMBER", type(click.STRING): "TEXT"}
HEAD = f"""# Reference of commands

Generated from the commands themselves (`make docs`); a test fails when the two differ. `olmix COMMAND --help` prints
the same. An option with `...` may be given more than once.

## Exit codes

| code | what it means |
|---|---|
| {OK} | done |
| {ERROR} | an error: one line on standard error, with the file, the key in it and the way out |
| {SOMETHING_TO_DO} | something to do, of commands that say so below |
| {INTERRUPTED} | interrupted; what was finished is kept |

The stages end in the same way under `dvc repro`, which itself ends with 255 when one of them fails. From Python an
error is an `olmix.OlmixError`, one of:

| class | what it is |
|---|---|
"""


def render() -> str:
    """The text of docs/commands.md."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.OlmixError)]
    rows = "".join(f"| `{k.__name__}` | {_cell(k.__doc__ or '')} |\n" for k in kinds if k is not errors.OlmixError)
    context = click.Context(cli, info_name="olmix")
    parts = [HEAD + rows, *_command(cli, context)]
    for name, command in sorted(cli.commands.items()):
        parts += _command(command, click.Context(command, info_name=name, parent=context))
    return "\n".join(parts)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    """What `--help` says, as paragraphs and a table; read off the options, since click's own wording has changed."""
    yield f"## `{context.command_path}`\n"
    yield f"```\n{' '.join([context.command_path, *command.collect_usage_pieces(context)])}\n```\n"
    for paragraph in (command.help or "").split("\n\n"):
        yield f"{' '.join(paragraph.split())}\n"
    options = [option for option in command.params if isinstance(option, click.Option)]
    rows = [f"| `{_cell(_spelling(option))}` | {_cell(option.help or '')} |\n" for option in options]
    if rows:
        yield f"| option | what it does |\n|---|---|\n{''.join(rows)}"
    if command.epilog and command.epilog != EXIT_CODES:
        yield f"{command.epilog}\n"


def _spelling(option: click.Option) -> str:
    """An option as it is typed: its name, and what stands behind it."""
    names = ", ".join(option.opts)
    if option.is_flag:
        return names
    if isinstance(option.type, click.Choice):
        return f"{names} {'|'.join(option.type.choices)}"
    kinds = option.type.types if isinstance(option.type, click.Tuple) else [option.type]
    values = option.metavar or " ".join(_KINDS[type(kind)] for kind in kinds)
    return f"{names} {values}" + (" ..." if option.multiple else "")


def _cell(text: str) -> str:
    """Text for a cell of a table: on one line, no bar that would end the cell."""
    return " ".join(text.split()).replace("|", "\\|")
