"""A bundle is in place, every byte of it checked, or it is not there at all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.errors import BadInput, CorruptArtifact, LocalmelError, MissingWeights, OutOfSpace
from localmel.store.progress import Listener, listening
from localmel.weights import install as installing
from localmel.weights.contents import UnsafeWeights
from localmel.weights.find import find_model
from localmel.weights.folders import installed_names, weights_home
from localmel.weights.install import exclusive, install_bundle
from localmel.weights.pack import pack
from localmel.weights.verify import verify
from tests.weights import small

ROOT = Path(__file__).resolve().parents[2]


def left_behind(home: Path) -> list[str]:
    """Everything under the home but the lock."""
    return sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.name != ".lock")


def refused(bundle: Path, home: Path, kind: type[LocalmelError], *said: str) -> None:
    """The bundle is refused with these words, and leaves nothing."""
    with pytest.raises(kind) as caught:
        install_bundle(bundle)
    for words in (bundle.name, *said):
        assert words in caught.value.fact
    assert left_behind(home) in ([], ["weights"])


def test_what_was_packed_is_installed_and_found(own_home: Path, model: Path, tmp_path: Path) -> None:
    pack([f"{model}/"], tmp_path / "b.tar")
    (installed,) = install_bundle(tmp_path / "b.tar")
    files = small.language_model(shards=2)
    assert {name: (installed.folder / name).read_bytes() for name in files} == files
    assert find_model("small").path == installed.folder == weights_home() / "small"
    found = find_model("small")
    facts = found.folder
    assert (facts.architecture, facts.context, facts.n_parameters) == ("LlamaForCausalLM", 64, 128)
    assert found.record is not None
    assert found.record.licence == "mit"
    assert verify("small").findings == ()
    assert sorted(path.name for path in weights_home().iterdir()) == [".lock", "small"]


@pytest.mark.parametrize("layout", [small.language_model(), small.vision_language_model(), small.clip()])
def test_every_layout_survives_the_way(own_home: Path, tmp_path: Path, layout: dict[str, bytes]) -> None:
    folder = small.write(tmp_path / "any", layout)
    pack([f"{folder}/"], tmp_path / "b.tar", name="other-name")
    (installed,) = install_bundle(tmp_path / "b.tar")
    assert {name: (installed.folder / name).read_bytes() for name in layout} == layout


def test_several_models_travel_in_one_bundle(own_home: Path, model: Path, tmp_path: Path) -> None:
    other = small.write(tmp_path / "clip", small.clip())
    pack([f"{model}/", f"{other}/"], tmp_path / "b.tar")
    assert [one.record.name for one in install_bundle(tmp_path / "b.tar")] == ["clip", "small"]
    assert installed_names() == ["clip", "small"]


def test_installing_again_changes_nothing(own_home: Path, model: Path, tmp_path: Path) -> None:
    pack([f"{model}/"], tmp_path / "b.tar")
    (first,) = install_bundle(tmp_path / "b.tar")
    before = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    (second,) = install_bundle(tmp_path / "b.tar")
    assert (first.already, second.already) == (False, True)
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")} == before


def test_another_model_of_that_name_is_replaced_only_when_asked(own_home: Path, model: Path, tmp_path: Path) -> None:
    pack([f"{model}/"], tmp_path / "b.tar")
    other = small.write(tmp_path / "other", small.language_model(seed=1))
    pack([f"{other}/"], tmp_path / "c.tar", name="small")
    install_bundle(tmp_path / "b.tar")
    with pytest.raises(BadInput, match="other weights are installed"):
        install_bundle(tmp_path / "c.tar")
    assert verify("small").findings == ()
    install_bundle(tmp_path / "c.tar", replace_installed=True)
    assert (find_model("small").path / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert not (find_model("small").path / "model.safetensors.index.json").exists()


BIG = {"shards": 2, "rows": 140_000}
"Shards of more than the MiB up to which a file is hashed whenever its model is looked up."


@pytest.mark.parametrize("replace_installed", [False, True])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_weights_are_put_right_by_the_same_bundle(
    own_home: Path, tmp_path: Path, damage: str, replace_installed: bool
) -> None:
    folder = small.write(tmp_path / "big", small.language_model(**BIG))
    pack([f"{folder}/"], tmp_path / "b.tar")
    (installed,) = install_bundle(tmp_path / "b.tar")
    shard = installed.folder / "model-00001-of-00002.safetensors"
    data = shard.read_bytes()
    flipped(shard, shard, len(data) // 2, data[len(data) // 2] ^ 1) if damage == "flip" else shard.write_bytes(data[:9])
    if damage == "remove":
        shard.unlink()
    (again,) = install_bundle(tmp_path / "b.tar", replace_installed=replace_installed)
    assert again.already is False
    assert str(shard) in again.damage
    assert shard.read_bytes() == data
    assert verify("big").findings == ()
    (third,) = install_bundle(tmp_path / "b.tar", replace_installed=replace_installed)
    assert (third.already, third.damage) == (True, "")


def test_what_somebody_put_beside_installed_weights_goes_only_when_asked(
    own_home: Path, model: Path, tmp_path: Path
) -> None:
    pack([f"{model}/"], tmp_path / "b.tar")
    (installed,) = install_bundle(tmp_path / "b.tar")
    mine = small.write(installed.folder, {"mine.txt": b"x"}) / "mine.txt"
    with pytest.raises(
        BadInput, match=r"damaged weights are installed as 'small' \(.*mine\.txt was not part"
    ) as caught:
        install_bundle(tmp_path / "b.tar")
    assert caught.value.hint == "add --replace, or: localmel weights rm --yes small"
    assert mine.exists()
    assert "mine.txt" in install_bundle(tmp_path / "b.tar", replace_installed=True)[0].damage
    assert verify("small").findings == ()


@pytest.mark.parametrize("replace_installed", [False, True])
@pytest.mark.parametrize("damaged", [False, True])
def test_a_damaged_bundle_is_refused_though_its_model_is_installed(
    own_home: Path, tmp_path: Path, damaged: bool, replace_installed: bool
) -> None:
    folder = small.write(tmp_path / "big", small.language_model(**BIG))
    bundle = pack([f"{folder}/"], tmp_path / "b.tar").path
    (installed,) = install_bundle(bundle)
    data = bundle.read_bytes()
    broken = flipped(bundle, tmp_path / "c.tar", len(data) // 2, data[len(data) // 2] ^ 1)
    shard = installed.folder / "model-00002-of-00002.safetensors"
    if damaged:
        flipped(shard, shard, 5000, shard.read_bytes()[5000] ^ 1)
    before = shard.read_bytes()
    with pytest.raises(CorruptArtifact, match=r"c\.tar: big/model-0000.-of-00002\.safetensors is damaged") as caught:
        install_bundle(broken, replace_installed=replace_installed)
    assert caught.value.hint == "copy the bundle again from where it was packed"
    assert shard.read_bytes() == before
    assert sorted(path.name for path in weights_home().iterdir()) == [".lock", "big"]


# --- what may not be in a bundle, though its manifest tells the truth about it -----------------------------------


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("pytorch_model.bin", b"\x80\x04.", "pickle"),
        ("modeling_small.py", b"import os\n", "code"),
        ("run.sh", b"#!/bin/sh\n", "code"),
        ("config.json", b'{"auto_map": {"AutoConfig": "evil.Config"}, "vocab_size": 8}', "'auto_map'"),
        ("processor_config.json", b'{"a": [{"auto_map": 1}]}', "'auto_map'"),
        ("vocab.txt", b"\x80\x04\x95.", "pickle"),
        ("extra.safetensors", b"PK\x03\x04" + bytes(30), "not a safetensors"),
        ("extra.json", b"\x7fELF", "a program"),
        ("tokenizer.model", b"PK\x03\x04", "zip"),
        ("../escape.json", b"{}", "lead out"),
        ("/etc/localmel.json", b"{}", "lead out"),
        ("manifest.json", b"{}", "only localmel itself may use"),
    ],
)
def test_what_has_no_place_in_a_model_is_refused_by_name(
    own_home: Path, tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    bundle = small.forge(tmp_path / "evil.tar", small.language_model() | {name: data})
    refused(bundle, own_home, UnsafeWeights, name, said)
    assert not (tmp_path / "escape.json").exists()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("model.safetensors", small.tensors({"a": (2,)})[:-1], "not a complete safetensors file"),
        ("extra.safetensors", (9).to_bytes(8, "little") + b'{"a": 1} ', "not a complete safetensors file"),
        ("model.safetensors", b"", "not a complete safetensors file"),
        ("config.json", b"", "config.json"),
        ("config.json", b"{", "not JSON"),
    ],
)
def test_a_damaged_model_is_refused_though_its_hashes_are_right(
    own_home: Path, tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    bundle = small.forge(tmp_path / "evil.tar", small.language_model() | {name: data})
    refused(bundle, own_home, LocalmelError, name, said)  # type: ignore[type-abstract]


@pytest.mark.parametrize("lacking", ["config.json", "tokenizer.json", "model-00002-of-00002.safetensors"])
def test_half_a_model_is_refused_by_what_it_lacks(own_home: Path, tmp_path: Path, lacking: str) -> None:
    files = small.language_model(shards=2)
    del files[lacking]
    refused(small.forge(tmp_path / "half.tar", files), own_home, MissingWeights, lacking.partition(".")[0])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_devices_and_pipes_are_refused_before_a_byte_is_written(
    own_home: Path, tmp_path: Path, kind: bytes
) -> None:
    member = tarfile.TarInfo("models/small/link.json")
    member.type, member.linkname = kind, "../../../../etc/passwd"
    bundle = small.forge_with(tmp_path / "evil.tar", small.language_model(), [member])
    refused(bundle, own_home, UnsafeWeights, "models/small/link.json")


def test_members_that_the_manifest_does_not_name_are_refused(own_home: Path, tmp_path: Path) -> None:
    record = small.record("small", small.language_model()).to_json()
    bundle = small.forge(tmp_path / "b.tar", small.language_model() | {"extra.json": b"{}"}, records=[record])
    refused(bundle, own_home, UnsafeWeights, "extra.json", "does not name")


def test_members_in_another_order_are_refused(own_home: Path, tmp_path: Path) -> None:
    bundle = small.forge(tmp_path / "b.tar", small.language_model())
    whole = bundle.read_bytes()
    with tarfile.open(bundle) as tar:
        *_, before, last = tar.getmembers()
    swapped = whole[last.offset : -1024] + whole[before.offset : last.offset]
    bundle.write_bytes(whole[: before.offset] + swapped + bytes(1024))
    refused(bundle, own_home, CorruptArtifact, "another order")


def test_the_list_of_parts_is_under_the_manifest_s_hash_too(own_home: Path, tmp_path: Path) -> None:
    bundle = small.forge(tmp_path / "b.tar", small.language_model())
    with tarfile.open(bundle) as tar:
        at = tar.getmember("sbom.cdx.json").offset_data
    with bundle.open("r+b") as file:
        file.seek(at)
        file.write(b"[")
    refused(bundle, own_home, CorruptArtifact, "sbom.cdx.json")


def test_a_configuration_that_asks_for_code_is_refused_before_gigabytes_are_unpacked(
    own_home: Path, tmp_path: Path
) -> None:
    files = small.language_model(rows=300_000) | {"config.json": b'{"auto_map": {}}'}
    told: list[int] = []
    with pytest.raises(UnsafeWeights, match="auto_map"), listening(Listener(on_done=told.append)):
        install_bundle(small.forge(tmp_path / "b.tar", files))
    assert sum(told) < 10_000


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table["files"].pop("config.json"), "does not name"),
        (lambda table: table["files"]["config.json"].update(bytes=1), "has 110 bytes"),
        (lambda table: table["files"]["config.json"].update(bytes=-1), "-1 bytes"),
        (lambda table: table["files"]["config.json"].update(bytes=1 << 60), "bytes"),
        (lambda table: table["files"]["config.json"].update(sha256="0" * 64), "its sha256 is"),
        (lambda table: table["files"]["config.json"].update(sha256="x"), "no sha256"),
        (lambda table: table["files"]["config.json"].update(more=1), "unknown field `more`"),
        (
            lambda table: table["files"].update({"none.json": {"bytes": 1, "sha256": "0" * 64}}),
            "lacks models/small/none",
        ),
        (lambda table: table["files"].update({"CONFIG.json": table["files"]["config.json"]}), "upper and lower"),
        (lambda table: table["files"].update({"LICENSE/x.json": table["files"]["LICENSE"]}), "below a file"),
        (lambda table: table["files"].update({"../x.json": table["files"]["LICENSE"]}), "lead out"),
        (lambda table: table.update(name="../evil"), "the name"),
        (lambda table: table.update(name=".hidden"), "the name"),
        (lambda table: table.update(name="all-MiniLM-L6-v2"), "MiniLM"),
        (lambda table: table.update(adopted="/etc"), "only the receiving machine"),
        (lambda table: table.update(signed_by="SHA256:me"), "only the receiving machine"),
        (lambda table: table.update(files={}), "0 files"),
        (lambda table: table.update(files=[]), "Expected `object`"),
        (lambda table: table.update(more="x"), "unknown field `more`"),
        (lambda table: table.update(licence=["x"]), "Expected `str`"),
        (lambda table: table.update(licence="x" * 3000), "longer than"),
        (lambda table: table.pop("name"), "missing required field `name`"),
    ],
)
def test_a_manifest_that_lies_is_refused(own_home: Path, tmp_path: Path, change: Change, said: str) -> None:
    files = small.language_model()
    table = small.record("small", files).to_json()
    change(table)
    bundle = small.forge(tmp_path / "b.tar", files, records=[table])
    with pytest.raises(LocalmelError) as caught:
        install_bundle(bundle)
    assert said in caught.value.fact
    assert left_behind(own_home) in ([], ["weights"])


def test_a_wrong_hash_names_the_file_and_both_hashes(own_home: Path, model: Path, tmp_path: Path) -> None:
    pack([f"{model}/"], tmp_path / "b.tar")
    whole = bytearray((tmp_path / "b.tar").read_bytes())
    data = (model / "model-00001-of-00002.safetensors").read_bytes()
    at = whole.index(data) + len(data) - 1
    whole[at] ^= 1
    (tmp_path / "b.tar").write_bytes(whole)
    wrong = small.sha256(bytes(whole[at + 1 - len(data) : at + 1]))
    refused(tmp_path / "b.tar", own_home, CorruptArtifact, "model-00001-of-00002", small.sha256(data), wrong)


def test_a_refused_replacement_leaves_what_stood_there(own_home: Path, model: Path, tmp_path: Path) -> None:
    pack([f"{model}/"], tmp_path / "b.tar")
    install_bundle(tmp_path / "b.tar")
    small.forge(tmp_path / "evil.tar", small.language_model() | {"config.json": b'{"auto_map": 1}'})
    with pytest.raises(UnsafeWeights):
        install_bundle(tmp_path / "evil.tar", replace_installed=True)
    assert verify("small").findings == ()
    assert sorted(path.name for path in weights_home().iterdir()) == [".lock", "small"]


# --- space, other processes, interruptions -------------------------------------------------------------------------


def test_too_little_space_is_said_before_anything_is_written(
    own_home: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack([f"{model}/"], tmp_path / "b.tar")
    monkeypatch.setattr(installing.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 5))
    with pytest.raises(OutOfSpace, match=r"cannot install: .* more bytes, 5 are free"):
        install_bundle(tmp_path / "b.tar")
    assert [path for path in left_behind(own_home) if not path.startswith("weights/.incoming-")] == ["weights"]
    assert not [path for path in own_home.rglob("*") if path.is_file() and path.name != ".lock"]


def test_two_installs_at_once_are_one_too_many(own_home: Path, model: Path, tmp_path: Path) -> None:
    pack([f"{model}/"], tmp_path / "b.tar")
    program = "from localmel.weights.install import exclusive\nwith exclusive(): print('held', flush=True); input()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BadInput, match="another process"):
            install_bundle(tmp_path / "b.tar")
        other.communicate("\n", timeout=30)
    install_bundle(tmp_path / "b.tar")
    with exclusive():
        pass


def test_an_interrupted_install_goes_on_from_the_files_it_had(
    own_home: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack([f"{model}/"], tmp_path / "b.tar")
    written: list[str] = []
    true_unpack = installing._unpack_file

    def counted(file: Any, member: Any, *rest: Any) -> None:
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(member.name)
        true_unpack(file, member, *rest)

    monkeypatch.setattr(installing, "_unpack_file", counted)
    with pytest.raises(KeyboardInterrupt):
        install_bundle(tmp_path / "b.tar")
    assert installed_names() == []
    finished = written.copy()
    staged = next(weights_home().glob(".incoming-*/small"))
    (staged / finished[0]).write_bytes(b"x" * (staged / finished[0]).stat().st_size)  # damaged in the meantime
    (staged / "left.py").write_text("x", encoding="utf-8")
    written[:] = ["", "", "", "", ""]
    install_bundle(tmp_path / "b.tar")
    assert sorted(written[5:]) == sorted({*small.language_model(shards=2)} - set(finished[1:]))
    assert verify("small").findings == ()


@pytest.mark.parametrize("round_number", range(4))
def test_a_killed_install_is_finished_by_the_next(own_home: Path, tmp_path: Path, round_number: int) -> None:
    """The process dies at four different moments; what it leaves is either nothing or a whole model."""
    folder = small.write(tmp_path / "big", small.language_model(shards=4, rows=400_000))
    pack([f"{folder}/"], tmp_path / "b.tar")
    program = "from pathlib import Path\nfrom localmel.weights.install import install_bundle\n"
    program += f"install_bundle(Path({str(tmp_path / 'b.tar')!r}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE) as running:
        deadline = time.monotonic() + 120
        while running.poll() is None and time.monotonic() < deadline:
            if len(list(weights_home().glob(".incoming-*/big/*.safetensors"))) >= round_number:
                running.send_signal(signal.SIGKILL)
                break
            time.sleep(0.0005)
        running.wait(60)
    assert installed_names() in ([], ["big"])
    install_bundle(tmp_path / "b.tar")
    assert verify("big").findings == ()
    assert sorted(path.name for path in weights_home().iterdir()) == [".lock", "big"]


def test_the_manifest_of_an_installed_model_says_where_it_is_from(own_home: Path, model: Path, tmp_path: Path) -> None:
    pack([f"{model}/"], tmp_path / "b.tar")
    (installed,) = install_bundle(tmp_path / "b.tar")
    table = json.loads((installed.folder / "manifest.json").read_text(encoding="utf-8"))
    assert (table["kind"], table["version"], table["name"], table["licence"]) == ("weights", 1, "small", "mit")
    assert table["files"]["LICENSE"] == {"bytes": len(small.LICENCE), "sha256": small.sha256(small.LICENCE.encode())}


# --- what a person mistakes for a bundle, and what happens to one on its way --------------------------------------


def flipped(bundle: Path, target: Path, place: int, byte: int) -> Path:
    data = bytearray(bundle.read_bytes())
    data[place] = byte
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("byte", [0x00, 0x80, 0xFF, ord("x")], ids=["NUL", "pickle", "no UTF-8", "another letter"])
@pytest.mark.parametrize("offset", [0, 1, 20])
def test_a_flipped_byte_is_a_wrong_hash_whatever_it_turns_a_configuration_into(
    own_home: Path, model: Path, tmp_path: Path, offset: int, byte: int
) -> None:
    """Not a pickle, not a program, no broken JSON: the hash is looked at before the content is."""
    bundle = pack([f"{model}/"], tmp_path / "b.tar").path
    place = bundle.read_bytes().index((model / "config.json").read_bytes())
    broken = flipped(bundle, tmp_path / "c.tar", place + offset, byte)
    with pytest.raises(CorruptArtifact, match=r"c\.tar: small/config\.json is damaged: its sha256 is") as caught:
        install_bundle(broken)
    assert caught.value.hint == "copy the bundle again from where it was packed"
    assert left_behind(own_home) in ([], ["weights"])


def test_every_damage_to_a_bundle_has_a_next_command(own_home: Path, model: Path, tmp_path: Path) -> None:
    bundle = pack([f"{model}/"], tmp_path / "b.tar").path
    data = bundle.read_bytes()
    for broken in (data[:5], data[:100], data[:5000], data[:-600], data + b"x", b""):
        (tmp_path / "c.tar").write_bytes(broken)
        with pytest.raises(CorruptArtifact) as caught:
            install_bundle(tmp_path / "c.tar")
        assert caught.value.hint.startswith("copy the bundle again")


@pytest.mark.parametrize("data", [b"no tar" * 200, b'{"a": 1}\n', b"manifest.json", b"PK\x03\x04" * 300])
def test_another_file_is_no_bundle_rather_than_half_of_one(own_home: Path, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "random.jsonl").write_bytes(data)
    with pytest.raises(CorruptArtifact) as caught:
        install_bundle(tmp_path / "random.jsonl")
    cut_off = data == b"manifest.json"  # as far as it goes, it is one
    assert ("is cut off" in caught.value.fact, "is not a bundle" in caught.value.fact) == (cut_off, not cut_off)
    assert caught.value.hint.startswith("copy the bundle again" if cut_off else "localmel weights pack ")


def test_a_folder_in_place_of_a_bundle_can_be_adopted(own_home: Path, model: Path) -> None:
    with pytest.raises(BadInput, match="is a folder, not a bundle") as caught:
        install_bundle(model)
    assert caught.value.hint == f"localmel weights install --adopt {model}"


def test_what_is_no_file_is_not_waited_for(own_home: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar")
    for path in (tmp_path / "pipe.tar", Path("/dev/zero")):
        with pytest.raises(BadInput, match="not an ordinary file"):
            install_bundle(path)
    with pytest.raises(BadInput, match="cannot read"):
        install_bundle(Path("a\0b"))


def test_a_key_that_is_not_there_is_said_before_the_bundle_is_read(own_home: Path, model: Path, tmp_path: Path) -> None:
    bundle = pack([f"{model}/"], tmp_path / "b.tar").path
    with pytest.raises(BadInput, match=r"there is no file of public keys .*lab\.pub") as caught:
        install_bundle(bundle, key=tmp_path / "lab.pub")
    assert caught.value.hint.startswith("ssh-keygen -y -f PRIVATE_KEY > ")
    with pytest.raises(BadInput, match="Is a directory") as caught:
        install_bundle(bundle, key=tmp_path)
    assert caught.value.hint == f"ls -ld {tmp_path}"
