"""A cache, a local folder and a manifest folder of the test's own; nothing here reaches a network."""

import contextlib
import hashlib
import http.server
import shutil
import threading
from pathlib import Path

import pytest
import yaml

from effbook.data.manifest import manifest_folder


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Empty folders for cache, local data and manifests, set as effbook's; `house.write` makes a manifest."""
    monkeypatch.delenv("EFFBOOK_MANIFESTS", raising=False)
    return House(tmp_path, manifest_folder(), monkeypatch)


class House:
    def __init__(self, root: Path, real_manifests: Path, monkeypatch) -> None:
        self.cache, self.local, self.manifests = root / "cache", root / "local", root / "manifests"
        self.real_manifests = real_manifests
        for folder, variable in (
            (self.cache, "EFFBOOK_DATA"),
            (self.local, "EFFBOOK_LOCAL"),
            (self.manifests, "EFFBOOK_MANIFESTS"),
        ):
            folder.mkdir()
            monkeypatch.setenv(variable, str(folder))

    def write(self, name: str = "thing", **changes) -> Path:
        """A small valid manifest, with changes."""
        content = {
            "name": name,
            "title": "A thing",
            "kind": "weights",
            "licence": "MIT",
            "citation": "none",
            "homepage": "https://example.org",
            "loader": "timm",
            "sources": [{"kind": "local", "folder": name, "files": [{"path": "a.bin"}]}],
        }
        path = self.manifests / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content | changes), encoding="utf-8")
        return path

    def borrow(self, name: str, splits: dict[str, int]) -> None:
        """The project's own manifest of that name, with the counts of a small fake tree."""
        content = yaml.safe_load((self.real_manifests / f"{name}.yaml").read_text(encoding="utf-8"))
        for source in content["sources"]:
            for file in source.get("files", ()):
                for key in ("sha256", "md5", "size_bytes", "tree_sha256"):
                    file.pop(key, None)
        content["splits"] = splits
        content["sources"] = [source for source in content["sources"] if source["kind"] == "local"]
        (self.manifests / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")

    @staticmethod
    def pin(content: bytes) -> dict:
        """A file's identity, for a manifest."""
        return {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}

    def borrow_whole(self, name: str) -> None:
        shutil.copy(self.real_manifests / f"{name}.yaml", self.manifests)


@pytest.fixture
def serve():
    """A web server on this machine: `serve(answers)` gives its address and the list of requests so far.

    ``answers`` are sent in turn, the last one for ever; a pair (content, length) announces another length.
    """
    with contextlib.ExitStack() as stack:

        def start(*answers):
            asked = []

            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    asked.append(self.path)
                    answer = answers[min(len(asked), len(answers)) - 1]
                    content, length = answer if isinstance(answer, tuple) else (answer, len(answer))
                    self.send_response(200)
                    self.send_header("Content-Length", str(length))
                    self.end_headers()
                    self.wfile.write(content)

                def log_message(self, *arguments):
                    pass

            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_address[1]}/a.bin", asked

        yield start
