"""`localmel doctor`: what of this machine fits a profile, what lacks, and the next command for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from localmel.cli.output import print_json, print_table, printable

if TYPE_CHECKING:
    from localmel.doctor import Examination

_WORDS = {"ok": "ok", "warn": "note", "fail": "FAIL", "skip": "-"}


def doctor_command(
    profile: Annotated[str, typer.Option("--profile", help="For which profile; name or path.")] = "embedded",
    kb: Annotated[
        str | None, typer.Option("--kb", help="A KB that is needed too; without it all are looked at, none is needed.")
    ] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Import engines, hash all weights and read KBs whole; takes minutes.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for programs; ids are stable.")] = False,
) -> None:
    """Look this machine over; ends with the exit code of the first check that failed, 0 when none did."""
    from localmel.doctor import examine

    found = examine(profile, kb=kb, thorough=thorough)
    print_json(found.to_json()) if as_json else _print(found)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def _print(found: Examination) -> None:
    rows = [(_WORDS[check.status], check.id, check.fact) for check in found.checks]
    print_table(("", "check", "what was found"), rows)
    for check in found.checks:
        if check.hint:
            print(printable(f"{_WORDS[check.status]} {check.id}: {check.hint}"))
    failed = sum(check.status == "fail" for check in found.checks)
    verdict = "can run here" if not failed else f"cannot run here: {failed} of {len(found.checks)} checks failed"
    print(printable(f"profile {found.profile} {verdict} (looked for {found.seconds:.1f} s)"))
