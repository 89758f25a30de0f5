"""As much of a W&B server as `wandb sync` asks for, on this machine."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Keeps of each run its history, by line, its summary, exit code, group and job type."""

    protocol_version = "HTTP/1.1"
    runs: dict[str, dict[str, Any]]
    address: str

    def do_POST(self) -> None:
        body = self.body()
        if self.path.endswith("file_stream"):
            self.stream(self.runs[self.path.split("/")[-2]], json.loads(body))
            self.answer({})
        elif self.path.endswith("graphql"):
            asked = json.loads(body)
            operation = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])[1]
            method = getattr(self, operation, self.nothing)
            self.answer({"data": method(asked.get("variables", {}))})
        else:
            self.answer({})

    def do_GET(self) -> None:
        self.answer({})

    def do_PUT(self) -> None:
        self.body()
        self.answer({})

    def stream(self, run: dict[str, Any], sent: dict[str, Any]) -> None:
        files = sent.get("files") or {}
        for name, key in (("wandb-history.jsonl", "history"), ("wandb-summary.json", "summary")):
            if name in files:
                lines = [json.loads(line) for line in files[name]["content"]]
                start = files[name]["offset"]
                run[key] |= dict(enumerate(lines, start)) if key == "history" else {0: lines[-1]}
        if "exitcode" in sent:
            run["exit_code"] = sent["exitcode"]

    def UpsertBucket(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        new = asked["name"] not in self.runs
        run = self.runs.setdefault(asked["name"], {"history": {}, "summary": {}})
        run |= {k: asked[k] for k in ("groupName", "jobType", "displayName") if asked.get(k)}
        bucket = {"id": asked["name"], "name": asked["name"], "displayName": run["displayName"]}
        bucket |= {"historyLineCount": len(run["history"]), "config": "{}", "project": PROJECT}
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def RunResumeStatus(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = self.runs.get(asked["name"])
        bucket = run and {
            "id": asked["name"], "name": asked["name"], "config": "{}", "tags": [],
            "wandbConfig": json.dumps({"t": 1}),
            "summaryMetrics": json.dumps(run["summary"].get(0, {})), "eventsTail": "[]",
            "historyLineCount": len(run["history"]), "eventsLineCount": 0, "logLineCount": 0,
            "historyTail": json.dumps([json.dumps(run["history"][max(run["history"])])]),
        }  # fmt: skip
        return {"model": PROJECT | {"bucket": bucket}}

    def CreateRunFiles(self, asked: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        files = [{"name": n, "uploadUrl": f"{self.address}/files/{n}"} for n in asked["files"]]
        return {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": files}}

    def nothing(self, asked: dict[str, Any]) -> dict[str, Any]:
        viewer = {"id": "me", "entity": "me", "username": "me", "flags": "{}"}
        return {"viewer": viewer | {"teams": {"edges": []}}, "serverInfo": {"features": []}}

    def body(self) -> bytes:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content

    def answer(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        """Quietly."""


class Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may hang up at any time."""


PROJECT = {"id": "p", "name": "test", "entity": {"id": "me", "name": "me"}}


@contextmanager
def wandb_server() -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """The address of a server, and the runs that it is sent, by id."""
    runs: dict[str, dict[str, Any]] = {}
    handler = type("Bound", (Handler,), {"runs": runs})
    server = Server(("127.0.0.1", 0), handler)
    handler.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield handler.address, runs
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
