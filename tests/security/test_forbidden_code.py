"""Nothing in the four packages turns data into code, or trusts code that a checkpoint brings."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("server", "engine", "loader", "kernels")
MODULES = {"pickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {"recv_pyobj", "send_pyobj"}  # pickle over ZeroMQ
FUNCTIONS = {
    *(("torch", "load"), ("jit", "load"), ("numpy", "load"), ("np", "load"), ("yaml", "load")),
    *(("yaml", "unsafe_load"), ("yaml", "full_load")),
    *(("os", "system"), ("os", "popen"), ("subprocess", "getoutput")),  # a shell
}
ARGUMENTS = {"trust_remote_code", "allow_pickle", "weights_only", "shell"}
WORDS = {"auto_map", "trust_remote_code"}


def findings(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        for found in _of_node(node):
            yield f"line {getattr(node, 'lineno', '?')}: {found}"


def _of_node(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (a.name for a in names if a.name.partition(".")[0] in MODULES)
        case ast.ImportFrom(module=str(module), names=names):
            if module.partition(".")[0] in MODULES:
                yield module
            yield from (f"{module}.{a.name}" for a in names if (module, a.name) in FUNCTIONS)
        case ast.Name(id=name) if name in BUILTINS | WORDS:
            yield name
        case ast.Attribute(value=value, attr=name):
            owner = getattr(value, "id", getattr(value, "attr", ""))
            is_builtin = owner == "builtins" and name in BUILTINS
            if name in METHODS | MODULES | WORDS or (owner, name) in FUNCTIONS or is_builtin:
                yield f"{owner}.{name}"
        case ast.keyword(arg=name) if name in ARGUMENTS:
            yield f"{name}="
        case ast.arg(arg=name) if name in ARGUMENTS:
            yield name
        case ast.Constant(value=str(text)) if text in WORDS | MODULES:
            yield repr(text)


def source_files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def test_nothing_forbidden_is_in_the_packages() -> None:
    """There is no list of exceptions."""
    files = source_files()
    assert len(files) > 100
    found = [
        f"{path.relative_to(ROOT)}: {finding}"
        for path in files
        for finding in findings(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "yaml.load(b, Loader=L)",
        "from marshal import loads",
        "from torch import load",
        "importlib.import_module('cloudpickle')",
        "eval('1')",
        "f = exec",
        "builtins.eval('1')",
        "__import__('os')",
        "compile('1', '', 'eval')",
        "torch.load('weights.bin')",
        "numpy.load('x.npy')",
        "torch.jit.load('x')",
        "socket.recv_pyobj()",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "AutoTokenizer.from_pretrained('x', trust_remote_code=False)",
        "def load(path, trust_remote_code=True): ...",
        "config['auto_map']",
        "torch.storage.pickle",
    ],
)
def test_what_is_forbidden_is_found(source: str) -> None:
    assert list(findings(source))


def test_what_is_not_forbidden_is_not_found() -> None:
    source = "model.eval_steps = json.load(file); pattern.compiled; asyncio.create_subprocess_exec"
    assert list(findings(source)) == []
