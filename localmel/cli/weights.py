"""`localmel weights list|show|verify|pack|install|rm`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localmel.cli.options import AsJson
from localmel.cli.output import counted, print_json, print_note, print_table, printable, progress_bar
from localmel.errors import UsageError

if TYPE_CHECKING:
    from localmel.weights.install import Removal
    from localmel.weights.listing import Listed
    from localmel.weights.pack import Packed
    from localmel.weights.verify import Verified

app = typer.Typer(help="Open weights: pack, check and install them.", no_args_is_help=True, rich_markup_mode=None)

Replace = Annotated[bool, typer.Option("--replace", help="Replace what is there once the new one is complete.")]


@app.command("list")
def list_command(
    here: Annotated[bool, typer.Option("--here", help="List only what is on this machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the catalog and the weights on this machine."""
    from localmel.weights.install import unfinished
    from localmel.weights.listing import listing

    found = [one for one in listing() if not here or one.state != "not here"]
    left = unfinished()
    if as_json:
        print_json({"weights": [one.to_json() for one in found], "unfinished": [one.to_json() for one in left]})
        return
    rows = [(one.name, one.purpose, one.state, _size(one.disk_bytes), _memory(one), one.licence) for one in found]
    print_table(("name", "for", "state", "on disk", "memory (estimate)", "licence"), rows)
    for one in found:
        if one.problem:
            print_note(f"{one.name}: {one.problem}")
    if left:
        size = _size(sum(one.bytes for one in left))
        print_note(f"interrupted installs take up {size}: run them again, or localmel weights rm --unfinished")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name in the catalog or of installed weights.")],
    sbom: Annotated[bool, typer.Option("--sbom", help="Print its CycloneDX document (installed weights).")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what is known about one model: source, licence, files, memory."""
    from localmel.weights.listing import described, sbom_of

    if sbom:
        print_json(sbom_of(name))
        return
    facts = described(name)
    if as_json:
        print_json(facts)
        return
    cells = [(key.replace("_", " "), _cell(key, value)) for key, value in facts.items()]
    print_table(("", ""), [pair for pair in cells if pair[1]])


@app.command()
def verify(
    name: Annotated[
        str | None, typer.Argument(help="Name, or path of a fetched folder; default: all that are here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hash every file and compare with the record; exit 4 if a file is missing, 6 if one differs."""
    from localmel.weights.verify import verify_all

    with progress_bar():
        found = verify_all(name)
    if as_json:
        print_json([one.to_json() for one in found])
    else:
        for one in found:
            print(_verified_line(one))
    if wrong := [error for one in found if (error := one.error())]:
        raise max(wrong, key=lambda error: error.exit_code)


@app.command()
def pack(
    sources: Annotated[list[str], typer.Argument(help="Names of installed weights, or folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to write (a tar).")],
    name: Annotated[str, typer.Option("--name", help="What to call the model of a single folder.")] = "",
    licence: Annotated[
        Path | None, typer.Option("--licence", help="File with the text of its licence, if the folder has none.")
    ] = None,
    sign: Annotated[Path | None, typer.Option("--sign", help="An SSH key to sign the bundle with.")] = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Pack models into one bundle with a hash for every file, licences, an SBOM and, if asked, a signature."""
    from localmel.weights.pack import pack as pack_bundle

    with progress_bar():
        packed = pack_bundle(sources, output, name=name, licence=licence, key=sign, replace_output=replace)
    print_json(packed.to_json()) if as_json else _tell_packed(packed)


@app.command()
def install(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle made by `localmel weights pack`.")] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="File of public SSH keys; the bundle must be signed by one of them.")
    ] = None,
    adopt: Annotated[
        Path | None,
        typer.Option("--adopt", help="Instead of a bundle: a folder or Hugging Face cache, used where it is."),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What to call an adopted folder.")] = "",
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Install models from a bundle after checking every byte, or use a folder where it is (--adopt)."""
    if bundle and adopt:
        fact = f"both a bundle ({bundle}) and --adopt {adopt} were given, but only one can be installed at a time"
        raise UsageError(fact, hint="give one or the other")
    if (bundle is None) == (adopt is None):
        raise UsageError("give a bundle, or --adopt FOLDER", hint="localmel weights install BUNDLE.tar")
    if (name and bundle) or (key and adopt):
        raise UsageError("--name goes with --adopt, and --key with a bundle", hint="localmel weights install --help")
    if adopt:
        _adopt(adopt, name, replace, as_json)
    if bundle:
        _install(bundle, key, replace, as_json)


@app.command()
def rm(
    name: Annotated[
        str | None, typer.Argument(help="Which weights.  Adopted weights are forgotten, not deleted.")
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Remove what interrupted installs left behind.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove installed weights; forget adopted ones."""
    from localmel.weights.install import removal, remove, remove_unfinished
    from localmel.weights.install import unfinished as find_unfinished

    if (name is None) == (not unfinished):
        raise UsageError("give a name, or --unfinished", hint="localmel weights list --here")
    planned = [removal(name)] if name else find_unfinished()
    if planned and not yes:
        _ask(planned)
    removed = [remove(name)] if name else remove_unfinished()
    if as_json:
        print_json([one.to_json() for one in removed])
        return
    for one in removed:
        kept = f"; {one.folder} was not touched" if one.adopted else ""
        print(printable(f"{'forgotten' if one.adopted else 'removed'}: {one.name}, {_size(one.bytes)} freed{kept}"))
    if not removed:
        print("nothing to remove")


def _adopt(folder: Path, name: str, replace: bool, as_json: bool) -> None:
    from localmel.weights.sources import adopt

    with progress_bar():
        record = adopt(folder, name=name, replace_installed=replace)
    if as_json:
        print_json(record.to_json())
        return
    print(printable(f"adopted: {record.name}, {counted(len(record.files), 'file')}, {_size(record.total_bytes)}"))
    print(printable(f"the files stay in {record.adopted}; localmel will notice if they change"))


def _install(bundle: Path, key: Path | None, replace: bool, as_json: bool) -> None:
    from localmel.weights.install import install_bundle

    with progress_bar():
        installed = install_bundle(bundle, key=key, replace_installed=replace)
    if as_json:
        print_json([one.to_json() for one in installed])
        return
    for one in installed:
        state = "already installed" if one.already else "repaired" if one.damage else "installed"
        signed = f", signed by {one.signed_by}" if one.signed_by else ""
        size = f"{counted(len(one.record.files), 'file')}, {_size(one.record.total_bytes)}"
        damage = f"; it was damaged: {one.damage}" if one.damage else ""
        print(printable(f"{state}: {one.record.name}, {size}{signed}{damage}"))
    if installed[0].unchecked_signature:
        print_note("the bundle is signed, but its signature was not checked because no --key was given")


def _ask(planned: list[Removal]) -> None:
    """Ask before removing.  Raises UsageError if nobody can answer, Abort if the answer is no."""
    what = ", ".join(f"{one.name} ({'forget' if one.adopted else _size(one.bytes)})" for one in planned)
    if not sys.stdin.isatty():
        raise UsageError(f"cannot ask whether to remove {what}: there is no terminal", hint="add --yes")
    typer.confirm(printable(f"remove {what}?"), abort=True, err=True)


def _tell_packed(packed: Packed) -> None:
    signed = ", signed" if packed.signed else ""
    print(printable(f"packed: {packed.path}, {counted(len(packed.records), 'model')}, {_size(packed.bytes)}{signed}"))
    print(f"sha256 of its manifest: {packed.manifest_sha256}")
    for path, reason in packed.left_out.items():
        print_note(f"left out: {path} {reason}")
    for name in packed.without_licence:
        print_note(f"the folder of {name} has no licence text, and its licence may require one: --licence FILE")


def _verified_line(one: Verified) -> str:
    state = "as recorded" if not one.findings else "; ".join(finding.fact for finding in one.findings)
    return printable(f"{one.name}: {counted(one.files, 'file')}, {_size(one.bytes)}: {state}")


def _memory(one: Listed) -> str:
    return ", ".join(f"{way} {_size(number)}" for way, number in one.memory.items())


def _cell(key: str, value: object) -> str:
    if isinstance(value, dict) and key == "files":
        return ", ".join(f"{name} ({_size(facts['bytes'])})" for name, facts in value.items())
    if isinstance(value, dict):
        return ", ".join(f"{name} {_size(number)}" for name, number in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return _size(value) if key.endswith("bytes") else f"{value:,}" if value else ""
    return str(value or "")


def _size(number: int) -> str:
    """Return a number of bytes in decimal units, as disks are sold."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number} B"
