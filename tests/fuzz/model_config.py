"""Bytes as config.json: a config, or one ConfigError that tells what is wrong (needs atheris).

python -m tests.fuzz.model_config -runs=100000
"""

import contextlib
import json
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["leadline"]):
    from leadline.loader.errors import LoaderError
    from leadline.loader.hub import resolve_model
    from leadline.loader.model_config import read_model_config

GOOD = json.loads((resolve_model("leadline-demo") / "config.json").read_text())
NAMES = sorted(GOOD)
VALUES = [None, True, 0, -1, 1, 2**31, 2**63, 10**30, 1.5, 1e308, "", "x", [], {}, [1], {"a": 1}]
DIRECTORY = Path(tempfile.mkdtemp())


def one(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    config = dict(GOOD)
    for _ in range(provider.ConsumeIntInRange(0, 4)):
        name = provider.PickValueInList(NAMES)
        config[name] = provider.PickValueInList(VALUES)
    text = json.dumps(config).encode()
    rest = provider.ConsumeBytes(64)
    (DIRECTORY / "config.json").write_bytes(rest if rest[:1] == b"\xff" else text + rest[:1])
    with contextlib.suppress(LoaderError):
        read_model_config(DIRECTORY)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
