"""The time model: published units within bounds, and what must be monotone is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.engine.errors import ConfigError
from leadline.engine.planning.gpus import GPUS, find_gpu
from leadline.engine.planning.host import Host
from leadline.engine.planning.layout import Layout
from leadline.engine.planning.published import PUBLISHED, PublishedUnit, compare
from leadline.engine.planning.step_load import load_of
from leadline.engine.planning.unit_times import UnitTimes
from leadline.loader.family import FAMILY, known_config
from leadline.loader.model_config import ModelConfig

WIDE = Layout(data_parallel_size=32, expert_parallel=True, num_redundant_experts=32)
FAR_OFF = {(8, 2048), (32, 2048)}  # vLLM's prefill below and beyond two nodes


def v3() -> ModelConfig:
    config = known_config("deepseek-v3")
    assert config is not None
    return config


@pytest.mark.parametrize("unit", PUBLISHED, ids=lambda unit: f"{unit.source} {unit.name}")
def test_published_units(unit: PublishedUnit) -> None:
    found = compare(v3(), unit)
    known_off = unit.source.startswith("vLLM") and (unit.layout.num_ranks, unit.context) in FAR_OFF
    assert abs(found.deviation) < (0.45 if known_off else 0.20)
    if not unit.is_latency:
        assert found.roofline > unit.measured


def test_the_layer_of_a_published_profile() -> None:
    """Microseconds of a micro-batch of 128 tokens over 2,050 of context: EP 72 on H100."""
    layout = Layout(data_parallel_size=72, expert_parallel=True, num_redundant_experts=32)
    layer = UnitTimes(v3(), GPUS["H100"], layout).layer(load_of([(1, 2050)] * 128, layout))
    found = [
        layer.attention_s,
        layer.projections_s,
        layer.shared_s,
        layer.experts_s,
        layer.dispatch_s,
        layer.combine_s,
    ]
    assert [x * 1e6 for x in found] == pytest.approx([114, 76, 16, 69, 169, 326], rel=0.03)


@given(
    rows=st.lists(st.tuples(st.integers(1, 600), st.integers(0, 8000)), max_size=40),
    name=st.sampled_from(sorted(FAMILY)),
    gpu=st.sampled_from(sorted(GPUS)),
)
def test_more_work_takes_no_less_time(rows: list[tuple[int, int]], name: str, gpu: str) -> None:
    model = known_config(name)
    assert model is not None
    times = UnitTimes(model, GPUS[gpu], Layout())
    spans = [(new, new + before) for new, before in rows]
    seconds = [times.layer(load_of(spans[:i], Layout())).compute_s for i in range(len(spans) + 1)]
    assert seconds == sorted(seconds)
    assert times.step_s(spans, draft_passes=1) >= times.step_s(spans)


def test_an_idle_group_steps_with_the_others() -> None:
    times = UnitTimes(v3(), GPUS["H800"], WIDE)
    assert times.step_s([], others=0) == 0.0
    assert times.step_s([], others=31 * 64) > 0.0


def test_drafts_cost_tokens_and_passes() -> None:
    times = UnitTimes(v3(), GPUS["H800"], WIDE)
    plain = times.step_s([(1, 4096)] * 64)
    drafted = times.step_s([(2, 4096)] * 64, draft_passes=1)
    assert plain < drafted < 2 * plain


def test_tensor_parallelism_answers_one_request_sooner() -> None:
    one, eight = Layout(), Layout(tensor_parallel_size=8)
    rows = [(1, 4096)]
    alone = UnitTimes(v3(), GPUS["H200"], one).step_s(rows)
    assert UnitTimes(v3(), GPUS["H200"], eight).step_s(rows) < alone / 2


def test_the_host_is_bound_by_its_memory() -> None:
    """One token reads eight experts a layer; a faster memory reads them sooner."""
    seconds = []
    for bandwidth in (200e9, 400e9):
        host = Host(memory_bytes=2**40, bandwidth=bandwidth)
        times = UnitTimes(v3(), GPUS["H100"], Layout(), host=host)
        seconds.append(times.layer(load_of([(1, 1000)], Layout())).experts_s)
    eight = 8 * 44.05e6
    assert seconds[0] - seconds[1] == pytest.approx(eight / 0.8 / 400e9, rel=0.02)
    resident = UnitTimes(
        v3(), GPUS["H100"], Layout(), host=Host(memory_bytes=2**40), num_resident=128
    )
    assert resident.layer(load_of([(1, 1000)], Layout())).experts_s < seconds[1]


def test_an_unknown_gpu() -> None:
    assert find_gpu("h800").name == "H800"
    with pytest.raises(ConfigError, match="'H9000' is no GPU that plans know; there is H100"):
        find_gpu("H9000")
