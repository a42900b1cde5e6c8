"""Download open weights on a machine with a network, ready to be carried to one without.

In: names of the catalog (`localmel weights list`), or one repository of the hub.  Out: a folder for each model with
its record (`manifest.json`), every file held against the size and hash that the hub gives for it; with --pack also a
bundle for `localmel weights install`.  Fetches safetensors, JSON, tokenizers and texts of licences; no pickle, no code.
A download that was interrupted goes on when the same line is run again.  HF_ENDPOINT names another hub, HF_TOKEN an
account.  Needs the package huggingface_hub, which localmel's own dependencies bring along."""

from __future__ import annotations

import argparse
import fnmatch
import glob
import hashlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localmel.errors import BadInput, CorruptArtifact, LocalmelError, MissingExtra, MissingWeights
from localmel.weights.catalog import MODEL_FILES, catalog, entry_of
from localmel.weights.contents import PIECE, refused_name
from localmel.weights.folders import checked_name
from localmel.weights.manifest import RESERVED, FileRecord, ModelRecord, holds_record, read_record, write_record
from localmel.weights.model_folder import model_folder
from localmel.weights.pack import pack

_HUB_FOLDER = ".cache"
"What huggingface_hub keeps beside the files while it downloads."


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One repository at one revision, and which of its files."""

    name: str
    repository: str
    revision: str
    files: tuple[str, ...]
    not_files: tuple[str, ...] = ()
    licence: str = ""
    purpose: str = ""
    gated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OnTheHub:
    """What the hub says of a file.  Large files have a sha256, small ones git's own hash."""

    bytes: int
    sha256: str
    git_sha1: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch what was asked for; returns the exit code of the process."""
    options = _options().parse_args(arguments)
    try:
        folders = [fetch(wanted, options.output) for wanted in _wanted(options)]
        if options.pack:
            bundle = options.output / (f"{folders[0].name}.tar" if len(folders) == 1 else "weights.tar")
            sources = [f"{folder.absolute()}/" for folder in folders]
            packed = pack(sources, bundle, key=options.sign, replace_output=True)
            print(f"{packed.path}: {packed.bytes:,} bytes, sha256 of its manifest {packed.manifest_sha256}")
            for name in packed.without_licence:
                _note(f"no licence text stands among the files of {name}; add one with localmel weights pack --licence")
    except LocalmelError as error:
        _note(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        _note("interrupted; run the same line again to go on")
        return 130
    return 0


def fetch(wanted: Wanted, output: Path) -> Path:
    """Download one model into `output`/NAME and record it.  Raises BadInput, MissingWeights, CorruptArtifact."""
    folder = output / checked_name(wanted.name)
    commit, there = _listed(wanted)
    files = _chosen(wanted, there)
    before = read_record(folder) if holds_record(folder) else None
    if before and before.revision == commit:
        _check(folder, files)
        _note(f"{wanted.name}: {folder} holds commit {commit} already")
        return folder
    total = sum(file.bytes for file in files.values())
    _note(f"{wanted.name}: {len(files)} files, {total / 1e9:.2f} GB, commit {commit}")
    _check_space(output, total, folder)
    for name in set(before.files if before else ()) - set(files):  # of another commit
        (folder / name).unlink(missing_ok=True)
    _download(wanted, commit, list(files), folder)
    digests = _check(folder, files)
    model_folder(folder)
    record = ModelRecord(
        name=wanted.name,
        files={name: FileRecord(bytes=file.bytes, sha256=digests[name]) for name, file in files.items()},
        repository=wanted.repository,
        revision=commit,
        licence=wanted.licence,
        purpose=wanted.purpose,
        source="downloaded from the hub and held against its hashes",
    )
    write_record(folder, record)
    shutil.rmtree(folder / _HUB_FOLDER, ignore_errors=True)
    print(f"{folder}: {len(files)} files, {total:,} bytes, every one as the hub names it")
    return folder


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("names", nargs="*", help="names in the catalog: " + ", ".join(catalog()))
    parser.add_argument("--output", type=Path, required=True, help="folder for the models, and for the bundle")
    parser.add_argument("--repository", help="instead of names: OWNER/NAME on the hub")
    parser.add_argument("--revision", default="", help="commit, tag or branch; the catalog's, or main, without it")
    parser.add_argument("--name", default="", help="what to call a --repository; its own name without it")
    parser.add_argument("--pack", action="store_true", help="also write a bundle with all of them")
    parser.add_argument("--sign", type=Path, help="with --pack: an SSH key to sign the bundle with")
    return parser


def _wanted(options: argparse.Namespace) -> list[Wanted]:
    if bool(options.names) == bool(options.repository):
        raise BadInput("give names of the catalog, or --repository OWNER/NAME", hint="localmel weights list")
    if options.revision and len(options.names) > 1:
        raise BadInput("--revision goes with one model")
    if options.repository:
        name = options.name or options.repository.rpartition("/")[2]
        return [
            Wanted(name=name, repository=options.repository, revision=options.revision or "main", files=MODEL_FILES)
        ]
    return [
        Wanted(
            name=entry.name,
            repository=entry.repository,
            revision=options.revision or entry.revision,
            files=entry.files,
            not_files=entry.not_files,
            licence=entry.licence,
            purpose=entry.purpose,
            gated=entry.gated,
        )
        for entry in map(entry_of, dict.fromkeys(options.names))
    ]


def _listed(wanted: Wanted) -> tuple[str, dict[str, OnTheHub]]:
    """The commit behind the revision, and the hub's own list of files with sizes and hashes."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise MissingExtra("huggingface_hub is not installed", hint="pip install huggingface_hub") from None
    try:
        info = HfApi().model_info(wanted.repository, revision=wanted.revision, files_metadata=True)
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        account = f"accept the licence on the model's page, then: export HF_TOKEN=...   # {wanted.repository}"
        hint = account if wanted.gated or status in (401, 403) else ""
        fact = f"the hub answers {status} for {wanted.repository} at {wanted.revision}"
        raise MissingWeights(fact, hint=hint) from None
    except Exception as error:  # noqa: BLE001 - huggingface_hub's HTTP client, and so its errors, differ by version
        raise MissingWeights(f"the hub cannot be reached for {wanted.repository} ({error})") from None
    there = {}
    for file in info.siblings or []:
        large = file.lfs.sha256 if file.lfs is not None else ""
        there[file.rfilename] = OnTheHub(bytes=file.size or 0, sha256=large, git_sha1=file.blob_id or "")
    return str(info.sha), there


def _chosen(wanted: Wanted, there: Mapping[str, OnTheHub]) -> dict[str, OnTheHub]:
    """The files that are wanted and may be part of a model."""

    def matches(name: str, patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    chosen = {
        name: file
        for name, file in sorted(there.items())
        if matches(name, wanted.files) and not matches(name, wanted.not_files)
        if not refused_name(name) and name.rpartition("/")[2] not in RESERVED
    }
    if not any(name.endswith(".safetensors") for name in chosen):
        raise MissingWeights(f"{wanted.repository} at {wanted.revision} has no safetensors; nothing else is fetched")
    return chosen


def _download(wanted: Wanted, commit: str, names: Sequence[str], folder: Path) -> None:
    from huggingface_hub import snapshot_download

    try:
        exactly = [glob.escape(name) for name in names]
        snapshot_download(wanted.repository, revision=commit, local_dir=folder, allow_patterns=exactly)
    except Exception as error:  # noqa: BLE001 - as above
        fact = f"the download of {wanted.repository} stopped ({type(error).__name__}: {error})"
        raise MissingWeights(fact, hint="run the same line again; what was finished is kept") from None


def _check(folder: Path, files: Mapping[str, OnTheHub]) -> dict[str, str]:
    """The sha256 of every file, after size and hash were held against the hub's.  Raises CorruptArtifact."""
    digests = {}
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise MissingWeights(f"{path} did not arrive")
        size = path.stat().st_size
        sha256, git_sha1 = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                sha256.update(piece)
                git_sha1.update(piece)
        digests[name] = sha256.hexdigest()
        same = digests[name] == expected.sha256 if expected.sha256 else git_sha1.hexdigest() == expected.git_sha1
        if size != expected.bytes or not same:
            raise CorruptArtifact(
                f"{path} is not what the hub names: {size:,} bytes, sha256 {digests[name]}; "
                f"expected {expected.bytes:,} bytes, hash {expected.sha256 or expected.git_sha1}",
                hint=f"rm {path}   # then run the same line again",
            )
    return digests


def _check_space(output: Path, total: int, folder: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if (free := shutil.disk_usage(output).free) < total - there:
        raise BadInput(f"{total - there:,} bytes are still to be fetched, {output} has {free:,} free")


def _note(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
