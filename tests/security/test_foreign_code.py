"""A checkpoint's Python files are never run, and weights that are pickles never read."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from leadline.loader.checkpoint import Checkpoint
from leadline.loader.errors import LoaderError
from leadline.loader.hub import resolve_model
from leadline.server.served_model import read_served_model


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The built-in model, as somebody would publish it who wants his own code to run."""
    directory = tmp_path / "model"
    shutil.copytree(resolve_model("leadline-demo"), directory)
    config = json.loads((directory / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (directory / "config.json").write_text(json.dumps(config))
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": ["evil.Tokenizer", None]}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    canary = f"open({str(directory / 'canary')!r}, 'w').close()"
    for name in ("evil.py", "__init__.py", "tokenizer.py", "configuration_deepseek.py"):
        (directory / name).write_text(canary)
    return directory


def test_its_code_is_not_run(checkpoint: Path) -> None:
    served = read_served_model(checkpoint)
    Checkpoint.open(checkpoint)
    assert served.template is not None
    assert not (checkpoint / "canary").exists()
    assert "evil" not in sys.modules


def test_weights_that_are_pickles_are_refused(checkpoint: Path) -> None:
    for path in checkpoint.glob("*.safetensors*"):
        path.unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(LoaderError, match="safetensors"):
        Checkpoint.open(checkpoint)
