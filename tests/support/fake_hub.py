"""A small Hugging Face Hub on this machine, of which huggingface_hub asks what it asks the real."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

OLD, NEW = "a" * 40, "b" * 40  # commits


@dataclass
class FakeHub:
    """files: content by repository, commit and name; heads: which commit a revision stands for."""

    home: Path
    url: str = ""
    files: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=lambda: {"main": NEW, "v1": OLD})
    status: dict[str, tuple[int, str]] = field(default_factory=dict)  # of repositories, with code
    asked: list[str] = field(default_factory=list)

    def put(self, repository: str, name: str, content: bytes, commit: str = NEW) -> str:
        """Keep a file, and say how it is named."""
        self.files.setdefault((repository, commit), {})[name] = content
        return f"hf://{repository}/{name}"

    @property
    def environment(self) -> dict[str, str]:
        """That of a process which asks this Hub, with a cache of its own."""
        return {
            "HF_ENDPOINT": self.url, "HF_HOME": str(self.home), "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_ETAG_TIMEOUT": "3", "NO_PROXY": "127.0.0.1",
        }  # fmt: skip

    def downloads(self) -> list[str]:
        return [line for line in self.asked if line.startswith("GET") and "/resolve/" in line]


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.asked.append(f"{self.command} {path}")
        api = path.startswith("api/models/")
        parts = path.removeprefix("api/models/").split("/")
        repository, rest = "/".join(parts[:2]), parts[2:]
        commits = {commit for name, commit in self.hub.files if name == repository}
        if repository in self.hub.status or not commits:
            status, code = self.hub.status.get(repository, (404, "RepoNotFound"))
            return self._send(status, {"X-Error-Code": code}, b"", body)
        revision = rest[1] if len(rest) > 1 else "main"
        commit = self.hub.heads.get(revision, revision)
        if commit not in commits:
            return self._send(404, {"X-Error-Code": "RevisionNotFound"}, b"", body)
        held = self.hub.files[repository, commit]
        headers = {"X-Repo-Commit": commit}
        if api:
            return self._send(200, headers, _listing(rest, commit, held), body)
        content = held.get("/".join(rest[2:]))
        if content is None:
            return self._send(404, headers | {"X-Error-Code": "EntryNotFound"}, b"", body)
        digest = hashlib.sha256(content).hexdigest()
        headers |= {"ETag": f'"{digest}"', "X-Linked-Etag": f'"{digest}"'}
        return self._send(200, headers | {"X-Linked-Size": str(len(content))}, content, body)

    def _send(self, status: int, headers: dict[str, str], content: bytes, body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


def _listing(rest: list[str], commit: str, held: dict[str, bytes]) -> bytes:
    if rest and rest[0] == "tree":
        return json.dumps([
            {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
            for name, content in held.items()
        ]).encode()  # fmt: skip
    siblings = [{"rfilename": name} for name in held]
    return json.dumps({"id": "x", "sha": commit, "siblings": siblings}).encode()


@contextmanager
def fake_hub(home: Path) -> Iterator[FakeHub]:
    """A Hub at work, whose users have their cache in `home`."""
    hub = FakeHub(home)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
