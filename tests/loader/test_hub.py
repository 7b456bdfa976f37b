"""Names to directories, without a network."""

from pathlib import Path

import huggingface_hub.constants
import pytest
from leadline.loader.errors import ModelNotFoundError
from leadline.loader.hub import resolve_model


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def test_built_in() -> None:
    assert (resolve_model("leadline-demo") / "config.json").exists()


def test_directory(tmp_path: Path) -> None:
    assert resolve_model(str(tmp_path)) == tmp_path


def test_local_cache_comes_first(tmp_path: Path) -> None:
    repository = tmp_path / "cache" / "models--org--name"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (snapshot / "model.safetensors").write_bytes(b"")
    assert resolve_model("org/name") == snapshot


@pytest.mark.parametrize("name", ["org/absent", "absent", "./absent", "a/b/c", "org/na me"])
def test_absent_says_what_to_do(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"give|check"):
        resolve_model(name)
