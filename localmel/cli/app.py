"""All commands in one place, and what becomes of errors.

A LocalmelError is printed as fact and hint and ends with its own exit code; so is what was typed wrongly (2).
With --json every error is one JSON object on stderr.  Ctrl-C ends with 130, a closed pipe under stdout with 141."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from localmel.cli import (
    compare,
    config,
    data,
    doctor,
    evaluate,
    generate,
    kb,
    link,
    report,
    rerank,
    retrieve,
    train,
    weights,
)
from localmel.cli.output import json_text
from localmel.errors import LocalmelError, UsageError, shell_line

ABORTED, INTERRUPTED, READER_GONE = 1, 130, 141
"As shells have them: 128 and the number of the signal, here Ctrl-C's and that of a closed pipe."
TYPED_WRONGLY: Any = typer.BadParameter.__mro__[2]
"Typer's own error above all that is wrong with arguments; it has no public name."

app = typer.Typer(
    name="localmel",
    help="Link the names in a captioned image to your knowledge base, entirely on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("link")(link.link_command)
app.command("demo")(link.demo_command)
app.add_typer(kb.app, name="kb")
app.command("index")(kb.index_command)
app.add_typer(data.app, name="data")
app.command("train")(train.train_command)
app.command("eval")(evaluate.eval_command)
app.command("generate")(generate.generate_command)
app.command("retrieve")(retrieve.retrieve_command)
app.command("rerank")(rerank.rerank_command)
app.command("compare")(compare.compare_command)
app.command("report")(report.report_command)
app.add_typer(weights.app, name="weights")
app.command("config")(config.config_command)
app.command("doctor")(doctor.doctor_command)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"localmel {version('localmel')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """Run one command and return the exit code of the process.

    2 for what was typed wrongly, 130 after Ctrl-C; 141 where whoever read the output has gone (`... | head -1`): as
    for any program that a closed pipe ends, and without a word."""
    as_json = "--json" in arguments
    try:
        try:
            code = _ended(arguments, as_json=as_json)
            sys.stdout.flush()  # a full disk or a closed pipe shows here, not after the last line
        except LocalmelError as error:
            hint = error.hint or (f"{_named_in(arguments)} --help" if isinstance(error, UsageError) else "")
            _print_error(error.fact, hint, as_json=as_json)
            code = error.exit_code
        except BrokenPipeError:
            raise
        except OSError as error:  # a full disk under stdout, a home that cannot be made: the system's words say it best
            hint = shell_line("ls -ld", Path(str(error.filename)).parent) if error.filename else "df -h"
            _print_error(f"{error.filename or 'the output'}: {error.strerror or error}", hint, as_json=as_json)
            code = LocalmelError.exit_code
        if code == INTERRUPTED:
            print("interrupted; what was finished is kept", file=sys.stderr)
    except BrokenPipeError:
        code = READER_GONE
    _say_no_more(sys.stdout, sys.stderr)
    return code


def _ended(arguments: list[str], *, as_json: bool) -> int:
    """Run the command; the exit code that Typer gives it.  Raises what the command raises."""
    try:
        code = app(arguments, prog_name="localmel", standalone_mode=False)
    except typer.Abort:
        _print_error("aborted: nothing was changed", "", as_json=as_json)
        return ABORTED
    except TYPED_WRONGLY as error:
        if as_json:
            _print_error(error.format_message(), f"{_command_of(error)} --help", as_json=True)
        else:
            error.show()
        return int(error.exit_code)
    except SystemExit as end:  # what Typer and Rich make of a closed pipe
        if isinstance(end.__context__, BrokenPipeError):
            raise end.__context__ from None
        return end.code if isinstance(end.code, int) else 0
    return code if isinstance(code, int) else 0


def _named_in(arguments: list[str]) -> str:
    """The command that was typed: `localmel eval`, `localmel kb build`."""
    words: list[str] = ["localmel"]
    command: Any = typer.main.get_command(app)
    for word in arguments:
        if word not in (below := getattr(command, "commands", {})):
            break
        command = below[word]
        words.append(word)
    return " ".join(words)


def _command_of(error: Any) -> str:
    """The command that was typed wrongly, as far as it was understood."""
    return error.ctx.command_path if getattr(error, "ctx", None) else "localmel"


def _say_no_more(*streams: TextIO) -> None:
    """What a stream cannot take any more goes nowhere, or the interpreter complains about it when it ends."""
    for stream in streams:
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _print_error(fact: str, hint: str, *, as_json: bool) -> None:
    if as_json:
        print(json_text({"error": fact, "hint": hint}), file=sys.stderr)
        return
    print(f"error: {_visible(fact)}", file=sys.stderr)
    if hint:
        print(f"  try: {_visible(hint)}", file=sys.stderr)


def _visible(text: str) -> str:
    """Control characters from user data must not reach a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)
