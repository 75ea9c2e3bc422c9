"""Pushed to a stand-in of the Hub, and back by name: the bundle's own files, whole, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from ensembler import reach
from ensembler.bundle import Bundle
from ensembler.bundle.hub import fetch, push
from ensembler.bundle.layout import INDEX, read_index
from ensembler.cli import main
from ensembler.errors import BundleError

#: The hub's client hands a file to its HTTP library in a way that the library warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=")


class StandIn(http.server.BaseHTTPRequestHandler):
    """As much of the Hub's HTTP interface as its client asks for when it pushes and fetches."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        self.server.log.append(f"POST {path}")
        if self.server.refuse:
            self._send(self.server.refuse, b"{}")
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.private[name] = asked.get("visibility") == "private" or asked.get("private", False)
            self._json({"url": f"{self.server.url}/{name}", "name": name, "id": name})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["size"] > 2000 else "regular",
                    "shouldIgnore": False,
                }
                for f in json.loads(body)["files"]
            ]
            self._json({"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            objects = [
                {**o, "actions": {"upload": {"href": f"{self.server.url}/lfs/{o['oid']}"}}} for o in wanted
            ]
            self._json({"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            self._commit(path.split("/commit/")[0].removeprefix("/api/models/"), body)
        else:
            self._send(404, b"{}")

    def do_PUT(self) -> None:
        oid = self.path.removeprefix("/lfs/")
        self.server.objects[oid] = self._body()
        self._send(200, b"")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _commit(self, repository: str, body: bytes) -> None:
        files = self.server.files.setdefault(repository, {})
        for line in body.splitlines():
            record = json.loads(line)
            value = record["value"]
            if record["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif record["key"] == "lfsFile":
                content = self.server.objects[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                files[value["path"]] = content
            elif record["key"] != "header":
                pytest.fail(f"an operation that a push has no use for: {record}")
        url = f"{self.server.url}/{repository}/commit/{self.server.commit}"
        self._json({"commitUrl": url, "commitOid": self.server.commit, "success": True})

    def do_GET(self) -> None:
        self._get()

    def do_HEAD(self) -> None:
        self._get()

    def _get(self) -> None:
        path = urlsplit(self.path).path.lstrip("/")
        self.server.log.append(f"{self.command} /{path}")
        for repository, files in self.server.files.items():
            if path.startswith(f"api/models/{repository}"):
                self._json(
                    {"id": repository, "modelId": repository, "sha": self.server.commit, "siblings": []}
                )
                return
            for name, content in files.items():
                if path == f"{repository}/resolve/{self.server.commit}/{name}":
                    self._send(200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'})
                    return
        self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("X-Repo-Commit", self.server.commit)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


class Hub(http.server.ThreadingHTTPServer):
    """What the stand-in holds."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), StandIn)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.commit = "c" * 40
        self.files: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.private: dict[str, bool] = {}
        self.log: list[str] = []
        self.refuse = 0


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    from huggingface_hub import constants

    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    monkeypatch.setenv("ENSEMBLER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants._HF_DEFAULT_ENDPOINT, server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(reach, "_ANSWERS", {})
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def bundle(mean_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mean_bundle, tmp_path / "bundle"))


def test_a_bundle_goes_there_and_comes_back_by_name(
    hub: Hub, bundle: Path, finished_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "secret.txt").write_text("not part of the bundle")
    (bundle / ".env").write_text("TOKEN=1")
    assert main(["push", str(bundle), "ada/clothes"]) == 0
    assert capsys.readouterr().out.strip().endswith(f"/ada/clothes/commit/{hub.commit}")
    names = set(read_index(bundle)["files"]) | {INDEX}
    assert set(hub.files["ada/clothes"]) == names
    assert hub.objects  # some went by LFS
    assert all(hub.files["ada/clothes"][name] == (bundle / name).read_bytes() for name in names)
    images = sorted((finished_run.images / "test").rglob("*.png"))[:5]
    here, back = Bundle.load(bundle), Bundle.load("hf:ada/clothes")
    np.testing.assert_array_equal(here.predict(images), back.predict(images))
    hub.log.clear()
    assert main(["predict", "hf:ada/clothes", str(images[0])]) == 0
    assert not [line for line in hub.log if "/resolve/" in line]  # once a commit
    folder = fetch("hf:ada/clothes")
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == names


def test_a_zip_is_pushed_as_its_files(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    file = shutil.make_archive(str(tmp_path / "zipped"), "zip", bundle)
    push(file, "ada/zipped", private=True)
    assert hub.private["ada/zipped"]
    assert Bundle.load("hf:ada/zipped").name == "mean"


def test_what_was_altered_on_the_way_is_refused_and_not_kept(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    push(bundle, "ada/clothes")
    files = hub.files["ada/clothes"]
    good = files["README.md"]
    files["README.md"] = good + b" "
    with pytest.raises(BundleError, match="altered since the export"):
        Bundle.load("hf:ada/clothes")
    index = json.loads(files[INDEX])
    files[INDEX] = json.dumps(index | {"files": {**index["files"], "../outside": "0"}}).encode()
    with pytest.raises(BundleError, match="leads outside"):
        Bundle.load("hf:ada/clothes")
    assert not list((tmp_path / "cache").rglob("README.md"))
    files["README.md"], files[INDEX] = good, json.dumps(index).encode()
    assert Bundle.load("hf:ada/clothes").name == "mean"


def test_what_the_hub_names_instead_of_a_bundle_is_refused_and_not_kept(
    hub: Hub, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(bundle, "ada/clothes")
    hub.commit = "main"
    with pytest.raises(BundleError, match=r"hf:ada/clothes: the hub names no commit \('main'\)"):
        fetch("hf:ada/clothes")
    hub.commit = "c" * 40
    monkeypatch.setattr("ensembler.bundle.hub._INDEX_BYTES", 10)
    hub.log.clear()
    with pytest.raises(BundleError, match=r"its bundle\.json has \d+ bytes; it is no bundle"):
        fetch("hf:ada/clothes")
    asked = {line.rpartition("/")[2] for line in hub.log if "/resolve/" in line}
    assert asked == {INDEX}  # and for nothing that it names
    assert not list((tmp_path / "cache").rglob(INDEX))


def test_a_revision_is_kept_under_its_commit_and_is_not_the_one_that_a_name_means(
    hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(bundle, "ada/clothes")
    folder = fetch("hf:ada/clothes@v1")
    assert [line for line in hub.log if line.startswith("GET /api/models/ada/clothes/revision/v1")]
    assert folder.name == hub.commit
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch(f"hf:ada/clothes@{hub.commit}") == folder
    with pytest.raises(BundleError, match="no copy is kept here"):
        fetch("hf:ada/clothes")


def test_offline_it_fails_at_once_or_takes_the_kept_copy(
    hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    push(bundle, "ada/clothes")
    Bundle.load("hf:ada/clothes")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(hub.log)
    assert Bundle.load("hf:ada/clothes").name == "mean"
    assert "takes cccccccccccc" in capsys.readouterr().err
    assert Bundle.load(f"hf:ada/clothes@{hub.commit}").name == "mean"
    assert main(["predict", "hf:ada/other", str(bundle)]) == 2
    with pytest.raises(BundleError, match=r"hf:ada/other: the hub is out of reach .* no copy is kept here"):
        fetch("hf:ada/other")
    with pytest.raises(BundleError, match=r"push ada/x: the hub is out of reach \(HF_HUB_OFFLINE is set\)"):
        push(bundle, "ada/x")
    assert len(hub.log) == asked


@pytest.mark.parametrize(
    "name", ["clothes", "a/b/c", "../b", "a/..", "a b/c", "https://x/y", "/etc/passwd", "a/b@"]
)
def test_a_name_that_is_none_is_refused(name: str, bundle: Path) -> None:
    with pytest.raises(BundleError, match="no name on the Hub"):
        push(bundle, name)
    with pytest.raises(BundleError, match="no name on the Hub"):
        fetch(f"hf:{name}")


def test_a_refusal_says_what_to_do(hub: Hub, bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"hf:ada/nothing: the hub refused .* check the name"):
        Bundle.load("hf:ada/nothing")
    hub.refuse = 401
    with pytest.raises(BundleError, match=r"push ada/x: the hub refused .* log in with `hf auth login`"):
        push(bundle, "ada/x")
    with pytest.raises(BundleError, match="a push goes to its main branch"):
        push(bundle, "ada/x@dev")
    assert not hub.files


def test_a_damaged_bundle_is_not_pushed(hub: Hub, bundle: Path) -> None:
    with (bundle / "README.md").open("a") as stream:
        stream.write("x")
    with pytest.raises(BundleError, match="altered since the export"):
        push(bundle, "ada/x")
    assert hub.log == []
