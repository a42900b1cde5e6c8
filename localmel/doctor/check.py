"""One check, and the outcome of all of them.

In: facts.  Out: frozen records and their JSON.  Ids are stable, because programs depend on them.  Examines nothing
itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from localmel.errors import LocalmelError, shell_line

Status = Literal["ok", "warn", "fail", "skip"]
FORMAT = 1
"Version of the JSON."


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was examined."""

    id: str
    status: Status
    "`fail`: the profile cannot run.  `warn`: it can, with a reservation.  `skip`: not examined, with the reason."
    fact: str
    hint: str = ""
    "The next command; every `fail` and `warn` has one."
    exit_code: int = 0
    "The exit code of the command where this is the first check that failed; 0 for any other status."

    def __post_init__(self) -> None:
        if (self.status == "fail") != bool(self.exit_code):
            raise ValueError(f"check {self.id} is {self.status!r} with exit code {self.exit_code}")
        if self.status in ("fail", "warn") and not self.hint:
            raise ValueError(f"check {self.id} is {self.status!r} and names no next command")


def ok(name: str, fact: str) -> Check:
    """Return a check that found everything in order."""
    return Check(id=name, status="ok", fact=fact)


def skip(name: str, fact: str) -> Check:
    """Return a check that was not made, or does not matter here."""
    return Check(id=name, status="skip", fact=fact)


def warn(name: str, fact: str, *, hint: str) -> Check:
    """Return a warning: the profile can run, but the user should know."""
    return Check(id=name, status="warn", fact=fact, hint=hint)


def fail(name: str, fact: str, *, hint: str, exit_code: int) -> Check:
    """Return a failure: the profile cannot run until this is fixed."""
    return Check(id=name, status="fail", fact=fact, hint=hint, exit_code=exit_code)


def from_error(name: str, error: LocalmelError, *, needed: bool, hint: str = "") -> Check:
    """Return the check for an error of the library: a failure where it is needed, else a warning."""
    hint = error.hint or hint or f"localmel doctor --json   # {name}"
    if needed:
        return fail(name, error.fact, hint=hint, exit_code=error.exit_code)
    return warn(name, error.fact, hint=hint)


def guarded(name: str, look: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """Yield the checks of `look`; an exception becomes a failed check, so that the others are still made."""
    try:
        yield from look()
    except LocalmelError as error:
        yield from_error(name, error, needed=True)
    except OSError as error:  # the system's own message names the file and the reason best
        place = error.filename or name
        fact, hint = f"{place}: {error.strerror or error}", shell_line("ls -ld", place)
        yield fail(name, fact, hint=hint, exit_code=LocalmelError.exit_code)
    except (Exception, SystemExit) as error:  # noqa: BLE001 an unexpected failure must not end the report
        yield fail(
            name,
            f"this check failed unexpectedly: {type(error).__name__}: {error}",
            hint="pip check   # then report this line",
            exit_code=LocalmelError.exit_code,
        )


def one_by_one(looks: Mapping[str, Callable[[], Check]]) -> Iterator[Check]:
    """Yield the check of each look by its id; an exception in one does not stop the others."""
    for name, look in looks.items():
        yield from guarded(name, lambda look=look: [look()])  # type: ignore[misc]


def each_once(checks: Iterable[Check]) -> tuple[Check, ...]:
    """Return one check for each id, the failed one of two (as where two stages use one model)."""
    found: dict[str, Check] = {}
    for check in checks:
        if check.id not in found or (check.status == "fail" and found[check.id].status != "fail"):
            found[check.id] = check
    return tuple(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """All checks for one profile, in the order in which problems are best fixed."""

    profile: str
    localmel: str
    "Version."
    checks: tuple[Check, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        """The exit code of the first failed check; 0 where none failed."""
        return next((check.exit_code for check in self.checks if check.status == "fail"), 0)

    def to_json(self) -> dict[str, Any]:
        """Return the form that `localmel doctor --json` prints."""
        return {
            "format": FORMAT,
            "localmel": self.localmel,
            "profile": self.profile,
            "ok": not self.exit_code,
            "exit_code": self.exit_code,
            "seconds": round(self.seconds, 2),
            "checks": [
                {"id": check.id, "status": check.status, "fact": check.fact, "hint": check.hint}
                for check in self.checks
            ],
        }
