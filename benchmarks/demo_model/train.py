"""Trains the built-in model: `python -m benchmarks.demo_model.train --out DIR`.

The product's own model text runs through the reference kernels, with matrix products in bfloat16.
Losses: next token, and the MTP layer's next-next token (DeepSeek-V3, section 2.2); experts are
balanced by their correction bias alone (section 2.1.2).
"""

import argparse
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from tokenizers import Tokenizer
from torch import Tensor

from benchmarks.demo_model.data import SHAPES, training_batches
from benchmarks.demo_model.guide import AttentionGuide, token_forms
from benchmarks.demo_model.kernels import training_kernels
from benchmarks.demo_model.model import MAX_LENGTH, demo_config
from benchmarks.demo_model.muon import Muon
from benchmarks.demo_model.packing import PackedBatch, PackedMemory
from benchmarks.demo_model.parameters import (
    Initializer,
    copy_parameters,
    correction_biases,
    load_parameters,
    read_export,
    save_parameters,
    trainable,
)
from benchmarks.demo_model.shares import DEFAULT_SHARES, Shares
from leadline.engine.model.deepseek import DeepseekModel
from leadline.engine.model.rope import softmax_scale
from leadline.engine.model.weights import ModelWeights
from leadline.engine.parallel.context import ParallelContext
from leadline.loader.model_config import ModelConfig, parse_model_config

MTP_LOSS_WEIGHT = 0.3  # DeepSeek-V3, section 4.2: 0.3 for most of the training
BIAS_UPDATE_SPEED = 0.003  # the paper has 0.001, over three hundred times as many steps
ADAM_LEARNING_RATE = 3e-3
MUON_LEARNING_RATE = 0.02
PARAMETERS_FILE = "parameters.safetensors"
PLATEAU_FILE = "plateau.safetensors"
WARMUP_STEPS = 50
NUM_PLATEAU_STEPS = 1000
NUM_DECAY_STEPS = 1100
NUM_CONTINUED_STEPS = 1000
CONTINUED_PEAK = 0.7  # of the learning rates
CONTINUED_LENGTH = 512  # tokens a row, if the number of rows is given
REPORT_EVERY = 25
SAVE_EVERY = 50


def losses(
    model: DeepseekModel,
    config: ModelConfig,
    batch: PackedBatch,
    guide: AttentionGuide | None = None,
) -> tuple[Tensor, Tensor]:
    """(next-token loss, MTP loss) over the tokens that the model must produce."""
    memory = PackedMemory(batch, softmax_scale(config), guide)
    step = model.step_context(batch.positions_T, memory)
    hidden = model.forward(batch.token_ids_T, step)
    targets = batch.is_target_T.nonzero().squeeze(1)
    main = torch.nn.functional.cross_entropy(
        model.compute_logits(hidden[targets - 1]), batch.token_ids_T[targets]
    )
    assert model.mtp is not None
    previous = torch.cat((hidden[:1], hidden[:-1]))
    mtp_hidden, _ = model.mtp.forward(previous, batch.token_ids_T, step)
    # The entry of a chat's first token has no token before it, so it predicts nothing.
    targets = targets[batch.positions_T[targets] >= 2]
    mtp = torch.nn.functional.cross_entropy(
        model.mtp.compute_logits(mtp_hidden[targets - 1]), batch.token_ids_T[targets]
    )
    return main, mtp


def plateau_share(step: int) -> float:
    """Share of the learning rate in the first phase: warm-up, then all of it."""
    return min(1.0, (step + 1) / WARMUP_STEPS)


def decay_share(step: int) -> float:
    """Share of the learning rate in the second phase: a straight fall to zero."""
    return 1 - step / NUM_DECAY_STEPS


class Trainer:
    """Parameters, optimisers and the loop over steps."""

    def __init__(self, config: ModelConfig, weights: ModelWeights) -> None:
        self._config = config
        self.weights = weights
        kernels, self._counter = training_kernels()
        self.model = DeepseekModel(
            config, self.weights, kernels, ParallelContext(), max_len=MAX_LENGTH
        )
        parameters = trainable(self.weights)
        matrices = [p for n, p in parameters.items() if p.dim() >= 2 and not _is_lookup(n)]
        others = [p for n, p in parameters.items() if p.dim() < 2 or _is_lookup(n)]
        self._muon = Muon(matrices)
        self._adam = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0, eps=1e-10)
        self._biases = correction_biases(self.weights)
        self.load_ratio = math.nan
        self.guide_losses: list[float] = []
        self._forms_V: Tensor | None = None

    def guide(self, tokenizer: Tokenizer) -> None:
        """Make the guide of attention available to steps that give it a weight."""
        self._forms_V = token_forms(tokenizer)

    def step(
        self, share: float, batch: PackedBatch, guide_weight: float = 0.0
    ) -> tuple[float, float]:
        """One update at a share of the learning rates; returns the two losses."""
        guide = None
        if guide_weight > 0 and self._forms_V is not None:
            guide = AttentionGuide(batch, self._forms_V)
        main, mtp = losses(self.model, self._config, batch, guide)
        total = main + MTP_LOSS_WEIGHT * mtp
        self.guide_losses = []
        if guide is not None:
            guide_losses = guide.losses()
            self.guide_losses = guide_losses.tolist()
            total = total + guide_weight * guide_losses.sum()
        torch.autograd.backward(total)
        self._muon.learning_rate = share * MUON_LEARNING_RATE
        self._adam.param_groups[0]["lr"] = share * ADAM_LEARNING_RATE
        self._muon.step()
        self._adam.step()
        self._adam.zero_grad()
        self._balance()
        return main.item(), mtp.item()

    def _balance(self) -> None:
        """Raise the bias of experts below the mean load, lower that of those above."""
        ratios = []
        for bias, count in zip(self._biases, self._counter.take(), strict=True):
            load = count.float()
            bias += BIAS_UPDATE_SPEED * torch.sign(load.mean() - load)
            ratios.append(float(load.max() / load.mean()))
        self.load_ratio = float(np.mean(ratios))


def _is_lookup(name: str) -> bool:
    """Rows of these are chosen rather than multiplied; they learn better with AdamW."""
    return name in ("embed_tokens", "lm_head") or name.endswith(".gate")


def train(
    trainer: Trainer,
    batches: Iterator[PackedBatch],
    num_steps: int,
    share: Callable[[int], float],
    name: str,
    saved_to: Path | None = None,
    guide_weight: Callable[[int], float] = lambda step: 0.0,
) -> None:
    """Runs one phase under a progress bar, its parameters saved every `SAVE_EVERY` steps."""
    started = time.perf_counter()
    recent: list[tuple[float, float]] = []
    with Progress() as progress:
        task = progress.add_task(name, total=num_steps)
        for index in range(num_steps):
            recent.append(trainer.step(share(index), next(batches), guide_weight(index)))
            main, mtp = np.mean(recent[-REPORT_EVERY:], axis=0)
            text = f"loss {main:.3f}  mtp {mtp:.3f}  load max/mean {trainer.load_ratio:.2f}"
            progress.update(task, advance=1, description=f"{name}  {text}")
            if index % REPORT_EVERY == 0 or index == num_steps - 1:
                elapsed = time.perf_counter() - started
                guided = " ".join(f"{loss:.2f}" for loss in trainer.guide_losses)
                text += f"  guide {guided}" if guided else ""
                progress.console.print(f"{name} step {index}  {elapsed:.0f} s  {text}")
            if saved_to is not None and index % SAVE_EVERY == SAVE_EVERY - 1:
                save_parameters(trainer.weights, saved_to)


def train_both_phases(out: Path, seed: int, *, only_decay: bool) -> None:
    """The plateau, its parameters written to a file, then the decay from that file.

    Optimisers and data begin anew in the second phase, so that it can be repeated by itself.
    """
    config = parse_model_config(demo_config())
    weights = Initializer(config, seed).model()
    num_parameters = sum(p.numel() for p in trainable(weights).values())
    print(f"{num_parameters / 1e6:.2f} million parameters")
    if not only_decay:
        batches = training_batches(out, seed)
        train(Trainer(config, weights), batches, NUM_PLATEAU_STEPS, plateau_share, "plateau")
        save_parameters(weights, out / PLATEAU_FILE)
    load_parameters(weights, out / PLATEAU_FILE)
    batches = training_batches(out, seed, phase=1)
    train(Trainer(config, weights), batches, NUM_DECAY_STEPS, decay_share, "decay")
    save_parameters(weights, out / PARAMETERS_FILE)


@dataclass(frozen=True, slots=True)
class Continuation:
    """How training goes on from an export.

    Attributes:
        num_steps: Steps in all.
        peak: Share of the learning rates after the warm-up.
        hold: Share of the steps at the peak, before the fall to zero.
        warm_up: Steps of the warm-up.
        guide: Weight of the loss on where guided heads look, at first.
        guide_until: Share of the steps over which that weight falls to zero.
    """

    num_steps: int
    peak: float
    hold: float
    warm_up: int = WARMUP_STEPS
    guide: float = 0.0
    guide_until: float = 0.4

    def share(self, step: int) -> float:
        """Share of the learning rates at a step."""
        num_falling = self.num_steps * (1 - self.hold)
        rising = min(1.0, (step + 1) / self.warm_up)
        return self.peak * min(rising, (self.num_steps - step) / num_falling)

    def guide_weight(self, step: int) -> float:
        """Weight of the guide's loss at a step."""
        return self.guide * max(0.0, 1 - step / (self.num_steps * self.guide_until))


def continue_training(
    export: Path, out: Path, seed: int, how: Continuation, shares: Shares, num_rows: int | None
) -> None:
    """Goes on from an exported checkpoint, dequantised, with its tokenizer."""
    config = parse_model_config(demo_config())
    weights = Initializer(config, seed).model()
    copy_parameters(weights, read_export(export, config))
    shapes = SHAPES if num_rows is None else [(num_rows, CONTINUED_LENGTH)]
    batches = training_batches(
        out, seed, phase=2, tokenizer_of=export, shares=shares, shapes=shapes
    )
    trainer = Trainer(config, weights)
    trainer.guide(Tokenizer.from_file(str(export / "tokenizer.json")))
    file = out / PARAMETERS_FILE
    train(trainer, batches, how.num_steps, how.share, "go on", file, how.guide_weight)
    save_parameters(weights, file)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer and weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-decay", action="store_true", help="go on from the plateau's file")
    parser.add_argument(
        "--from", dest="export", type=Path, help="go on from an exported checkpoint instead"
    )
    group = parser.add_argument_group("with --from")
    group.add_argument("--steps", type=int, default=NUM_CONTINUED_STEPS)
    group.add_argument("--peak", type=float, default=CONTINUED_PEAK, help="of the learning rates")
    group.add_argument("--hold", type=float, default=0.5, help="share of the steps at the peak")
    group.add_argument("--warm-up", type=int, default=WARMUP_STEPS, help="steps")
    group.add_argument("--rows", type=int, help="batches of so many rows of 512 tokens")
    group.add_argument(
        "--guide-attention", type=float, default=0.0, help="weight of the guide's loss, at first"
    )
    group.add_argument(
        "--guide-until", type=float, default=0.4, help="share of the steps until it is zero"
    )
    for field in dataclasses.fields(Shares):
        default = getattr(DEFAULT_SHARES, field.name)
        flag = f"--{field.name.replace('_', '-')}"
        group.add_argument(flag, type=float, default=default, help="share of chats")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.export is None:
        train_both_phases(arguments.out, arguments.seed, only_decay=arguments.only_decay)
        return
    how = Continuation(
        num_steps=arguments.steps,
        peak=arguments.peak,
        hold=arguments.hold,
        warm_up=arguments.warm_up,
        guide=arguments.guide_attention,
        guide_until=arguments.guide_until,
    )
    shares = Shares(**{f.name: getattr(arguments, f.name) for f in dataclasses.fields(Shares)})
    continue_training(arguments.export, arguments.out, arguments.seed, how, shares, arguments.rows)


if __name__ == "__main__":
    main()
