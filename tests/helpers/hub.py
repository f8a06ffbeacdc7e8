"""A server on this machine that stands in for the hub: repositories, the large-file protocol, commits."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

_MODEL = re.compile(r"/api/models/([^/]+/[^/?]+)(?:/(preupload|commit)/main)?")
TOKEN = "hf_" + "t" * 30


@dataclass
class Hub:
    """What the server holds.

    private: of each repository, by name.
    files: content by repository and path.
    large: content by its sha256, as it was sent.
    fails: status and message of a request whose path matches, by a pattern of it.
    requests: method and path of each, in order.
    """

    url: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    fails: dict[str, tuple[int, str]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Serve until the block ends."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        hub, body = self.state, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.requests.append(f"{method} {self.path}")
        wrong = next((why for path, why in hub.fails.items() if re.search(path, self.path)), None)
        if wrong is None and method != "PUT" and self.headers["Authorization"] != f"Bearer {TOKEN}":
            wrong = (401, "Invalid username or password.")
        if wrong is not None:
            self._send({"error": wrong[1]}, status=wrong[0])
            return
        asked = _MODEL.fullmatch(self.path)
        if asked is not None and asked[1] not in hub.private:
            self._send({"error": "Repository not found"}, status=404)
            return
        if method == "PUT":  # of a large file, which has no token
            hub.large[self.path.rpartition("/")[2]] = body
            assert sha256(body).hexdigest() == self.path.rpartition("/")[2]
            self._send({})
            return
        self._send(self._api(body))

    def _api(self, body: bytes) -> dict[str, Any]:
        hub, path = self.state, self.path
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            hub.private.setdefault(name, asked.get("visibility") == "private")
            hub.files.setdefault(name, {})
            return {"url": f"{hub.url}/{name}", "id": name}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path.endswith("/objects/batch"):
            objects = json.loads(body)["objects"]
            for each in objects:
                each["actions"] = {"upload": {"href": f"{hub.url}/large/{each['oid']}"}}
            return {"transfer": "basic", "objects": objects}
        found = _MODEL.fullmatch(path)
        assert found is not None, path
        name, what = found.groups()
        if what == "preupload":
            files = [each["path"] for each in json.loads(body)["files"]]
            modes = {
                p: "lfs" if p.endswith((".safetensors", ".onnx")) else "regular" for p in files
            }
            return {
                "files": [
                    {"path": p, "uploadMode": mode, "shouldIgnore": False}
                    for p, mode in modes.items()
                ]
            }
        if what == "commit":
            self._commit(name, [json.loads(line) for line in body.splitlines()])
            return {"commitUrl": f"{hub.url}/{name}/commit/1", "commitOid": "1"}
        siblings = [{"rfilename": file} for file in hub.files[name]]
        return {"id": name, "private": hub.private[name], "siblings": siblings}

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.state.files[name][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.state.files[name][value["path"]] = self.state.large[value["oid"]]

    def _send(self, answer: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.git-lfs+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
