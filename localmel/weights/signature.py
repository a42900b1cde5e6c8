"""A bundle's signature, made and checked by OpenSSH's `ssh-keygen -Y`.

In: the bytes of a manifest, a key.  Out: a signature, or the fingerprint of the key that made one.  The manifest holds
the sha256 of everything else, so signing it signs the bundle.  Why OpenSSH: docs/decisions/009-weights-bundles.md."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from localmel.errors import BadInput, CorruptArtifact, MissingExtra, shell_line

NAMESPACE = "localmel-weights"
"Part of the signed bytes: a signature made for another purpose is not valid here."
LONGEST = 64 * 1024
_SIGNER = "localmel"
_PUBLIC = re.compile(r"((?:sk-)?(?:ssh|ecdsa)-[\w@.-]+) ([A-Za-z0-9+/=]+)(?: .*)?")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


def sign(data: bytes, key: Path) -> bytes:
    """Return an armoured signature by a private key (by the agent's, where `key` is a public one).  Raises BadInput."""
    if not key.is_file():
        raise BadInput(f"there is no key {key}", hint=shell_line("ssh-keygen -t ed25519 -f", key))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "manifest.json"
        file.write_bytes(data)
        done = _ssh_keygen("-Y", "sign", "-q", "-f", str(key.absolute()), "-n", NAMESPACE, str(file))
        made = file.with_name(f"{file.name}.sig")
        if done.returncode or not made.is_file():
            raise BadInput(f"cannot sign with {key}: {_said(done)}")
        return made.read_bytes()


def check(data: bytes, signature: bytes, keys: Sequence[str], *, where: str, keys_file: Path) -> str:
    """Return the fingerprint of the one of `keys` that signed.  Errors name `where` and `keys_file`.

    Raises CorruptArtifact."""
    if len(signature) > LONGEST:
        raise CorruptArtifact(f"{where} has a signature of {len(signature):,} bytes")
    with tempfile.TemporaryDirectory() as folder:
        allowed, file = Path(folder) / "allowed", Path(folder) / "signature"
        allowed.write_text("".join(f"{_SIGNER} {one}\n" for one in keys), encoding="utf-8")
        file.write_bytes(signature)
        options = ("-f", str(allowed), "-I", _SIGNER, "-n", NAMESPACE, "-s", str(file))
        done = _ssh_keygen("-Y", "verify", *options, stdin=data)
    found = _FINGERPRINT.search(done.stdout)
    if done.returncode or not found:
        raise CorruptArtifact(f"the signature of {where} is not valid for {keys_file}: {_said(done)}")
    return found.group()


def public_keys(path: Path) -> list[str]:
    """Return the keys in a file of public keys, one a line.  Raises BadInput where it holds none."""
    derive = shell_line("ssh-keygen -y -f PRIVATE_KEY >", path, note="where the bundle was signed; carry it over")
    try:
        with path.open("rb") as file:
            text = file.read(LONGEST).decode("utf-8")
    except FileNotFoundError:
        raise BadInput(f"there is no file of public keys {path}", hint=derive) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"cannot read public keys from {path}: {why}", hint=shell_line("ls -ld", path)) from None
    found = [match for line in text.splitlines() if (match := _PUBLIC.fullmatch(line.strip()))]
    if not found:
        fact = "holds a private key" if "PRIVATE KEY" in text else "holds no public key"
        raise BadInput(f"{path} {fact}; it must be a line of a .pub file", hint=shell_line("--key", f"{path}.pub"))
    return [f"{match[1]} {match[2]}" for match in found]


def _ssh_keygen(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(["ssh-keygen", *arguments], input=stdin, capture_output=True, check=False)
    except FileNotFoundError:
        raise MissingExtra(
            "signatures need OpenSSH's ssh-keygen, which is not installed",
            hint="apt install openssh-client   # or the package of that name of your system",
        ) from None
    out, err = (stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return "; ".join(lines)[:300] or f"ssh-keygen ended with {done.returncode}"
