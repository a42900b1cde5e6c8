"""`localmel doctor`: check this machine for a profile and print the next command for each problem."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from localmel.cli.options import AsJson
from localmel.cli.output import print_json, print_table, printable

if TYPE_CHECKING:
    from localmel.doctor import Examination

_WORDS = {"ok": "ok", "warn": "note", "fail": "FAIL", "skip": "-"}


def doctor_command(
    profile: Annotated[str, typer.Option("--profile", help="Profile to check; name or path.")] = "embedded",
    kb: Annotated[
        str | None, typer.Option("--kb", help="A KB that must be usable too; default: look at all KBs, require none.")
    ] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Import engines, hash all weights and read whole KBs; takes minutes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check this machine; the exit code is that of the first failed check, or 0."""
    from localmel.doctor import examine

    found = examine(profile, kb=kb, thorough=thorough)
    print_json(found.to_json()) if as_json else _print(found)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def _print(found: Examination) -> None:
    rows = [(_WORDS[check.status], check.id, check.fact) for check in found.checks]
    print_table(("", "check", "result"), rows)
    for check in found.checks:
        if check.hint:
            print(printable(f"{_WORDS[check.status]} {check.id}: {check.hint}"))
    failed = sum(check.status == "fail" for check in found.checks)
    verdict = "can run here" if not failed else f"cannot run here: {failed} of {len(found.checks)} checks failed"
    print(printable(f"profile {found.profile} {verdict} (checked in {found.seconds:.1f} s)"))
