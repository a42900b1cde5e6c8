"""A hub on loopback: the few answers of the Hugging Face Hub that a download of pinned files needs.

It knows one repository with files under one commit, counts what it was asked for, and can break off in the middle of a
file, answer with other bytes, or refuse."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = 2000
"Bytes from which the hub keeps a file apart and gives its sha256."


class Hub(ThreadingHTTPServer):
    """`files` of `repository` at `commit`; the rest is how it misbehaves."""

    daemon_threads = True

    def __init__(self, repository: str, commit: str, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.repository, self.commit, self.files = repository, commit, files
        self.status = 200
        self.sent_instead: dict[str, bytes] = {}
        "Bytes that are sent for a file, whatever its hash says."
        self.break_after: dict[str, int] = {}
        "Bytes of a file after which the connection is closed, once."
        self.downloads: list[tuple[str, int]] = []
        "Every file that was sent, with the byte it began at."

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def facts(self, name: str) -> dict[str, object]:
        data = self.files[name]
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        found: dict[str, object] = {"size": len(data), "oid": oid, "blobId": oid}
        if len(data) >= LARGE:
            sha256 = hashlib.sha256(data).hexdigest()
            found["lfs"] = {"size": len(data), "oid": sha256, "sha256": sha256, "pointerSize": 130}
        return found


@contextmanager
def running(repository: str, commit: str, files: Mapping[str, bytes]) -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    hub = Hub(repository, commit, files)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        if hub.status != 200:
            self._send(hub.status, b'{"error": "refused"}', {}, body=body)
        elif path.startswith(f"/api/models/{hub.repository}/revision/"):
            siblings = [{"rfilename": name, **hub.facts(name)} for name in hub.files]
            self._json({"id": hub.repository, "sha": hub.commit, "siblings": siblings}, body=body)
        elif path.startswith(f"/api/models/{hub.repository}/tree/"):
            self._json([{"type": "file", "path": name, **hub.facts(name)} for name in hub.files], body=body)
        elif path.startswith(f"/{hub.repository}/resolve/{hub.commit}/"):
            self._file(path.removeprefix(f"/{hub.repository}/resolve/{hub.commit}/"), body=body)
        else:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body=body)

    def _file(self, name: str, *, body: bool) -> None:
        hub, data = self.server, self.server.sent_instead.get(name, self.server.files[name])
        facts, start = hub.facts(name), 0
        lfs = facts.get("lfs")
        etag = lfs["sha256"] if isinstance(lfs, dict) else facts["oid"]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": hub.commit, "Accept-Ranges": "bytes"}
        if given := self.headers.get("Range"):
            start = int(given.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if body:
            hub.downloads.append((name, start))
        cut = hub.break_after.pop(name, None) if body else None
        self._send(206 if start else 200, data[start:], headers, body=body, cut=cut)

    def _json(self, value: object, *, body: bool) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, body=body)

    def _send(
        self, status: int, data: bytes, headers: Mapping[str, str], *, body: bool, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data[:cut])
        if cut is not None:
            self.close_connection = True
