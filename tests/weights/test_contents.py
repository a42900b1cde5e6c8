"""What may be in a model: names, first bytes, configurations."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.errors import BadInput
from localmel.weights.contents import UnsafeWeights, check_beginning, check_configuration, refused_name

PUBLISHED = [
    "config.json", "model-00001-of-00004.safetensors", "model.safetensors.index.json", "tokenizer.model", "vocab.json",
    "merges.txt", "chat_template.jinja", "LICENSE", "LICENSE.txt", "Notice", "USE_POLICY.md", "1_Pooling/config.json",
    "additional_chat_templates/tool_use.jinja", "README.md",
]  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_files_of_published_models_may_be_there(name: str) -> None:
    assert refused_name(name) == ""


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../config.json", "lead out"), ("a/../../config.json", "lead out"), ("/etc/passwd.json", "lead out"),
        ("a\\..\\config.json", "lead out"), ("..", "lead out"), ("", "0 characters"), ("a" * 101 + ".json", "106"),
        (".hidden.json", "not a plain name"), ("a//b.json", "not a plain name"), ("a/./b.json", "not a plain name"),
        ("-rf.json", "not a plain name"), ("a\nb.json", "not a plain name"), ("a\0.json", "not a plain name"),
        ("b\u202ejson.json", "not a plain name"), ("con.json", "not a plain name"), ("aux/b.json", "not a plain name"),
        ("a/b/c/d/e.json", "not a plain name"), ("pytorch_model.bin", "pickle"), ("consolidated.00.pth", "pickle"),
        ("scaler.pt", "pickle"), ("a.ckpt", "pickle"), ("MODEL.PKL", "pickle"), ("modeling_llava.py", "code"),
        ("kernel.so", "code"), ("model.gguf", "not a kind of file"), ("model.onnx", "not a kind of file"),
        ("config.json.exe", "code"), ("config", "not a kind of file"), ("LICENSES", "not a kind of file"),
    ],
)  # fmt: skip
def test_other_names_are_refused_with_the_reason(name: str, why: str) -> None:
    assert why in refused_name(name)


@given(st.text(max_size=120))
def test_a_name_that_is_taken_stays_in_its_folder(name: str) -> None:
    if not refused_name(name):
        assert (Path("/place") / name).resolve().is_relative_to("/place")
        assert name.isascii()
        assert name.isprintable()


@pytest.mark.parametrize(
    ("name", "first", "kind"),
    [
        ("config.json", pickle.dumps({"a": 1}, protocol=4), "pickle"),
        ("tokenizer.model", pickle.dumps([1], protocol=2), "pickle"),
        ("vocab.txt", b"PK\x03\x04abc", "zip"),
        ("model.safetensors", b"PK\x03\x04" + bytes(20), "not a safetensors"),
        ("model.safetensors", bytes(8) + b"\x80\x04", "not a safetensors"),
        ("README.md", b"#!/bin/sh\n", "script"),
        ("LICENSE", b"\x7fELF\x02", "program"),
        ("merges.txt", b"a b\0c", "not text"),
        ("config.json", b"GGUF\x03", "GGUF"),
    ],
)
def test_first_bytes_that_are_something_else_are_refused(name: str, first: bytes, kind: str) -> None:
    with pytest.raises(UnsafeWeights, match=kind) as caught:
        check_beginning(f"bundle.tar: small/{name}", first)
    assert name in caught.value.fact


@pytest.mark.parametrize("first", [b"\n\x0b\n\x05<unk>\x15\0\0\0\0", b"IQ== 0\nIg== 1\n"])
def test_both_kinds_of_vocabulary_files_are_taken(first: bytes) -> None:
    check_beginning("tokenizer.model", first)


@pytest.mark.parametrize(
    "value",
    [
        {"auto_map": {"AutoConfig": "configuration_evil.Config"}},
        {"auto_map": None},
        {"text_config": {"auto_map": {"AutoModel": "evil--repo.Model"}}},
        {"layers": [{"deep": [{"auto_map": []}]}]},
        {"custom_pipelines": {"evil": {"impl": "evil.Pipeline"}}},
    ],
)
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "1_Pooling/config.json", "anything.json"])
def test_a_configuration_that_asks_for_code_is_refused(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "x"
    path.write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(UnsafeWeights, match="asks for Python code") as caught:
        check_configuration(name, path)
    assert name in caught.value.fact


def test_an_escaped_key_is_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text('{"auto\\u005fmap": {}}', encoding="utf-8")
    with pytest.raises(UnsafeWeights):
        check_configuration("config.json", path)


def test_a_vocabulary_may_hold_any_word(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text('{"auto_map": 17}', encoding="utf-8")
    for name in ("vocab.json", "tokenizer.json", "model.safetensors.index.json", "added_tokens.json"):
        check_configuration(name, path)


@pytest.mark.parametrize("text", ["{", "", "[" * 100_000, '{"a": NaN', "\ufeff{", b"\xff\xfe{".decode("latin-1")])
def test_json_that_cannot_be_read_is_bad_input(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=r"config\.json is not JSON"):
        check_configuration("config.json", path)


def test_a_configuration_of_many_megabytes_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b" " * (16 * 1024 * 1024 + 1))
    with pytest.raises(BadInput, match="16,777,217 bytes"):
        check_configuration("config.json", path)
