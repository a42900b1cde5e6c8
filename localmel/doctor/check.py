"""One thing that was looked at, and the outcome of all of them.

In: facts.  Out: frozen records and their JSON.  Ids are stable: programs may hang on them.  Looks at nothing itself."""

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
    """One thing that was looked at."""

    id: str
    status: Status
    "`fail`: the profile cannot run like this.  `warn`: it can, but.  `skip`: not looked at, and why."
    fact: str
    hint: str = ""
    "The next command; what failed, or is warned of, has one."
    exit_code: int = 0
    "Of a failed check: how the command ends when this is the first one that failed."

    def __post_init__(self) -> None:
        if (self.status == "fail") != bool(self.exit_code):
            raise ValueError(f"check {self.id} is {self.status!r} with exit code {self.exit_code}")
        if self.status in ("fail", "warn") and not self.hint:
            raise ValueError(f"check {self.id} is {self.status!r} and names no next command")


def ok(name: str, fact: str) -> Check:
    """What was looked at is as it should be."""
    return Check(id=name, status="ok", fact=fact)


def skip(name: str, fact: str) -> Check:
    """It was not looked at, or does not matter here."""
    return Check(id=name, status="skip", fact=fact)


def warn(name: str, fact: str, *, hint: str) -> Check:
    """The profile can run, but somebody should know."""
    return Check(id=name, status="warn", fact=fact, hint=hint)


def fail(name: str, fact: str, *, hint: str, exit_code: int) -> Check:
    """The profile cannot run before this is mended."""
    return Check(id=name, status="fail", fact=fact, hint=hint, exit_code=exit_code)


def from_error(name: str, error: LocalmelError, *, needed: bool, hint: str = "") -> Check:
    """The check that an error of the library stands for; a warning where nothing depends on it."""
    hint = error.hint or hint or f"localmel doctor --json   # {name}"
    if needed:
        return fail(name, error.fact, hint=hint, exit_code=error.exit_code)
    return warn(name, error.fact, hint=hint)


def guarded(name: str, look: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """The checks of `look`; one that itself breaks off becomes a failed check, so that the others are still made."""
    try:
        yield from look()
    except LocalmelError as error:
        yield from_error(name, error, needed=True)
    except OSError as error:  # the system's own words say best which file and why
        place = error.filename or name
        fact, hint = f"{place}: {error.strerror or error}", shell_line("ls -ld", place)
        yield fail(name, fact, hint=hint, exit_code=LocalmelError.exit_code)
    except (Exception, SystemExit) as error:  # noqa: BLE001 what is broken in a new way must not end the report
        yield fail(
            name,
            f"this could not be looked at: {type(error).__name__}: {error}",
            hint="pip check   # then report this line",
            exit_code=LocalmelError.exit_code,
        )


def one_by_one(looks: Mapping[str, Callable[[], Check]]) -> Iterator[Check]:
    """The check of each look by its id; one that breaks off takes none of the others with it."""
    for name, look in looks.items():
        yield from guarded(name, lambda look=look: [look()])  # type: ignore[misc]


def each_once(checks: Iterable[Check]) -> tuple[Check, ...]:
    """One check for each id: the failed one where two looked at the same, as at one model for two stages."""
    found: dict[str, Check] = {}
    for check in checks:
        if check.id not in found or (check.status == "fail" and found[check.id].status != "fail"):
            found[check.id] = check
    return tuple(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """All checks for one profile, in the order in which they are best mended."""

    profile: str
    localmel: str
    "Version."
    checks: tuple[Check, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 when nothing failed, otherwise the first failed check's."""
        return next((check.exit_code for check in self.checks if check.status == "fail"), 0)

    def to_json(self) -> dict[str, Any]:
        """The form that `localmel doctor --json` prints."""
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
