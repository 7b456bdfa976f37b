"""Experts in host memory: the same answers, whoever computes them and wherever they move."""

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from leadline.engine.model.dispatch import LocalDispatcher
from leadline.engine.model.experts import LocalExperts
from leadline.engine.model.host_experts import HostExpertLayers
from leadline.engine.model.resident_experts import ResidentExperts
from leadline.engine.model.weights import MoEWeights, assemble
from leadline.kernels.api import KernelSet
from leadline.kernels.select import Platform, reference_kernels, select_kernels
from leadline.loader.checkpoint import Checkpoint
from leadline.loader.load import load_weights
from leadline.loader.synthetic import tiny_v3, write_checkpoint

NUM_EXPERTS, TOP_K = 16, 4
CPU = torch.device("cpu")
FAST = select_kernels(Platform(batch_invariant=True))[0]


@pytest.fixture(scope="module", params=["bfloat16", "fp8"])
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MoEWeights:
    path: Path = tmp_path_factory.mktemp("model")
    config = write_checkpoint(path, tiny_v3(), fmt=request.param)
    loaded = load_weights(Checkpoint.open(path), config, dtype=torch.float32)
    mlp = assemble(loaded.tensors, config, has_mtp=True).layers[1].mlp
    assert isinstance(mlp, MoEWeights)
    return mlp


def choices(
    num_tokens: int, seed: int = 0, hot: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(x, ids, weights); `hot` is chosen by every token."""
    generator = torch.Generator().manual_seed(seed)
    x_TD = torch.randn(num_tokens, 64, generator=generator)
    scores_TE = torch.rand(num_tokens, NUM_EXPERTS, generator=generator)
    if hot is not None:
        scores_TE[:, hot] = 2
    weights_TK, ids_TK = scores_TE.topk(TOP_K)
    return x_TD, ids_TK, weights_TK


def layers(kernels: KernelSet, num_resident: int, *, adapts: bool = False) -> HostExpertLayers:
    return HostExpertLayers(
        kernels,
        FAST,
        num_experts=NUM_EXPERTS,
        num_resident=num_resident,
        device=CPU,
        adapts=adapts,
    )


def local(weights: MoEWeights, x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor) -> Tensor:
    dispatcher = LocalDispatcher(FAST, NUM_EXPERTS)
    sent = dispatcher.dispatch(x_TD, ids_TK, weights_TK)
    return dispatcher.combine(
        LocalExperts(weights, FAST).begin(sent.x_RD, sent.counts)(), sent.handle
    )


@pytest.mark.parametrize("num_tokens", [0, 1, 9])
@pytest.mark.parametrize("num_resident", [0, 3, 15])
def test_the_same_bits_with_the_same_kernels(
    weights: MoEWeights, num_resident: int, num_tokens: int
) -> None:
    made = layers(FAST, num_resident)
    dispatcher, experts = made.make_dispatcher(1), made.make_experts(1, weights)
    x_TD, ids_TK, weights_TK = choices(num_tokens)
    sent = dispatcher.dispatch(x_TD, ids_TK, weights_TK)
    expected_E = ids_TK.flatten().bincount(minlength=NUM_EXPERTS)
    assert sent.counts.tolist() == expected_E.tolist()
    found = dispatcher.combine(experts.begin(sent.x_RD, sent.counts)(), sent.handle)
    assert torch.equal(found, local(weights, x_TD, ids_TK, weights_TK))


def test_the_device_computes_the_residents_alone(weights: MoEWeights) -> None:
    """The device's kernels get the resident experts' rows, the host's the others."""
    rows: dict[str, int] = {"device": 0, "host": 0}

    def counting(kernels: KernelSet, name: str) -> KernelSet:
        def grouped_mlp(x_RD: Tensor, counts: Tensor, gate_up: object, down: object) -> Tensor:
            rows[name] += len(x_RD)
            return kernels.grouped_mlp(x_RD, counts, gate_up, down)  # type: ignore[arg-type]

        return dataclasses.replace(kernels, grouped_mlp=grouped_mlp)

    made = HostExpertLayers(
        counting(reference_kernels(), "device"),
        counting(FAST, "host"),
        num_experts=NUM_EXPERTS,
        num_resident=5,
        device=CPU,
        adapts=False,
    )
    dispatcher, experts = made.make_dispatcher(1), made.make_experts(1, weights)
    x_TD, ids_TK, weights_TK = choices(20)
    sent = dispatcher.dispatch(x_TD, ids_TK, weights_TK)
    pending = experts.begin(sent.x_RD, sent.counts)
    assert rows == {"device": 0, "host": 0}  # until somebody waits, others may use both
    found = dispatcher.combine(pending(), sent.handle)
    assert rows == {"device": int((ids_TK < 5).sum()), "host": int((ids_TK >= 5).sum())}
    expected = local(weights, x_TD, ids_TK, weights_TK)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_busiest_experts_come_to_the_device(weights: MoEWeights) -> None:
    """Expert 11 is chosen by every token: it gets a place, and no answer changes on the way."""
    made = layers(FAST, 2, adapts=True)
    dispatcher, experts = made.make_dispatcher(1), made.make_experts(1, weights)
    before = experts.num_bytes
    residents = made._residents_of(1)
    assert residents.expert_ids == [0, 1]
    for step in range(40):
        x_TD, ids_TK, weights_TK = choices(8, seed=step, hot=11)
        sent = dispatcher.dispatch(x_TD, ids_TK, weights_TK)
        assert int(sent.counts[11]) == 8
        found = dispatcher.combine(experts.begin(sent.x_RD, sent.counts)(), sent.handle)
        assert torch.equal(found, local(weights, x_TD, ids_TK, weights_TK))
    assert 11 in residents.expert_ids
    assert experts.num_bytes == before > 0


@given(
    num_resident=st.integers(0, 6),
    loads=st.lists(st.lists(st.integers(0, 50), min_size=8, max_size=8), max_size=80),
)
def test_places_are_a_permutation(num_resident: int, loads: list[list[int]]) -> None:
    residents = ResidentExperts(8, num_resident, CPU)
    for load in loads:
        counts_E = torch.tensor(load)
        found = residents.observe(counts_E)
        if found is not None:
            residents.put(*found)
        ids = residents.expert_ids
        assert len(set(ids)) == num_resident
        assert residents.ids_N.tolist() == ids
        slots = residents.slots_E.tolist()
        assert [slots[expert] for expert in ids] == list(range(num_resident))
        others = [e for e in range(8) if e not in ids]
        assert [slots[e] for e in others] == [num_resident + e for e in others]
        here_N, others_E = residents.split(counts_E)
        assert here_N.tolist() == [load[e] for e in ids]
        assert int(here_N.sum() + others_E.sum()) == sum(load)
