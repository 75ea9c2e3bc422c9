"""Backbones and weights: what fits is loaded, what does not is one line, and no dead network is waited for."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from ensembler import reach as reach_mod
from ensembler.errors import BackboneError, WeightsError
from ensembler.reach import hub_problem
from ensembler.training.backbone import (
    create,
    features,
    head,
    list_backbones,
    load_arrays,
    normalisation,
    to_arrays,
)
from ensembler.training.weights import find_weights
from tests.ports import free_port


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    file = tmp_path / "w.safetensors"
    save_file(to_arrays(create("test_resnet", 7).state_dict()), file)
    return file


def _one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------------- names


def test_an_unknown_backbone_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(BackboneError) as caught:
        create("resnt18", 3)
    assert _one_line(caught).startswith("backbone 'resnt18': unknown to timm; did you mean 'resnet18'")


@pytest.mark.parametrize("name", ["resnet18.a1_in1", "test_coatnet.x"])
def test_an_unknown_tag_is_refused_too(name: str) -> None:
    with pytest.raises(BackboneError, match="timm knows no weights") as caught:
        create(name, 3)
    assert _one_line(caught)


def test_backbones_are_listed_by_pattern() -> None:
    assert "test_resnet" in list_backbones("test_*")
    assert list_backbones("no such*") == []


def test_every_backbone_has_a_normalisation() -> None:
    assert [len(part) for part in normalisation("test_coatnet")] == [3, 3]
    mean, std = normalisation("resnet18")
    assert mean == (0.485, 0.456, 0.406)
    assert std == (0.229, 0.224, 0.225)


# ---------------------------------------------------------------------- weights files


def test_weights_are_loaded_under_a_new_head(weights: Path) -> None:
    stored = load_file(weights)
    state = to_arrays(create("test_resnet", 3, weights).state_dict())
    for name, value in state.items():
        if name.startswith("fc."):
            assert value.shape[0] == 3
        else:
            np.testing.assert_array_equal(value, stored[name])


def test_weights_without_a_head_are_loaded_too(tmp_path: Path, weights: Path) -> None:
    body = {k: v for k, v in load_file(weights).items() if not k.startswith("fc.")}
    save_file(body, tmp_path / "body.safetensors")
    state = to_arrays(create("test_resnet", 3, tmp_path / "body.safetensors").state_dict())
    assert all(np.array_equal(state[k], v) for k, v in body.items())


def test_a_vit_is_built_for_the_size_of_the_images(tmp_path: Path) -> None:
    save_file(to_arrays(create("test_vit", 5).state_dict()), tmp_path / "v.safetensors")
    model = create("test_vit", 3, tmp_path / "v.safetensors", image_size=48).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 48, 48)).shape == (1, 3)
        assert features(model, torch.zeros(1, 3, 48, 48)).shape == (1, head(model).in_features)


def test_random_weights_follow_the_seed() -> None:
    def drawn(seed: int) -> dict[str, np.ndarray]:
        torch.manual_seed(seed)
        return to_arrays(create("test_resnet", 3).state_dict())

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(np.array_equal(first[k], again[k]) for k in first)
    assert not np.array_equal(first["fc.weight"], other["fc.weight"])


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "resnet10t"])
def test_weights_of_another_architecture_do_not_fit(name: str, weights: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        create(name, 3, weights)
    message = _one_line(caught)
    assert message.startswith(f"backbone {name!r}: weights {str(weights)!r} do not fit: ")
    assert message.endswith("; give weights of this architecture")
    assert len(message) < 700


def test_a_file_that_lacks_a_tensor_of_the_body_does_not_fit(tmp_path: Path, weights: Path) -> None:
    arrays = load_file(weights)
    del arrays["layer1.0.conv1.weight"]
    save_file(arrays, tmp_path / "bad.safetensors")
    with pytest.raises(WeightsError, match=r"1 tensors are missing, first layer1\.0\.conv1\.weight"):
        create("test_resnet", 3, tmp_path / "bad.safetensors")


def test_a_tensor_of_another_shape_does_not_fit(tmp_path: Path, weights: Path) -> None:
    arrays = load_file(weights)
    arrays["layer1.0.conv1.weight"] = np.zeros((2, 2, 3, 3), np.float32)
    save_file(arrays, tmp_path / "bad.safetensors")
    with pytest.raises(WeightsError, match=r"layer1\.0\.conv1\.weight") as caught:
        create("test_resnet", 3, tmp_path / "bad.safetensors")
    assert _one_line(caught)


@pytest.mark.parametrize("content", [b"", b"\x80\x04cposix\nsystem\n.", b"PK\x03\x04torch", b"\xff" * 100])
def test_a_file_that_is_no_safetensors_is_refused_and_never_unpickled(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"no safetensors file .*; convert it first") as caught:
        find_weights("test_resnet", "w.pth", tmp_path)
    assert str(tmp_path / "w.pth") in _one_line(caught)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights 'no\.safetensors': no such file") as caught:
        find_weights("test_resnet", "no.safetensors", tmp_path)
    assert str(tmp_path / "no.safetensors") in _one_line(caught)


def test_a_moved_file_keeps_its_label_and_a_changed_one_loses_it(tmp_path: Path, weights: Path) -> None:
    first = find_weights("test_resnet", "w.safetensors", tmp_path)
    assert first.file == weights
    assert first.note == ""
    (tmp_path / "sub").mkdir()
    moved = weights.rename(tmp_path / "sub" / "w.safetensors")
    assert find_weights("test_resnet", str(moved), tmp_path).label == first.label
    arrays = load_file(moved)
    arrays["fc.bias"] = arrays["fc.bias"] + 1
    save_file(arrays, moved)
    assert find_weights("test_resnet", str(moved), tmp_path).label != first.label


def test_random_needs_no_file(tmp_path: Path) -> None:
    assert find_weights("test_resnet", "random", tmp_path).file is None


# ---------------------------------------------------------------------- arrays


def test_loading_names_the_first_tensor_that_does_not_fit() -> None:
    model = create("test_resnet", 3)
    with pytest.raises(WeightsError, match=r"tensor 'fc\.bias': shape \(4,\); the model has \(3,\)"):
        load_arrays(model, {"fc.bias": np.zeros(4, np.float32)})
    with pytest.raises(WeightsError, match=r"tensor 'other': shape .*no such tensor"):
        load_arrays(model, {"other": np.zeros(4, np.float32)})


def test_a_head_that_is_no_single_layer_is_refused() -> None:
    class Two(nn.Module):
        def get_classifier(self) -> Any:
            return nn.Identity()

    with pytest.raises(BackboneError, match="its head is a Identity, and one linear layer is needed"):
        head(Two())


# ---------------------------------------------------------------------- the hub


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    from huggingface_hub import constants

    endpoint = f"http://127.0.0.1:{free_port()}"
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(reach_mod, "HUB_TIMEOUT_S", 60.0)  # a refusal comes at once, on any machine
    return endpoint


@pytest.mark.usefixtures("no_hub")
def test_a_hub_out_of_reach_is_found_out_at_once_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    connect = socket.create_connection

    def counted(address: tuple[str, int], *args: Any, **options: Any) -> socket.socket:
        asked.append(address)
        return connect(address, *args, **options)

    monkeypatch.setattr(socket, "create_connection", counted)
    with pytest.raises(WeightsError) as caught:
        find_weights("test_resnet", "pretrained", tmp_path)
    assert len(asked) == 1  # its own client would come again and again
    message = _one_line(caught)
    assert "backbone 'test_resnet': the hub is out of reach (ConnectionRefusedError" in message
    assert "`weights: pretrained-or-random`" in message


@pytest.mark.usefixtures("no_hub")
def test_pretrained_or_random_goes_on_and_notes_it(tmp_path: Path) -> None:
    found = find_weights("test_resnet", "pretrained-or-random", tmp_path)
    assert (found.label, found.file) == ("random", None)
    assert found.note.startswith("random weights: backbone 'test_resnet': the hub is out of reach")


def test_a_backbone_without_published_weights_is_told_before_any_network(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match="timm publishes no weights for it; give `weights: random` or a file"
    ):
        find_weights("test_coatnet", "pretrained", tmp_path)


def test_a_hub_that_accepts_nothing_is_given_up_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(reach_mod, "HUB_TIMEOUT_S", 0.2)
    accept, accepted = threading.Event(), threading.Event()

    def connect(*_: Any, **__: Any) -> socket.socket:
        accept.wait(120)
        accepted.set()
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", connect)
    assert hub_problem("https://hub.invalid") == "no answer within 0.2 s"
    assert not accepted.is_set()  # it was not waited for
    accept.set()
    assert accepted.wait(120)


def test_offline_mode_and_a_broken_address_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub_problem("https://hub.invalid") == "HF_HUB_OFFLINE is set"
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert "ValueError" in str(hub_problem("http://127.0.0.1:notaport"))


def test_a_proxy_is_asked_instead_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")

    def connect(address: tuple[str, int], timeout: float) -> Any:
        asked.append(address)
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(socket, "create_connection", connect)
    assert "refused" in str(hub_problem("https://hub.invalid"))
    monkeypatch.setenv("no_proxy", "hub.invalid")
    hub_problem("https://hub.invalid")
    assert asked == [("proxy.example", 3128), ("hub.invalid", 443)]


class _Hub(http.server.BaseHTTPRequestHandler):
    """Serves one file of one repository as the hub does."""

    content = b""
    path_served = "/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
    log: list[str]

    def _head(self) -> bool:
        self.server.log.append(f"{self.command} {self.path}")  # type: ignore[attr-defined]
        if self.path != self.path_served:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False
        self.send_response(200)
        self.send_header("ETag", '"' + "a" * 40 + '"')
        self.send_header("X-Repo-Commit", "b" * 40)
        self.send_header("Content-Length", str(len(self.content)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        return True

    def do_HEAD(self) -> None:
        self._head()

    def do_GET(self) -> None:
        if self._head():
            self.wfile.write(self.content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(weights: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    handler = type("Hub", (_Hub,), {"content": weights.read_bytes()})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.log = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


FETCH = """
import json, sys
from pathlib import Path
from ensembler.errors import WeightsError
from ensembler.training.backbone import create
from ensembler.training.weights import find_weights
try:
    found = find_weights(sys.argv[1], "pretrained", Path("."))
    model = create(sys.argv[1], 3, found.file)
    print(json.dumps([found.label, str(found.file), float(model.layer1[0].conv1.weight.sum())]))
except WeightsError as error:
    print(json.dumps(str(error)))
"""


def _fetch(name: str, endpoint: str, home: Path) -> Any:
    clean = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and not k.startswith("HF_")}
    env = {**clean, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FETCH, name], env=env, capture_output=True, text=True, check=True, timeout=400
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_published_weights_come_from_the_hub_once_and_then_from_its_cache(
    hub: Any, weights: Path, tmp_path: Path
) -> None:
    endpoint = f"http://127.0.0.1:{hub.server_address[1]}"
    label, file, total = _fetch("test_resnet", endpoint, tmp_path / "home")
    assert label.startswith("model.safetensors#")
    assert Path(file).is_relative_to(tmp_path / "home")
    assert Path(file).read_bytes() == weights.read_bytes()
    assert total == pytest.approx(float(load_file(weights)["layer1.0.conv1.weight"].sum()), rel=1e-4)
    assert any(entry.startswith("GET") for entry in hub.log)
    hub.log.clear()
    # The second time nobody is asked: not even a hub that is gone.
    assert _fetch("test_resnet", f"http://127.0.0.1:{free_port()}", tmp_path / "home") == [
        label,
        file,
        total,
    ]
    assert hub.log == []


def test_a_hub_that_does_not_have_the_weights_is_told_in_one_line(hub: Any, tmp_path: Path) -> None:
    message = _fetch("test_vit", f"http://127.0.0.1:{hub.server_address[1]}", tmp_path / "home")
    assert isinstance(message, str)
    assert "\n" not in message
    assert message.startswith("backbone 'test_vit': the hub refused 'timm/test_vit.r160_in1k' (")
