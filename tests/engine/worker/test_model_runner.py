"""The model runner carries out plans; a row that fails does so alone."""

from pathlib import Path

import pytest
import torch

from leadline.engine.model.deepseek import DeepseekModel
from leadline.engine.model.paged_memory import PagedMemory
from leadline.engine.model.rope import softmax_scale
from leadline.engine.model.weights import assemble
from leadline.engine.parallel.context import ParallelContext
from leadline.engine.request import SamplingParams
from leadline.engine.step import ModelOutput, NewRequest, ScheduledRow, SchedulerOutput
from leadline.engine.worker.model_runner import FAILED_ROWS, ModelRunner, verify
from leadline.kernels.api import KernelSet
from leadline.kernels.latent_cache import LatentCache, LatentLayout
from leadline.kernels.sampling import NAN_LOGITS
from leadline.kernels.select import Platform, select_kernels
from leadline.loader.checkpoint import Checkpoint
from leadline.loader.load import load_weights
from leadline.loader.model_config import ModelConfig
from leadline.loader.synthetic import tiny_v3, write_checkpoint

PAGE_SIZE, NUM_PAGES = 4, 32
NAN_SENTENCE = FAILED_ROWS[NAN_LOGITS]
BAD_TOKEN = 500
GOOD, OTHER, BAD = [5, 6, 7, 8, 9], [20, 21, 22], [30, BAD_TOKEN, 32]
PARAMS = SamplingParams(seed=11, max_tokens=20, temperature=0.9)


class Runner:
    """A model runner with a page table and a token list for each request."""

    def __init__(self, config: ModelConfig, model: DeepseekModel, kernels: KernelSet) -> None:
        layout = LatentLayout(config.kv_lora_rank, config.qk_rope_head_dim, "float32")
        self.cache = LatentCache(config.num_hidden_layers + 1, NUM_PAGES, PAGE_SIZE, layout)
        memory = PagedMemory(self.cache, kernels, scale=softmax_scale(config))
        self.runner = ModelRunner(
            model, memory, kernels, page_size=PAGE_SIZE, vocab_size=config.vocab_size
        )
        self._step_id = 0
        self._started: dict[str, list[int]] = {}
        self._free_pages = list(range(NUM_PAGES))

    def start(self, request_id: str, token_ids: list[int], num_tokens: int = 0) -> ScheduledRow:
        """The first row of a request: all of its tokens, or `num_tokens`."""
        self._started[request_id] = token_ids
        pages, self._free_pages = self._free_pages[:4], self._free_pages[4:]
        count = num_tokens or len(token_ids)
        return ScheduledRow(request_id, 0, count, pages, 0, count == len(token_ids))

    def draft(self, request_id: str, draft_ids: list[int]) -> None:
        """Let the runner hold drafts that no drafter has made."""
        self.runner._held[request_id].draft_ids = draft_ids

    def step(self, *rows: ScheduledRow, released_ids: tuple[str, ...] = ()) -> ModelOutput:
        new = [
            NewRequest(
                request_id=row.request_id,
                token_ids=self._started[row.request_id],
                num_prompt_tokens=len(self._started[row.request_id]),
                params=PARAMS,
            )
            for row in rows
            if row.start == 0
        ]
        self._step_id += 1
        num_tokens = sum(row.num_tokens for row in rows)
        plan = SchedulerOutput(self._step_id, new, list(rows), list(released_ids), num_tokens)
        output = self.runner.run(plan)
        assert output.step_id == self._step_id
        assert output.elapsed_s > 0
        assert len(output.rows) == len(rows)
        return output


def decode(request_id: str, start: int, num_verify: int = 0) -> ScheduledRow:
    """One known token, and drafts after it."""
    return ScheduledRow(request_id, start, 1, [], num_verify, True)


@pytest.fixture(scope="module")
def loaded(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ModelConfig, DeepseekModel, KernelSet]:
    """A model whose embedding of one token is damaged."""
    path: Path = tmp_path_factory.mktemp("checkpoint")
    config = write_checkpoint(path, tiny_v3(), fmt="float32")
    weights = load_weights(Checkpoint.open(path), config)
    embedding = weights.tensors["model.embed_tokens.weight"]
    assert isinstance(embedding, torch.Tensor)
    embedding[BAD_TOKEN] = torch.nan
    tree = assemble(weights.tensors, config, has_mtp=True)
    kernels, _ = select_kernels(Platform(batch_invariant=True))
    model = DeepseekModel(config, tree, kernels, ParallelContext(), max_len=64)
    return config, model, kernels


@pytest.fixture
def runner(loaded: tuple[ModelConfig, DeepseekModel, KernelSet]) -> Runner:
    return Runner(*loaded)


@pytest.fixture
def expected(loaded: tuple[ModelConfig, DeepseekModel, KernelSet]) -> list[int]:
    """Six tokens after GOOD, which is alone in every step."""
    runner = Runner(*loaded)
    token_ids = runner.step(runner.start("good", GOOD)).rows[0].token_ids
    for start in range(len(GOOD), len(GOOD) + 5):
        token_ids = token_ids + runner.step(decode("good", start)).rows[0].token_ids
    return token_ids


def test_tokens_come_one_a_step(expected: list[int]) -> None:
    assert len(expected) == 6
    assert all(0 <= token_id < 512 for token_id in expected)
    assert len(set(expected)) > 1


def test_empty_plan(runner: Runner) -> None:
    assert runner.step().rows == []


def test_empty_plan_between_steps_forgets_nothing(runner: Runner, expected: list[int]) -> None:
    runner.step(runner.start("good", GOOD))
    assert runner.step().rows == []
    assert runner.step(decode("good", len(GOOD))).rows[0].token_ids == [expected[1]]


def test_nan_fails_its_row_alone(runner: Runner, expected: list[int]) -> None:
    rows = runner.start("bad", BAD), runner.start("good", GOOD), runner.start("other", OTHER)
    bad, good, other = runner.step(*rows).rows
    assert (bad.token_ids, bad.error) == ([], NAN_SENTENCE)
    assert (good.token_ids, good.error) == ([expected[0]], None)
    assert len(other.token_ids) == 1
    assert other.error is None
    after = runner.step(decode("good", len(GOOD)), released_ids=("bad",)).rows[0]
    assert after.token_ids == [expected[1]]


def test_nan_after_a_rejected_draft_fails_nobody(runner: Runner, expected: list[int]) -> None:
    runner.step(runner.start("bad", [40, 41]), runner.start("good", GOOD))
    runner.draft("bad", [BAD_TOKEN])
    bad, good = runner.step(decode("bad", 2, 1), decode("good", len(GOOD))).rows
    assert not bad.is_corrupt
    assert bad.error is None, "the damaged draft is not what the target samples"
    assert len(bad.token_ids) == 1
    assert good.token_ids == [expected[1]]


def test_row_that_does_not_sample_reports_nothing(runner: Runner) -> None:
    partial, whole = runner.step(runner.start("bad", BAD, 2), runner.start("good", GOOD)).rows
    assert (partial.token_ids, partial.error) == ([], None)
    assert len(whole.token_ids) == 1
    rest = ScheduledRow("bad", 2, 1, [], 0, True)
    assert runner.step(rest).rows[0].error == NAN_SENTENCE


def test_pages_of_a_failed_request_harm_nobody(runner: Runner, expected: list[int]) -> None:
    """The next request gets the same pages, and slots beyond its length hold NaN."""
    pages = [3, 1, 2, 0]
    bad, good = runner.start("bad", [*BAD] * 4), runner.start("good", GOOD)
    bad.new_page_ids, good.new_page_ids = list(pages), list(pages)
    assert runner.step(bad).rows[0].error == NAN_SENTENCE
    assert runner.cache.layers[0].pages[pages].isnan().any()
    assert runner.step(good, released_ids=("bad",)).rows[0].token_ids == [expected[0]]
    assert runner.step(decode("good", len(GOOD))).rows[0].token_ids == [expected[1]]


def test_chunks_give_the_same_token(runner: Runner, expected: list[int]) -> None:
    runner.step(runner.start("good", GOOD, 2))
    assert runner.step(ScheduledRow("good", 2, 2, [], 0, False)).rows[0].token_ids == []
    assert runner.step(decode("good", 4)).rows[0].token_ids == [expected[0]]


def test_preempted_request_goes_on(runner: Runner, expected: list[int]) -> None:
    runner.step(runner.start("good", GOOD))
    runner.step(decode("good", len(GOOD)))
    again = runner.start("good", [*GOOD, *expected[:2]])
    assert runner.step(again, released_ids=("good",)).rows[0].token_ids == [expected[2]]


@pytest.mark.parametrize("num_right", [0, 1, 2, 3])
def test_drafts_are_accepted_up_to_the_first_wrong_one(
    num_right: int, runner: Runner, expected: list[int]
) -> None:
    runner.step(runner.start("good", GOOD))
    drafts = expected[1:4]
    if num_right < 3:
        drafts[num_right] = (drafts[num_right] + 1) % 500
    runner.draft("good", drafts)
    output = runner.step(decode("good", len(GOOD), 3)).rows[0]
    assert output.token_ids == expected[1 : 2 + num_right]
    assert output.num_verified == 3
    after = runner.step(decode("good", len(GOOD) + 1 + num_right)).rows[0]
    assert after.token_ids == [expected[2 + num_right]]


@pytest.mark.parametrize(
    ("draft_ids", "sampled_ids", "token_ids"),
    [
        ([], [4], [4]),
        ([4], [4, 5], [4, 5]),
        ([4], [3, 5], [3]),
        ([4, 5, 6], [4, 5, 6, 7], [4, 5, 6, 7]),
        ([4, 5, 6], [4, 9, 6, 7], [4, 9]),
        ([4, 5], [-1, 5, 6], [-1]),
    ],
)
def test_verify(draft_ids: list[int], sampled_ids: list[int], token_ids: list[int]) -> None:
    assert verify(draft_ids, sampled_ids) == token_ids
