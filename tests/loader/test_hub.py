"""Names to directories, without a network."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from leadline.loader.errors import ModelNotFoundError
from leadline.loader.hub import resolve_model


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def cached(cache: Path, *files: str) -> Path:
    """A model `org/name` in a hub cache."""
    repository = cache / "models--org--name"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    for file in files:
        (snapshot / file).write_text("{}")
    return snapshot


def test_built_in() -> None:
    assert (resolve_model("leadline-demo") / "config.json").exists()


def test_directory(tmp_path: Path) -> None:
    assert resolve_model(str(tmp_path)) == tmp_path


def test_directory_named_like_a_hub_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_model("org/name") == Path("org/name")


def test_cache_comes_before_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = cached(tmp_path, "config.json", "model.safetensors")
    real = huggingface_hub.snapshot_download

    def local_only(*args: Any, **kwargs: Any) -> str:
        assert kwargs["local_files_only"], "the network was asked"
        return real(*args, **kwargs)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", local_only)
    assert resolve_model("org/name", cache_directory=tmp_path) == snapshot


@pytest.mark.usefixtures("offline")
def test_sharded_model_in_the_cache(tmp_path: Path) -> None:
    snapshot = cached(tmp_path, "config.json", "a.safetensors")
    index = snapshot / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    assert resolve_model("org/name", cache_directory=tmp_path) == snapshot
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    with pytest.raises(ModelNotFoundError, match="complete in the Hugging Face cache"):
        resolve_model("org/name", cache_directory=tmp_path)


@pytest.mark.usefixtures("offline")
def test_offline_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="unset HF_HUB_OFFLINE"):
        resolve_model("org/name", cache_directory=tmp_path)


def test_only_needed_files_are_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, *, local_files_only: bool = False, **kwargs: Any) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not cached")
        asked.update(kwargs, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert resolve_model("org/name") == tmp_path
    files = ["config.json", "a.safetensors", "chat_template.jinja", "tiktoken.model"]
    others = ["pytorch_model.bin", "README.md", "modeling.py", "onnx/a.safetensors"]
    needed = huggingface_hub.utils.filter_repo_objects(
        [*files, *others],
        allow_patterns=asked["allow_patterns"],
        ignore_patterns=asked["ignore_patterns"],
    )
    assert list(needed) == files


def test_no_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> str:
        raise LocalEntryNotFoundError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ModelNotFoundError, match=r"check the network.*no route to host"):
        resolve_model("org/name")


@pytest.mark.parametrize(
    "name",
    [
        *["", "absent", "./absent", "a/b/c", "org/na me", "/absent/model"],
        *["a/b--c", "a/b.git", "org/x-", "a/" + "b" * 120],
    ],
)
def test_absent_says_what_may_be_given(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"give the directory.*org/name.*leadline-demo"):
        resolve_model(name)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    with pytest.raises(ModelNotFoundError, match=r"is a file; give the directory"):
        resolve_model(str(path))
