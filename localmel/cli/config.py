"""`localmel config`: print the settings of a profile and where each comes from, or list the profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from localmel.cli.options import AsJson
from localmel.cli.output import print_json, print_note, print_table, printable
from localmel.errors import LocalmelError

if TYPE_CHECKING:
    from localmel.settings import Setting

_MODELS = {"generate.model.": ("generate.backend", "vlm"), "rerank.model.": ("rerank.backend", "llm")}


def config_command(
    profile: Annotated[str, typer.Option("--profile", help="Name or path of the profile.")] = "embedded",
    list_profiles: Annotated[
        bool, typer.Option("--list", help="List the profiles and what each lacks on this machine.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print every setting of a profile and where it comes from, or list the profiles."""
    if list_profiles:
        found = _profiles()
        print_json(found) if as_json else _print_profiles(found)
        return
    from localmel.settings import config_folder, home_folder, profile_files, settings_in_force

    settings, files = settings_in_force(profile), [str(file.path) for file in reversed(profile_files(profile))]
    places = {"home": str(home_folder()), "config": str(config_folder())}
    if as_json:
        rows = [_to_json(setting) for setting in settings]
        print_json({"profile": settings[0].value, "files": files, "places": places, "settings": rows})
    else:
        _print_settings(settings, files, places)


def _to_json(setting: Setting) -> dict[str, Any]:
    file = str(setting.file) if setting.file else None
    return {"key": setting.key, "value": setting.value, "origin": setting.origin, "file": file}


def _print_settings(settings: tuple[Setting, ...], files: list[str], places: dict[str, str]) -> None:
    values = {setting.key: setting.value for setting in settings}
    unused = tuple(start for start, (key, used) in _MODELS.items() if values[key] != used)
    rows = [
        (setting.key, _cell(setting.value), f"{setting.origin}: {setting.file.name}" if setting.file else "default")
        for setting in settings
        if not setting.key.startswith(unused)
    ]
    print_table(("setting", "value", "from"), rows)
    for start in unused:
        print(printable(f"{start}* is not used: {_MODELS[start][0]} is {values[_MODELS[start][0]]}"))
    print(printable(f"files, the last one read first: {', '.join(files)}"))
    print(printable(f"KBs and weights in {places['home']}, your own profiles in {places['config']}/profiles"))


def _cell(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) if value != "" else '""'


def _profiles() -> list[dict[str, Any]]:
    """Return the facts of each profile, or its error, so that one damaged profile does not hide the others."""
    from localmel.doctor import lacks
    from localmel.settings import load_profile, profile_files, profile_names

    found = []
    for name in profile_names():
        try:
            files, profile = profile_files(name), load_profile(name)
            facts = {"summary": profile.summary, "origin": files[-1].origin, "lacks": list(lacks(profile)), "error": ""}
        except LocalmelError as error:
            facts = {"summary": "", "origin": "own", "lacks": [], "error": error.fact}
        found.append({"name": name, **facts})
    return found


def _print_profiles(found: list[dict[str, Any]]) -> None:
    rows = [
        (facts["name"], facts["origin"], facts["error"] or ", ".join(facts["lacks"]) or "nothing", facts["summary"])
        for facts in found
    ]
    print_table(("profile", "", "missing here", "description"), rows)
    print_note("for details: localmel doctor --profile NAME")
