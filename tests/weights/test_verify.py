"""Every byte against the record, and the error that says where they part."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localmel.errors import CorruptArtifact, MissingWeights
from localmel.weights.catalog import MINILM
from localmel.weights.install import install_bundle
from localmel.weights.pack import pack
from localmel.weights.verify import verify, verify_all
from tests.weights import small


@pytest.fixture
def installed(own_home: Path, model: Path, tmp_path: Path) -> Path:
    pack([f"{model}/"], tmp_path / "b.tar")
    return install_bundle(tmp_path / "b.tar")[0].folder


@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_one_changed_byte_anywhere_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("LOCALMEL_HOME", str(home))
        files = small.language_model(shards=2)
        small.write(home / "source" / "small", files)
        pack([f"{home / 'source' / 'small'}/"], home / "b.tar")
        folder = install_bundle(home / "b.tar")[0].folder
        name = data.draw(st.sampled_from(sorted(files)))
        changed = bytearray(files[name])
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
        (folder / name).write_bytes(changed)
        found = verify("small")
    assert [(finding.file, finding.kind) for finding in found.findings] == [(name, "changed")]
    assert small.sha256(bytes(changed)) in found.findings[0].fact


def test_whole_weights_have_no_findings(installed: Path) -> None:
    found = verify("small")
    assert (found.findings, found.error(), found.files) == ((), None, len(small.language_model(shards=2)))
    assert found.bytes == sum(len(data) for data in small.language_model(shards=2).values())


def test_a_missing_file_makes_the_error_one_of_missing_weights(installed: Path) -> None:
    (installed / "tokenizer.json").unlink()
    (installed / "config.json").write_text("[]", encoding="utf-8")
    found = verify("small")
    assert {finding.file: finding.kind for finding in found.findings} == {
        "tokenizer.json": "missing",
        "config.json": "changed",
    }
    assert isinstance(found.error(), MissingWeights)
    assert "(and 1 more)" in str(found.error())


def test_a_file_that_came_later_is_a_finding(installed: Path) -> None:
    (installed / "modeling.py").write_text("import os", encoding="utf-8")
    (installed / "deep").mkdir()
    (installed / "deep" / "x.json").write_text("{}", encoding="utf-8")
    found = verify("small")
    assert [(one.file, one.kind) for one in found.findings] == [
        ("deep/x.json", "not recorded"),
        ("modeling.py", "not recorded"),
    ]
    assert isinstance(found.error(), CorruptArtifact)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "weights"}', '{"kind": "kb", "version": 1, "files": {}}'])
def test_a_damaged_record_is_corrupt_and_hides_no_other(installed: Path, text: str) -> None:
    (installed / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(CorruptArtifact, match=r"manifest\.json"):
        verify("small")
    found = {one.name: one for one in verify_all()}
    assert found[MINILM.name].findings == ()
    assert found["small"].findings[0].kind == "unusable"


def test_what_is_not_here_is_missing(own_home: Path) -> None:
    with pytest.raises(MissingWeights, match="no weights are installed as 'llava'"):
        verify("llava")


def test_a_folder_in_place_of_a_file_is_missing(installed: Path) -> None:
    (installed / "config.json").unlink()
    (installed / "config.json").mkdir()
    assert [finding.kind for finding in verify("small").findings] in (["missing"], ["changed"])


def test_a_folder_with_a_record_is_verified_by_its_path(installed: Path, tmp_path: Path) -> None:
    elsewhere = installed.rename(tmp_path / "elsewhere")
    assert verify(str(elsewhere)).findings == ()
    (elsewhere / "LICENSE").write_text("other", encoding="utf-8")
    assert [finding.file for finding in verify(str(elsewhere)).findings] == ["LICENSE"]
    with pytest.raises(MissingWeights, match=r"has no manifest\.json"):
        verify(str(tmp_path / "small"))
