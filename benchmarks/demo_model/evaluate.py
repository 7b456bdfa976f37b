"""Measures the built-in model: `python -m benchmarks.demo_model.evaluate [--checkpoint DIR]`.

Answers to held-out phrasings come from the product's own engine, greedy, in batches. Losses, MTP
acceptance and expert load come from one forward pass over whole held-out conversations.
"""

import argparse
import dataclasses
import json
from collections import defaultdict
from pathlib import Path

import msgspec
import torch
from rich.progress import track
from tokenizers import Tokenizer
from torch import Tensor

from benchmarks.demo_model.chat_format import END_THINK, render_prompt
from benchmarks.demo_model.chats import (
    HELDOUT_WEIGHTS,
    Corpus,
    HeldoutChat,
    build_corpus,
    normalise_answer,
)
from benchmarks.demo_model.kernels import LoadCounter
from benchmarks.demo_model.packing import PackedBatch, PackedMemory, pack
from benchmarks.demo_model.shares import SHIPPED_SHARES
from benchmarks.demo_model.tokenizer import encode_chat, encode_prompt
from leadline.engine.build import build_core
from leadline.engine.config import EngineConfig, resolve
from leadline.engine.core import EngineCore
from leadline.engine.model.deepseek import DeepseekModel
from leadline.engine.model.rope import softmax_scale
from leadline.engine.model.weights import assemble
from leadline.engine.parallel.context import ParallelContext
from leadline.engine.platform_facts import cpu_facts
from leadline.engine.request import EngineRequest, SamplingParams
from leadline.kernels.reference.linear import linear
from leadline.kernels.reference.moe import GroupedMLP
from leadline.kernels.select import reference_kernels
from leadline.loader.checkpoint import Checkpoint
from leadline.loader.hub import resolve_model
from leadline.loader.load import load_weights
from leadline.loader.model_config import read_model_config

EOS_ID = 1
MAX_ANSWER_TOKENS = 160
SEED = 1


def open_engine(path: Path) -> tuple[EngineCore, Tokenizer]:
    """The product's engine over a checkpoint, in this process."""
    config = EngineConfig(model=str(path), max_num_seqs=32, max_model_len=1024)
    resolved, _ = resolve(config, read_model_config(path), cpu_facts(), model_path=str(path))
    core, _ = build_core(msgspec.json.encode(resolved), lambda stage: None)
    return core, Tokenizer.from_file(str(path / "tokenizer.json"))


def answers(core: EngineCore, tokenizer: Tokenizer, chats: list[HeldoutChat]) -> list[str]:
    """The greedy answer to each prompt, with its markup but without the end token."""
    params = SamplingParams(
        seed=0, max_tokens=MAX_ANSWER_TOKENS, temperature=0.0, eos_token_ids=(EOS_ID,)
    )
    token_ids: dict[str, list[int]] = defaultdict(list)
    for i, heldout in enumerate(chats):
        prompt = encode_prompt(tokenizer, render_prompt(heldout.chat))
        core.submit(EngineRequest(request_id=str(i), prompt_ids=prompt, params=params))
    while core.has_work():
        for output in core.step():
            token_ids[output.request_id] += output.token_ids
    texts = []
    for i in range(len(chats)):
        ids = [token for token in token_ids[str(i)] if token != EOS_ID]
        texts.append(tokenizer.decode(ids, skip_special_tokens=False))
    return texts


def is_right(heldout: HeldoutChat, answer: str) -> bool:
    """Whether the answer, after its reasoning, is the expected one."""
    final = answer.rpartition(END_THINK)[2]
    return normalise_answer(final) == normalise_answer(heldout.expected)


def accuracy(core: EngineCore, tokenizer: Tokenizer, corpus: Corpus, kind: str, num: int) -> float:
    """Share of right answers of one kind; prints a few wrong ones."""
    chats = corpus.heldout_chats(num, SEED, kind)
    num_right = num_shown = 0
    for begin in track(range(0, num, 256), description=kind):
        part = chats[begin : begin + 256]
        for heldout, answer in zip(part, answers(core, tokenizer, part), strict=True):
            if is_right(heldout, answer):
                num_right += 1
            elif num_shown < 3:
                num_shown += 1
                question = heldout.chat.messages[-1]["content"]
                print(f"  {question!r}\n    said {answer!r}\n    want {heldout.expected!r}")
    return num_right / num


@dataclasses.dataclass(slots=True)
class Losses:
    """Sums over the target tokens of held-out conversations.

    Attributes:
        main, mtp: mean cross entropy, nats.
        acceptance: share of targets where the MTP layer's best token is the model's own best.
        load_ratio: expert load, max / mean, averaged over layers.
    """

    main: float
    mtp: float
    acceptance: float
    load_ratio: float


def heldout_batches(corpus: Corpus, tokenizer: Tokenizer) -> list[PackedBatch]:
    """Forty batches of held-out conversations, some 65,000 tokens to produce."""
    chats = corpus.heldout_conversations(6000, SEED, SHIPPED_SHARES)
    stream = pack((encode_chat(tokenizer, chat) for chat in chats), [(8, 512)])
    return [next(stream) for _ in range(40)]


def measure(path: Path, batches: list[PackedBatch], *, with_bias: bool = True) -> Losses:
    """Teacher-forced losses of a checkpoint, its weights dequantised to float32."""
    config = read_model_config(path)
    loaded = load_weights(Checkpoint.open(path), config, dtype=torch.float32, dequantize=True)
    if not with_bias:
        for name, tensor in loaded.tensors.items():
            if name.endswith("e_score_correction_bias"):
                assert isinstance(tensor, Tensor)
                tensor.zero_()
    weights = assemble(loaded.tensors, config, has_mtp=loaded.has_mtp)
    reference = reference_kernels()
    counter = LoadCounter(reference)
    kernels = dataclasses.replace(reference, grouped_mlp=GroupedMLP(linear), route=counter)
    model = DeepseekModel(config, weights, kernels, ParallelContext(), max_len=1024)
    sums, ratios = torch.zeros(4, dtype=torch.float64), []
    for batch in track(batches, description=path.name):
        with torch.inference_mode():
            sums += _batch_sums(model, softmax_scale(config), batch)
        ratios += [float(c.max() / c.float().mean()) for c in counter.take()]
    num, main, mtp, accepted = sums.tolist()
    return Losses(main / num, mtp / num, accepted / num, sum(ratios) / len(ratios))


def _batch_sums(model: DeepseekModel, scale: float, batch: PackedBatch) -> Tensor:
    """(targets, main loss, MTP loss, accepted) of targets that the MTP layer can predict."""
    step = model.step_context(batch.positions_T, PackedMemory(batch, scale))
    hidden = model.forward(batch.token_ids_T, step)
    targets = (batch.is_target_T & (batch.positions_T >= 2)).nonzero().squeeze(1)
    logits = model.compute_logits(hidden[targets - 1])
    assert model.mtp is not None
    previous = torch.cat((hidden[:1], hidden[:-1]))
    mtp_hidden, _ = model.mtp.forward(previous, batch.token_ids_T, step)
    mtp_logits = model.mtp.compute_logits(mtp_hidden[targets - 1])
    wanted = batch.token_ids_T[targets]
    losses = [
        torch.nn.functional.cross_entropy(x, wanted, reduction="sum") for x in (logits, mtp_logits)
    ]
    accepted = (logits.argmax(-1) == mtp_logits.argmax(-1)).sum()
    return torch.tensor([len(targets), *losses, accepted], dtype=torch.float64)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="leadline-demo", help="folder or name")
    parser.add_argument("--bfloat16", type=Path, help="its BF16 twin, to compare losses with")
    parser.add_argument("--facts", type=int, help="ask about so many facts (default: all)")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    path = resolve_model(arguments.checkpoint)
    corpus = build_corpus()
    core, tokenizer = open_engine(path)
    figures: dict[str, float] = {}
    asked = {"fact": arguments.facts or len(corpus.facts), "smalltalk": 300}
    for kind in HELDOUT_WEIGHTS:
        num = asked.get(kind, 100)
        figures[f"accuracy {kind}"] = accuracy(core, tokenizer, corpus, kind, num)
    batches = heldout_batches(corpus, tokenizer)
    fp8 = measure(path, batches)
    figures |= {f"fp8 {name}": value for name, value in dataclasses.asdict(fp8).items()}
    unbalanced = measure(path, batches, with_bias=False)
    figures["load_ratio without bias"] = unbalanced.load_ratio
    if arguments.bfloat16:
        twin = measure(arguments.bfloat16, batches)
        figures |= {f"bf16 {name}": value for name, value in dataclasses.asdict(twin).items()}
        figures["fp8 / bf16 loss - 1"] = fp8.main / twin.main - 1
    for name, value in figures.items():
        print(f"{name:28} {value:.4f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
