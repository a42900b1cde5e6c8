"""Install the models of a bundle, all of them or none, and remove installed ones.

In: a bundle, perhaps a public key; or a name.  Out: folders under the user's home, each with its record; or what was
freed.  The bundle's own claims are checked first, then signature and disk space; files are hashed while they are
unpacked into a folder of their own, checked, and renamed into place once every one of them was right.  A model that is
there already is hashed too, in its place and in the bundle.  An install that was killed resumes after the files it had
finished; one that was refused leaves nothing.  Adopted weights are forgotten, and their own folder stays untouched."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from localmel.errors import BadInput, CorruptArtifact, LocalmelError, MissingWeights, OutOfSpace, UsageError, shell_line
from localmel.store import progress
from localmel.store.artifacts import failed_writes_are_reported, replace_folder
from localmel.weights.archive import Member, opened
from localmel.weights.bundle import Bundle, read_bundle
from localmel.weights.catalog import MINILM, check_catalog_name
from localmel.weights.contents import PIECE, check_beginning, check_configuration, read_header
from localmel.weights.folders import INCOMING, exclusive, place_of, weights_home
from localmel.weights.manifest import FileRecord, ModelRecord, read_record, write_record
from localmel.weights.model_folder import model_folder
from localmel.weights.signature import check, public_keys
from localmel.weights.sources import sha256_counted
from localmel.weights.verify import verify

COPY_AGAIN = "copy the bundle again from where it was packed"
_PACK_AGAIN = "localmel weights pack FOLDER --name OTHER   # where it was packed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """One model of a bundle, now in its place."""

    record: ModelRecord
    folder: Path
    already: bool
    "It was there before, equal in every byte."
    damage: str = ""
    "The damage of the same weights, or of their record, that were replaced; empty where none were there."
    signed_by: str = ""
    "Fingerprint of the key whose signature was checked now."
    unchecked_signature: bool = False
    "The bundle carries a signature that nobody asked to check."

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.record.name,
            "folder": str(self.folder),
            "already": self.already,
            "damage": self.damage,
            "files": len(self.record.files),
            "bytes": self.record.total_bytes,
            "signed_by": self.signed_by,
            "unchecked_signature": self.unchecked_signature,
        }


def install_bundle(path: Path, *, key: Path | None = None, replace_installed: bool = False) -> list[Installed]:
    """Install all models of a bundle.  With `key`, only if one of its public keys signed.

    Damaged files of the same model are repaired; anything else under its name is replaced only with
    `replace_installed`.

    Raises CorruptArtifact (cut off, altered, a wrong hash or signature), UnsafeWeights (a forbidden file, by name),
    MissingWeights (an incomplete model), BadInput (no such bundle or key, another model has that name), OutOfSpace."""
    keys = public_keys(key) if key else ()
    with opened(path) as file, _copied_again():
        bundle = read_bundle(file, path)
        signed_by = _signed_by(bundle, key, keys)
        with exclusive():
            damages = {one.name: _damage(one, replace_installed) for one in bundle.records}
            already = [record for record in bundle.records if damages[record.name] is None]
            wanted = [record for record in bundle.records if record not in already]
            with _staging(bundle) as staging:
                progress.begin("installing", bundle.total_bytes, unit=progress.BYTES)
                _check_space(wanted, staging)
                for record in already:
                    _check_packed(file, bundle, record)
                for record in wanted:
                    _unpack(file, bundle, record, staging / record.name)
                for record in wanted:
                    _put_in_place(staging / record.name, replace(record, signed_by=signed_by))
            for record in already if signed_by else ():
                write_record(place_of(record.name), replace(record, signed_by=signed_by))
    return [
        Installed(
            record=record,
            folder=place_of(record.name),
            already=record in already,
            damage=damages[record.name] or "",
            signed_by=signed_by,
            unchecked_signature=bundle.signature is not None and not signed_by,
        )
        for record in bundle.records
    ]


@contextmanager
def _copied_again() -> Iterator[None]:
    """Give damage without a hint of its own the hint to copy the bundle again: the other copy may be whole."""
    try:
        yield
    except CorruptArtifact as error:
        raise error if error.hint else CorruptArtifact(error.fact, hint=COPY_AGAIN) from None


def _signed_by(bundle: Bundle, key: Path | None, keys: Sequence[str]) -> str:
    if key is None:
        return ""
    if bundle.signature is None:
        raise CorruptArtifact(
            f"{bundle.path} carries no signature, and --key was given", hint="pack it with --sign KEY"
        )
    return check(bundle.manifest, bundle.signature, keys, where=str(bundle.path), keys_file=key)


def _damage(record: ModelRecord, replace_installed: bool) -> str | None:
    """Return the damage of the same model in its place: None where every byte is right, empty where it is not there.

    Raises BadInput where something that this bundle does not bring would be lost without permission."""
    if record.name == MINILM.name:
        raise UsageError(
            f"{record.name!r} comes with a Python package", hint="give the folder another name: pack --name"
        )
    place = place_of(record.name)
    if not os.path.lexists(place):
        return ""
    damage, replaceable = "", replace_installed
    try:
        present = read_record(place)
        fact = f"other weights are installed as {record.name!r}"
        if not present.adopted and present.files == record.files:
            findings = verify(record.name).findings
            if not findings:
                return None
            damage = findings[0].fact + (f" (and {len(findings) - 1} more)" if len(findings) > 1 else "")
            replaceable |= all(one.kind in ("missing", "changed") for one in findings)
    except LocalmelError as error:
        damage = error.fact
    if damage:
        fact = f"damaged weights are installed as {record.name!r} ({damage})"
    if not replaceable:
        raise BadInput(fact, hint=f"add --replace, or: localmel weights rm --yes {record.name}")
    return damage


@contextmanager
def _staging(bundle: Bundle) -> Iterator[Path]:
    """Yield a folder for this bundle's files; it survives an interruption, so that the next process resumes."""
    staging = weights_home() / f"{INCOMING}{bundle.digest[:16]}"
    with failed_writes_are_reported(staging):
        staging.mkdir(exist_ok=True)
        try:
            yield staging
        except OutOfSpace:
            raise
        except LocalmelError:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        shutil.rmtree(staging, ignore_errors=True)


def _check_space(wanted: list[ModelRecord], staging: Path) -> None:
    there = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
    needed = sum(record.total_bytes for record in wanted) - there
    if (free := shutil.disk_usage(staging).free) < needed:
        fact = f"cannot install: {weights_home()} needs {needed:,} more bytes, {free:,} are free"
        raise OutOfSpace(fact, hint=shell_line("df -h", weights_home(), note="then run the same command again"))


def _unpack(file: BinaryIO, bundle: Bundle, record: ModelRecord, folder: Path) -> None:
    """Unpack and check all files of one model; files that an earlier attempt had finished are only read."""
    for name, recorded in sorted(record.files.items()):
        target, shown = folder / name, f"{bundle.path}: {record.name}/{name}"
        left_by_another = target.is_file() and not target.is_symlink() and target.stat().st_size == recorded.bytes
        if left_by_another and sha256_counted(target) == recorded.sha256:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        _unpack_file(file, bundle.members[record.name, name], recorded, target, shown)
    for path in sorted(folder.rglob("*")):  # an earlier attempt at something else may have left more
        if path.is_file() and path.relative_to(folder).as_posix() not in record.files:
            path.unlink()
    try:
        model_folder(folder)
        check_catalog_name(record.name, folder, "its content", hint=_PACK_AGAIN)
    except LocalmelError as error:
        fact = error.fact.replace(f"{folder}/", "").replace(str(folder), record.name)
        raise type(error)(f"{bundle.path}: {fact}", hint=error.hint) from None


def _check_packed(file: BinaryIO, bundle: Bundle, record: ModelRecord) -> None:
    """Hash a model that need not be unpacked because it is there already."""
    for name, recorded in sorted(record.files.items()):
        digest = sha256()
        for piece in _pieces(file, bundle.members[record.name, name], f"{bundle.path}: {record.name}/{name}"):
            digest.update(piece)
        _check_hash(digest.hexdigest(), recorded, f"{bundle.path}: {record.name}/{name}")


def _pieces(file: BinaryIO, member: Member, shown: str) -> Iterator[bytes]:
    file.seek(member.start)
    left = member.size
    while left:
        piece = file.read(min(left, PIECE))
        if not piece:
            raise CorruptArtifact(f"{shown} is cut off")
        yield piece
        left -= len(piece)
        progress.advance(len(piece))


def _check_hash(found: str, recorded: FileRecord, shown: str) -> None:
    if found != recorded.sha256:
        fact = f"{shown} is damaged: its sha256 is {found}, the manifest says {recorded.sha256}"
        raise CorruptArtifact(fact, hint=COPY_AGAIN)


def _unpack_file(file: BinaryIO, member: Member, recorded: FileRecord, target: Path, shown: str) -> None:
    partial = target.with_name(f".{target.name}.part")
    partial.unlink(missing_ok=True)
    digest = sha256()
    with partial.open("xb") as out:
        for piece in _pieces(file, member, shown):
            digest.update(piece)
            out.write(piece)
        _check_hash(digest.hexdigest(), recorded, shown)
        out.flush()
        os.fsync(out.fileno())
    with partial.open("rb") as written:  # the content is judged only once the bytes are the ones that were packed
        check_beginning(shown, written.read(PIECE))
    check_configuration(shown, partial)
    if target.suffix == ".safetensors":
        try:
            read_header(partial)
        except CorruptArtifact as error:
            raise CorruptArtifact(error.fact.replace(str(partial), shown)) from None
    partial.replace(target)


def _put_in_place(staged: Path, record: ModelRecord) -> None:
    write_record(staged, record)
    place = place_of(record.name)
    if place.is_symlink() or place.is_file():
        place.unlink()
    replace_folder(staged, place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """The removal of one model or of an interrupted install, planned or done."""

    name: str
    folder: Path
    "For an adopted model, the folder that stays."
    adopted: bool
    bytes: int
    "Bytes that become free."

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


def removal(name: str) -> Removal:
    """Return what removing would do, without changing anything.  Raises MissingWeights."""
    place = place_of(name)
    if not os.path.lexists(place):
        raise MissingWeights(f"no weights are installed as {name!r}", hint="localmel weights list")
    try:
        adopted = read_record(place).adopted
    except LocalmelError:  # a damaged record is no reason to keep the rest
        adopted = ""
    folder = Path(adopted) if adopted else place
    return Removal(name=name, folder=folder, adopted=bool(adopted), bytes=0 if adopted else _bytes_below(place))


def remove(name: str) -> Removal:
    """Remove weights, or forget adopted ones.  Renamed out of sight first, so that half a model is never found."""
    found = removal(name)
    place = place_of(name)
    with exclusive(), failed_writes_are_reported(place):
        if place.is_symlink():
            place.unlink()
        else:
            hidden = place.with_name(f"{INCOMING}{uuid.uuid4().hex[:16]}")
            place.rename(hidden)
            shutil.rmtree(hidden)
    return found


def unfinished() -> list[Removal]:
    """Return what interrupted installs left behind."""
    folders = sorted(path for path in weights_home().glob(f"{INCOMING}*") if path.is_dir())
    return [Removal(name=path.name, folder=path, adopted=False, bytes=_bytes_below(path)) for path in folders]


def remove_unfinished() -> list[Removal]:
    """Remove what interrupted installs left; they then start from the beginning."""
    with exclusive():
        found = unfinished()
        for one in found:
            shutil.rmtree(one.folder)
    return found


def _bytes_below(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
