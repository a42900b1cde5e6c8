"""Signatures by OpenSSH: whose they are, and what they cover."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from localmel.errors import BadInput, CorruptArtifact, MissingExtra
from localmel.weights.folders import installed_names, place_of
from localmel.weights.install import install_bundle
from localmel.weights.manifest import read_record
from localmel.weights.pack import pack
from localmel.weights.signature import check, public_keys, sign
from tests.weights import small

if shutil.which("ssh-keygen") is None:
    pytest.skip("this system has no ssh-keygen (package openssh-client)", allow_module_level=True)


def new_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "somebody in the lab", "-f", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return new_key(tmp_path / "key")


def public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def fingerprint(key: Path) -> str:
    done = subprocess.run(["ssh-keygen", "-l", "-f", str(key)], check=True, capture_output=True, text=True)
    return done.stdout.split()[1]


def held(data: bytes, signature: bytes, keys: Path) -> str:
    return check(data, signature, public_keys(keys), where="b.tar", keys_file=keys)


def test_a_signed_bundle_is_installed_and_the_signer_recorded(
    own_home: Path, model: Path, tmp_path: Path, key: Path
) -> None:
    packed = pack([f"{model}/"], tmp_path / "b.tar", key=key)
    assert packed.signed
    (installed,) = install_bundle(packed.path, key=public(key))
    assert installed.signed_by == fingerprint(key)
    assert read_record(place_of("small")).signed_by == fingerprint(key)


def test_the_same_key_signs_the_same_bytes(own_home: Path, model: Path, tmp_path: Path, key: Path) -> None:
    first = pack([f"{model}/"], tmp_path / "a.tar", key=key).path.read_bytes()
    assert pack([f"{model}/"], tmp_path / "b.tar", key=key).path.read_bytes() == first


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_other_kinds_of_keys_sign_too(own_home: Path, model: Path, tmp_path: Path, kind: str) -> None:
    key = new_key(tmp_path / kind, kind)
    install_bundle(pack([f"{model}/"], tmp_path / "b.tar", key=key).path, key=public(key))


def test_a_stranger_s_signature_does_not_hold(own_home: Path, model: Path, tmp_path: Path, key: Path) -> None:
    pack([f"{model}/"], tmp_path / "b.tar", key=key)
    other = new_key(tmp_path / "other")
    with pytest.raises(CorruptArtifact, match=r"signature of .*b\.tar is not valid"):
        install_bundle(tmp_path / "b.tar", key=public(other))
    assert installed_names() == []


def test_one_of_several_keys_is_enough(own_home: Path, model: Path, tmp_path: Path, key: Path) -> None:
    other = new_key(tmp_path / "other")
    both = tmp_path / "lab.pub"
    both.write_text(f"# the lab\n{public(other).read_text()}\n{public(key).read_text()}", encoding="utf-8")
    pack([f"{model}/"], tmp_path / "b.tar", key=key)
    assert install_bundle(tmp_path / "b.tar", key=both)[0].signed_by == fingerprint(key)


def test_an_unsigned_bundle_is_refused_where_a_signature_is_asked_for(
    own_home: Path, model: Path, tmp_path: Path, key: Path
) -> None:
    pack([f"{model}/"], tmp_path / "b.tar")
    with pytest.raises(CorruptArtifact, match="carries no signature"):
        install_bundle(tmp_path / "b.tar", key=public(key))


def test_a_signature_nobody_asks_about_is_said_to_be_unchecked(
    own_home: Path, model: Path, tmp_path: Path, key: Path
) -> None:
    pack([f"{model}/"], tmp_path / "b.tar", key=key)
    (installed,) = install_bundle(tmp_path / "b.tar")
    assert installed.unchecked_signature
    assert read_record(installed.folder).signed_by == ""
    (again,) = install_bundle(tmp_path / "b.tar", key=public(key))
    assert (again.already, again.signed_by) == (True, fingerprint(key))
    assert read_record(installed.folder).signed_by == fingerprint(key)


def test_a_signature_covers_the_manifest_and_nothing_else_passes_for_it(tmp_path: Path, key: Path) -> None:
    signature = sign(b"manifest", key)
    assert held(b"manifest", signature, public(key)) == fingerprint(key)
    for data, given in ((b"manifesto", signature), (b"manifest", b""), (b"manifest", b"x" * 100)):
        with pytest.raises(CorruptArtifact, match=r"signature of b\.tar"):
            held(data, given, public(key))


def test_a_signature_made_for_another_purpose_does_not_hold(tmp_path: Path, key: Path) -> None:
    (tmp_path / "data").write_bytes(b"manifest")
    command = ["ssh-keygen", "-Y", "sign", "-q", "-f", str(key), "-n", "git", str(tmp_path / "data")]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(CorruptArtifact):
        held(b"manifest", (tmp_path / "data.sig").read_bytes(), public(key))


def test_the_private_key_in_place_of_the_public_one_is_noticed(tmp_path: Path, key: Path) -> None:
    with pytest.raises(BadInput, match="holds a private key"):
        held(b"x", b"y", key)


@pytest.mark.parametrize("text", ["", "hello\n", "ssh-ed25519 AAAA;rm\n", 'cert-authority ssh-ed25519 "x"\n'])
def test_a_file_without_keys_is_bad_input(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.pub"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="holds no public key"):
        held(b"x", b"y", path)


def test_a_key_that_is_not_there_is_named(tmp_path: Path, key: Path) -> None:
    with pytest.raises(BadInput, match="there is no key"):
        sign(b"x", tmp_path / "none")
    with pytest.raises(BadInput, match=r"none\.pub"):
        held(b"x", b"y", tmp_path / "none.pub")
    with pytest.raises(BadInput, match="cannot sign"):
        sign(b"x", small.write(tmp_path / "junk", {"key": b"junk"}) / "key")


def test_without_openssh_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match="ssh-keygen"):
        sign(b"x", key)
