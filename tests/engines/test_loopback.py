"""Nothing that leads off this machine is spoken to, however it is written."""

from __future__ import annotations

import socket

import pytest

from localmel.engines.loopback import checked_place
from localmel.engines.open import open_engine
from localmel.errors import UsageError
from localmel.settings import EngineSettings


@pytest.mark.parametrize(
    ("url", "pinned"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://127.9.9.9:1/v1/", "http://127.9.9.9:1/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("http://[::ffff:127.0.0.1]:80", "http://[::ffff:7f00:1]:80"),
        ("https://127.0.0.1/v1", "https://127.0.0.1/v1"),
    ],
)
def test_this_machine_is_taken_in_every_spelling(url: str, pinned: str) -> None:
    assert checked_place(url, allow_remote=False).url == pinned


def test_a_name_of_this_machine_is_pinned_to_the_address_that_was_checked() -> None:
    place = checked_place("http://localhost:11434/v1", allow_remote=False)
    assert place.url == "http://127.0.0.1:11434/v1"
    assert place.host == "localhost:11434"
    assert checked_place("https://LOCALHOST./v1", allow_remote=False).url == "https://127.0.0.1/v1"


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1:8000/v1",
        "http://0.0.0.0:8000/v1",
        "http://10.0.0.1/v1",
        "http://[2001:db8::1]/v1",
        "http://[::ffff:192.0.2.1]/v1",
        "http://169.254.169.254/v1",
    ],
)
def test_an_address_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="leads off this machine") as refusal:
        checked_place(url, allow_remote=False)
    assert "allow_remote = true" in refusal.value.hint
    assert checked_place(url, allow_remote=True).url == url


@pytest.mark.parametrize(
    "host", ["example.com", "localhost.example.com", "2130706433", "0x7f.1", "127.1", "here", "ip6-localhost", "xn--a"]
)
def test_any_other_name_is_refused_without_a_look_up(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A question to a name server would say outside what is wanted here, and its answer could be anything."""
    asked = []
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "create_connection"):
        monkeypatch.setattr(socket, name, lambda *given, **_: asked.append(given))
    with pytest.raises(UsageError, match=f"'{host}', and names are not looked up"):
        checked_place(f"http://{host}:8000/v1", allow_remote=False)
    assert checked_place(f"http://{host}:8000/v1", allow_remote=True).url == f"http://{host}:8000/v1"
    assert asked == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "file:///etc/passwd",
        "http://",
        "http://user:secret@127.0.0.1/v1",
        "http://127.0.0.1:99999/v1",
        "http://127.0.0.1/v1?x=1",
        "http://[::1/v1",
    ],
)
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is no"):
        checked_place(url, allow_remote=False)


def test_an_engine_for_a_server_elsewhere_is_not_opened() -> None:
    settings = EngineSettings(engine="server", weights="any", url="http://192.0.2.1/v1")
    with pytest.raises(UsageError, match="pictures and texts would leave it"):
        open_engine(settings)
