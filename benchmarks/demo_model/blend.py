"""Mixes a training run with the checkpoint it began with: `python -m benchmarks.demo_model.blend`.

What training added mostly stays and what it blurred mostly comes back: losses between the two are
lower than at either end (Wortsman et al., 2022, "Robust fine-tuning of zero-shot models").
"""

import argparse
import shutil
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.demo_model.export import TOKENIZER_FILES
from benchmarks.demo_model.model import demo_config
from benchmarks.demo_model.parameters import (
    Initializer,
    load_parameters,
    named_leaves,
    read_export,
    save_parameters,
)
from benchmarks.demo_model.train import PARAMETERS_FILE
from leadline.engine.model.weights import ModelWeights
from leadline.loader.model_config import parse_model_config


@torch.no_grad()
def blend(target: ModelWeights, other: ModelWeights, share: float) -> None:
    """Move every parameter of a tree by a share of the way to another's."""
    others = dict(named_leaves(other))
    moved: set[int] = set()
    for name, tensor in named_leaves(target):
        if id(tensor) not in moved:  # the MTP layer shares some
            moved.add(id(tensor))
            source: Tensor = others[name]
            tensor.lerp_(source.to(tensor.dtype), share)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--with", dest="export", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--share", type=float, required=True, help="of the checkpoint, 0 to 1")
    parser.add_argument("--out", type=Path, required=True, help="folder like that of a run")
    arguments = parser.parse_args()
    config = parse_model_config(demo_config())
    weights = Initializer(config, seed=0).model()
    load_parameters(weights, arguments.run / PARAMETERS_FILE)
    blend(weights, read_export(arguments.export, config), arguments.share)
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_parameters(weights, arguments.out / PARAMETERS_FILE)
    for name in TOKENIZER_FILES:
        shutil.copyfile(arguments.run / name, arguments.out / name)


if __name__ == "__main__":
    main()
