"""Which layouts there can be, and what is said of the others before anything is loaded."""

from typing import Any

import pytest

from leadline.engine.config import EngineConfig, resolve
from leadline.engine.errors import ConfigError
from leadline.engine.parallel.layout import ParallelLayout
from leadline.engine.platform_facts import PlatformFacts
from leadline.loader.model_config import parse_model_config
from leadline.loader.synthetic import tiny_v3

V3 = parse_model_config(tiny_v3())
FACTS = PlatformFacts(device="cpu", num_cores=8, available_bytes=2**34)


def settled(**fields: Any) -> Any:
    return resolve(EngineConfig(**fields), V3, FACTS, model_path="/m")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"tensor_parallel_size": 3},
            "tensor_parallel_size is 3, which does not divide num_attention_heads = 4, "
            "vocab_size = 512, intermediate_size = 160",
        ),
        (
            {"data_parallel_size": 17},
            "tensor_parallel_size x data_parallel_size is 17, which does not divide "
            "moe_intermediate_size = 40",
        ),
        (
            {"data_parallel_size": 17, "enable_expert_parallel": True},
            "n_routed_experts = 16 cannot be spread over tensor_parallel_size x "
            "data_parallel_size = 17 ranks",
        ),
        ({"tensor_parallel_size": 513}, "tensor_parallel_size is 513; allowed: 1 to 512"),
        ({"data_parallel_size": 0}, "data_parallel_size is 0; allowed: 1 to 512"),
        (
            {"tensor_parallel_size": 32, "data_parallel_size": 32},
            "tensor_parallel_size x data_parallel_size is 1024; allowed: up to 512",
        ),
        ({"prefill_schedule_interval": 2}, "prefill_schedule_interval is 2, which has no effect"),
        ({"prefill_schedule_interval": 65}, "prefill_schedule_interval is 65; allowed: 1 to 64"),
        ({"fp8_dispatch": True}, "fp8_dispatch has no effect on a single rank"),
        ({"enable_expert_parallel": True}, "enable_expert_parallel has no effect"),
        (
            {"tensor_parallel_size": 2, "fp8_dispatch": True},
            "fp8_dispatch has no effect where no token travels",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_numbers(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settled(**fields)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "sizes", "whole", "builder"),
    [
        ({}, (1, 1), False, "build_core"),
        ({"tensor_parallel_size": 2}, (2, 1), False, "build_unit"),
        ({"data_parallel_size": 4}, (1, 4), True, "build_unit"),
        ({"data_parallel_size": 2, "enable_expert_parallel": False}, (1, 2), False, "build_unit"),
        ({"tensor_parallel_size": 2, "data_parallel_size": 4}, (2, 4), True, "build_unit"),
    ],
)
def test_defaults_and_their_reasons(
    fields: dict[str, Any], sizes: tuple[int, int], whole: bool, builder: str
) -> None:
    config, lines = settled(**fields)
    assert (config.tensor_parallel_size, config.data_parallel_size) == sizes
    assert config.enable_expert_parallel == whole
    assert config.builder.endswith(builder)
    assert config.num_threads == 8 // (sizes[0] * sizes[1])
    told = {line.name: line for line in lines}
    for name in ("tensor_parallel_size", "data_parallel_size", "enable_expert_parallel"):
        assert (told[name].reason == "as given") == (name in fields)
        assert told[name].reason
    assert len([line for line in lines if line.name == "data_parallel_size"]) == 1


def test_ranks_are_numbered_as_elsewhere() -> None:
    layout = ParallelLayout(tp_size=2, dp_size=3)
    assert layout.tp_groups() == [[0, 1], [2, 3], [4, 5]]
    assert layout.dp_groups() == [[0, 2, 4], [1, 3, 5]]
    assert [layout.dp_rank(rank) for rank in range(6)] == [0, 0, 1, 1, 2, 2]
    assert [layout.tp_rank(rank) for rank in range(6)] == [0, 1, 0, 1, 0, 1]


def test_ranks_of_one_machine_share_its_memory() -> None:
    small = PlatformFacts(device="cpu", num_cores=2, available_bytes=5 * 2**28)
    pages = [
        resolve(EngineConfig(data_parallel_size=dp, max_num_seqs=4096), V3, small, model_path="/m")[
            0
        ].num_pages
        for dp in (1, 2)
    ]
    assert 0 < pages[1] < pages[0] / 2
