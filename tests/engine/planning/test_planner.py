"""Layouts: what fits is planned within memory and the wished time; what does not is refused."""

import dataclasses
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.engine.errors import ConfigError
from leadline.engine.planning.gpus import GPUS
from leadline.engine.planning.planner import (
    PAGE_SIZE,
    Choice,
    Plan,
    Wish,
    choose,
    layouts,
    plan_layout,
)
from leadline.loader.family import FAMILY, known_config


def wish(name: str = "deepseek-v3", gpu: str = "H800", num_gpus: int = 32, **other: Any) -> Wish:
    model = known_config(name)
    assert model is not None
    lengths = {"input_tokens": 4096, "output_tokens": 1024}
    return Wish(model=model, gpu=GPUS[gpu], num_gpus=num_gpus, **(lengths | other))


def check(choice: Choice) -> None:
    for plan in [choice.best, *choice.others]:
        asked, expected = plan.wish, plan.expected
        assert plan.layout.num_ranks == asked.num_gpus
        assert sum(part.num_bytes for part in plan.memory()) == asked.gpu.memory_bytes
        free = plan.memory()[-1].num_bytes
        page = plan.needs.page_bytes(PAGE_SIZE)
        assert asked.headroom_bytes <= free < asked.headroom_bytes + page
        held = expected.requests * (asked.input_tokens + asked.output_tokens)
        assert held <= plan.kv_tokens
        assert asked.itl_s is None or expected.itl_s <= asked.itl_s
        assert expected.tokens_s < expected.decode_tokens_s
        assert expected.lone_itl_s <= expected.itl_s * 1.01


@given(
    name=st.sampled_from(sorted(FAMILY)),
    gpu=st.sampled_from(sorted(GPUS)),
    num_gpus=st.sampled_from([1, 2, 3, 4, 8, 12, 16, 32, 72, 144]),
    itl_s=st.sampled_from([None, 0.02, 0.1]),
    lengths=st.sampled_from([(1000, 200), (4096, 1024), (60_000, 2000)]),
)
def test_every_plan_keeps_what_it_promises(
    name: str, gpu: str, num_gpus: int, itl_s: float | None, lengths: tuple[int, int]
) -> None:
    asked = wish(
        name, gpu, num_gpus, itl_s=itl_s, input_tokens=lengths[0], output_tokens=lengths[1]
    )
    if any(isinstance(plan_layout(asked, layout), Plan) for layout in layouts(asked)):
        check(choose(asked))
    else:
        with pytest.raises(ConfigError, match=f"no layout of {num_gpus} x {gpu}"):
            choose(asked)


def test_a_wide_unit_places_experts_whole() -> None:
    best = choose(wish(itl_s=0.05)).best
    assert best.layout.expert_parallel
    assert best.layout.num_nodes == 4
    assert best.num_drafts > 0


def test_what_is_given_is_kept() -> None:
    fixed = wish(tensor_parallel_size=4, expert_parallel=True, num_drafts=1)
    choice = choose(fixed)
    assert choice.others == []
    assert (choice.best.layout.tensor_parallel_size, choice.best.num_drafts) == (4, 1)
    by_data = choose(wish(data_parallel_size=8)).best.layout
    assert by_data.tensor_parallel_size == 4


def test_sizes_that_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="3 x 5 = 15, but there are 32 GPUs"):
        choose(wish(tensor_parallel_size=3, data_parallel_size=5))
    with pytest.raises(ConfigError, match="not as many on each of 3 nodes"):
        choose(wish(num_gpus=20))
    with pytest.raises(ConfigError, match="5 does not divide 32 GPUs"):
        choose(wish(tensor_parallel_size=5))


def test_too_little_memory_is_refused_with_what_would_do() -> None:
    with pytest.raises(ConfigError) as caught:
        choose(wish(gpu="H100", num_gpus=8))
    text = str(caught.value)
    assert re.search(r"TP 8, DP 1: a GPU needs 8\d\.\d GiB \(\d\d\.\d of weights\), has 79.6", text)
    assert "What would do: 16 x H100, 8 x H200" in text


def test_a_time_that_nothing_keeps() -> None:
    with pytest.raises(ConfigError, match="Allow more time between tokens"):
        choose(wish(itl_s=1e-5))


def test_what_would_do_does() -> None:
    bigger = choose(wish(gpu="H100", num_gpus=16)).best
    assert isinstance(bigger, Plan)
    assert dataclasses.replace(bigger.wish, num_gpus=8) == wish(gpu="H100", num_gpus=8)


def test_an_fp8_cache_holds_more() -> None:
    wide, narrow = (choose(wish(kv_cache_dtype=dtype)).best for dtype in ("bfloat16", "fp8"))
    assert narrow.kv_tokens > 1.5 * wide.kv_tokens


def test_the_page_has_todays_table() -> None:
    path = Path(__file__).parents[3] / "benchmarks/planning.py"
    benchmark = runpy.run_path(str(path))
    text = benchmark["DOCS"].read_text()
    assert benchmark["with_table"](text) == text, "run `python -m benchmarks.planning --write`"
