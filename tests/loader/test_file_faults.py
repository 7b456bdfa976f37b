"""Files that are not what their name says."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from leadline.loader.errors import ConfigFileError, TokenizerError
from leadline.loader.file_faults import fault_of, safetensors_fault
from leadline.loader.hub import resolve_model
from leadline.loader.model_config import read_model_config
from leadline.loader.tokenizer import Tokenizer

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:abcd\nsize 4567\n"
FAULTS = [
    (b"", "is empty (0 bytes)"),
    (LFS, "is a Git LFS pointer to a file of 4567 bytes, not the file itself; run `git lfs pull`"),
    (b"\n <!DOCTYPE html>\n<html>Sign in</html>", "is a web page"),
    (b"<HTML>", "is a web page"),
]


@pytest.mark.parametrize(("content", "words"), FAULTS)
def test_every_reader_says_what_the_file_is(tmp_path: Path, content: bytes, words: str) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigFileError) as config_error:
        read_model_config(tmp_path)
    with pytest.raises(TokenizerError) as tokenizer_error:
        Tokenizer.from_dir(tmp_path)
    assert str(config_error.value).startswith(f"{tmp_path / 'config.json'} {words}")
    assert str(tokenizer_error.value).startswith(f"{tmp_path / 'tokenizer.json'} {words}")


def test_good_files_have_no_fault(tmp_path: Path) -> None:
    directory = resolve_model("leadline-demo")
    assert safetensors_fault(directory / "model.safetensors") is None
    assert fault_of(directory / "config.json") is None
    assert fault_of(tmp_path / "not-there") is None


@given(st.data())
def test_whatever_is_called_cut_short_cannot_be_opened(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = b'\x50\0\0\0\0\0\0\0{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'
    whole = whole.ljust(88) + bytes(16)
    content = data.draw(
        st.just(whole)
        | st.integers(0, len(whole) - 1).map(lambda size: whole[:size])
        | st.binary(max_size=20).map(lambda extra: whole + extra)
        | st.binary(max_size=100)
        | st.binary(max_size=90).map(lambda body: len(body).to_bytes(8, "little") + body)
    )
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)
    fault = safetensors_fault(path)
    if fault is not None:
        with pytest.raises((SafetensorError, OSError)), safe_open(path, framework="pt"):
            pass
    assert (fault is None) == (content == whole) or content != whole
