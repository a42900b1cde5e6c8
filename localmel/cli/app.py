"""All commands in one place, and what becomes of errors.

A LocalmelError is printed as fact and hint and ends with its own exit code; Ctrl-C ends with 130."""

from __future__ import annotations

import json
import sys
from typing import Annotated

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
from localmel.errors import LocalmelError

INTERRUPTED = 130

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

    Typer itself answers what was typed wrongly (2) and Ctrl-C (130)."""
    try:
        app(arguments)
    except LocalmelError as error:
        _print_error(error.fact, error.hint, as_json="--json" in arguments)
        return error.exit_code
    except OSError as error:  # a full disk under stdout, a home that cannot be made: the system's own words say it best
        _print_error(f"{error.filename or 'the output'}: {error.strerror or error}", "", as_json="--json" in arguments)
        return LocalmelError.exit_code
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("interrupted; what was finished is kept", file=sys.stderr)
        return end.code if isinstance(end.code, int) else 0
    return 0


def _print_error(fact: str, hint: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": fact, "hint": hint}, ensure_ascii=False), file=sys.stderr)
        return
    print(f"error: {_visible(fact)}", file=sys.stderr)
    if hint:
        print(f"  try: {_visible(hint)}", file=sys.stderr)


def _visible(text: str) -> str:
    """Control characters from user data must not reach a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)
