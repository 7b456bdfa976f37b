"""Trains the built-in model: `python -m benchmarks.demo_model.train --out DIR`.

The product's own model text runs through the reference kernels, with matrix products in bfloat16.
Losses: next token, and the MTP layer's next-next token (DeepSeek-V3, section 2.2); experts are
balanced by their correction bias alone (section 2.1.2).
"""

import argparse
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from benchmarks.demo_model.data import training_batches
from benchmarks.demo_model.model import MAX_LENGTH, demo_config
from benchmarks.demo_model.muon import Muon
from benchmarks.demo_model.packing import PackedBatch, PackedMemory
from benchmarks.demo_model.parameters import (
    Initializer,
    correction_biases,
    save_parameters,
    trainable,
)
from leadline.engine.model.deepseek import DeepseekModel
from leadline.engine.model.rope import softmax_scale
from leadline.engine.model.weights import ModelWeights
from leadline.engine.parallel.context import ParallelContext
from leadline.kernels.api import KernelSet, RouterConfig
from leadline.kernels.reference.moe import GroupedMLP
from leadline.kernels.select import Platform, select_kernels
from leadline.loader.model_config import ModelConfig, parse_model_config

MTP_LOSS_WEIGHT = 0.3  # DeepSeek-V3, section 4.2: 0.3 for most of the training
BIAS_UPDATE_SPEED = 0.003  # the paper has 0.001, over three hundred times as many steps
ADAM_LEARNING_RATE = 3e-3
MUON_LEARNING_RATE = 0.02
PARAMETERS_FILE = "parameters.safetensors"
WARMUP_STEPS = 50
DECAY_SHARE = 0.5  # the last part of the steps, over which the learning rate falls to zero


def linear_bf16(x_TK: Tensor, weight_NK: Tensor) -> Tensor:
    """`api.Linear` with bfloat16 operands, sums in float32.

    Rows are padded to a multiple of 128: oneDNN compiles a kernel for every new shape, which costs
    far more than the product of an expert's few rows.
    """
    num_rows = x_TK.shape[0]
    padded = torch.nn.functional.pad(x_TK.to(torch.bfloat16), (0, 0, 0, -num_rows % 128))
    return (padded @ weight_NK.to(torch.bfloat16).T)[:num_rows]


class LoadCounter:
    """Routes like the reference, and counts the tokens of each expert, layer after layer."""

    def __init__(self, kernels: KernelSet) -> None:
        self._route = kernels.route
        self.counts: list[Tensor] = []

    def __call__(
        self, logits_TE: Tensor, bias_E: Tensor | None, config: RouterConfig
    ) -> tuple[Tensor, Tensor]:
        """See `api.Route`."""
        ids, weights = self._route(logits_TE, bias_E, config)
        self.counts.append(torch.bincount(ids.flatten(), minlength=logits_TE.shape[1]))
        return ids, weights

    def take(self) -> list[Tensor]:
        """The counts since the last call, one tensor [E] a layer."""
        counts, self.counts = self.counts, []
        return counts


def training_kernels() -> tuple[KernelSet, LoadCounter]:
    """The reference kernels with bfloat16 products and counted routing."""
    reference, _ = select_kernels(Platform())
    counter = LoadCounter(reference)
    kernels = dataclasses.replace(
        reference, linear=linear_bf16, grouped_mlp=GroupedMLP(linear_bf16), route=counter
    )
    return kernels, counter


def losses(model: DeepseekModel, config: ModelConfig, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """(next-token loss, MTP loss) over the tokens that the model must produce."""
    memory = PackedMemory(batch, softmax_scale(config))
    step = model.step_context(batch.positions_T, memory)
    hidden = model.forward(batch.token_ids_T, step)
    targets = batch.is_target_T.nonzero().squeeze(1)
    main = torch.nn.functional.cross_entropy(
        model.compute_logits(hidden[targets - 1]), batch.token_ids_T[targets]
    )
    assert model.mtp is not None
    previous = torch.cat((hidden[:1], hidden[:-1]))
    mtp_hidden = model.mtp.forward(previous, batch.token_ids_T, step)
    # The entry of a chat's first token has no token before it, so it predicts nothing.
    targets = targets[batch.positions_T[targets] >= 2]
    mtp = torch.nn.functional.cross_entropy(
        model.mtp.compute_logits(mtp_hidden[targets - 1]), batch.token_ids_T[targets]
    )
    return main, mtp


def learning_rate_share(step: int, num_steps: int) -> float:
    """Warm-up, plateau, then a straight fall to zero."""
    decay_start = (1 - DECAY_SHARE) * num_steps
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return min(1.0, (num_steps - step) / (num_steps - decay_start))


class Trainer:
    """Parameters, optimisers and the loop over steps."""

    def __init__(self, config: ModelConfig, seed: int, num_steps: int) -> None:
        self._config = config
        self._num_steps = num_steps
        self.weights: ModelWeights = Initializer(config, seed).model()
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

    def step(self, index: int, batch: PackedBatch) -> tuple[float, float]:
        """One update; returns the two losses."""
        main, mtp = losses(self.model, self._config, batch)
        torch.autograd.backward(main + MTP_LOSS_WEIGHT * mtp)
        share = learning_rate_share(index, self._num_steps)
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


def train(trainer: Trainer, batches: Iterator[PackedBatch], num_steps: int, out: Path) -> None:
    """Runs all steps under a progress bar and saves the parameters at the end."""
    started = time.perf_counter()
    with Progress() as progress:
        task = progress.add_task("training", total=num_steps)
        for index in range(num_steps):
            main, mtp = trainer.step(index, next(batches))
            text = f"loss {main:.3f}  mtp {mtp:.3f}  load max/mean {trainer.load_ratio:.2f}"
            progress.update(task, advance=1, description=text)
            if index % 50 == 0 or index == num_steps - 1:
                elapsed = time.perf_counter() - started
                progress.console.print(f"step {index}  {elapsed:.0f} s  {text}")
            if index % 500 == 499:
                save_parameters(trainer.weights, out / PARAMETERS_FILE)
    save_parameters(trainer.weights, out / PARAMETERS_FILE)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer and weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--rows", type=int, default=16, help="rows a batch")
    parser.add_argument("--length", type=int, default=256, help="tokens a row")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    config = parse_model_config(demo_config())
    trainer = Trainer(config, arguments.seed, arguments.steps)
    num_parameters = sum(p.numel() for p in trainable(trainer.weights).values())
    print(f"{num_parameters / 1e6:.2f} million parameters")
    batches = training_batches(
        arguments.out, arguments.seed, num_rows=arguments.rows, length=arguments.length
    )
    train(trainer, batches, arguments.steps, arguments.out)


if __name__ == "__main__":
    main()
