"""Register all commands, run one, and turn errors into messages and exit codes.

A LocalmelError is printed as a fact and a hint and sets its own exit code; usage errors set 2.  With --json every error
is one JSON object on stderr.  Ctrl-C sets 130, a closed pipe on stdout 141."""

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
"Exit codes as shells define them: 128 plus the number of the signal (SIGINT, SIGPIPE)."
TYPED_WRONGLY: Any = typer.BadParameter.__mro__[2]
"Typer's base class of usage errors, which has no public name."

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
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """Run one command and return the exit code of the process.

    2 means a usage error, 130 Ctrl-C, and 141 that the reader of the output has gone (`... | head -1`), which ends the
    command silently, as it ends any program."""
    as_json = "--json" in arguments
    try:
        try:
            code = _ended(arguments, as_json=as_json)
            sys.stdout.flush()  # report a full disk or a closed pipe here, not after the last line
        except LocalmelError as error:
            hint = error.hint or (f"{_named_in(arguments)} --help" if isinstance(error, UsageError) else "")
            _print_error(error.fact, hint, as_json=as_json)
            code = error.exit_code
        except BrokenPipeError:
            raise
        except OSError as error:  # a full disk, a home that cannot be created: the system's own words are the best
            hint = shell_line("ls -ld", Path(str(error.filename)).parent) if error.filename else "df -h"
            _print_error(f"{error.filename or 'the output'}: {error.strerror or error}", hint, as_json=as_json)
            code = LocalmelError.exit_code
        if code == INTERRUPTED:
            print("interrupted; finished work is kept", file=sys.stderr)
    except BrokenPipeError:
        code = READER_GONE
    _say_no_more(sys.stdout, sys.stderr)
    return code


def _ended(arguments: list[str], *, as_json: bool) -> int:
    """Run the command and return the exit code that Typer gives it.  Raises what the command raises."""
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
    except SystemExit as end:  # how Typer and Rich report a closed pipe
        if isinstance(end.__context__, BrokenPipeError):
            raise end.__context__ from None
        return end.code if isinstance(end.code, int) else 0
    return code if isinstance(code, int) else 0


def _named_in(arguments: list[str]) -> str:
    """Return the command that was typed, such as `localmel eval` or `localmel kb build`."""
    words: list[str] = ["localmel"]
    command: Any = typer.main.get_command(app)
    for word in arguments:
        if word not in (below := getattr(command, "commands", {})):
            break
        command = below[word]
        words.append(word)
    return " ".join(words)


def _command_of(error: Any) -> str:
    """Return the command that the usage error is about, as far as it was understood."""
    return error.ctx.command_path if getattr(error, "ctx", None) else "localmel"


def _say_no_more(*streams: TextIO) -> None:
    """Send what a broken stream still holds to nowhere, or the interpreter would complain at exit."""
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
    """Return the text with control characters escaped, so that user data cannot steer a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)
