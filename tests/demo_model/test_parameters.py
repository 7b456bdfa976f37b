"""Training can go on from an export."""

import dataclasses

import pytest
import torch

from benchmarks.demo_model.blend import blend
from benchmarks.demo_model.model import demo_config
from benchmarks.demo_model.parameters import (
    Initializer,
    copy_parameters,
    named_leaves,
    read_export,
    trainable,
)
from benchmarks.demo_model.train import Continuation
from leadline.engine.model.weights import ModelWeights
from leadline.loader.hub import resolve_model
from leadline.loader.model_config import parse_model_config


def read() -> tuple[ModelWeights, ModelWeights]:
    config = parse_model_config(demo_config())
    target = Initializer(config, seed=0).model()
    source = read_export(resolve_model("leadline-demo"), config)
    copy_parameters(target, source)
    return target, source


def test_an_export_is_read_into_a_trainable_tree() -> None:
    target, source = read()
    stored = dict(named_leaves(source))
    for name, tensor in named_leaves(target):
        assert torch.equal(tensor, stored[name].float()), name
    assert target.mtp is not None
    assert target.mtp.embed_tokens is target.embed_tokens
    assert target.mtp.head is target.lm_head
    assert all(tensor.dtype == torch.float32 for tensor in trainable(target).values())
    num_trainable = len(trainable(dataclasses.replace(target, mtp=None)))
    assert num_trainable < len(trainable(target))


def test_the_share_warms_up_stays_and_falls_to_zero() -> None:
    how = Continuation(num_steps=400, peak=0.5, hold=0.5, warm_up=20)
    share = how.share
    assert share(0) == 0.5 / 20
    assert share(100) == share(200) == 0.5
    assert share(300) == pytest.approx(0.25)
    assert share(400) == 0
    assert how.guide_weight(0) == 0


def test_the_guide_fades() -> None:
    weight = Continuation(400, 0.5, 0.5, guide=0.3, guide_until=0.5).guide_weight
    assert [weight(0), weight(100), weight(200), weight(399)] == pytest.approx([0.3, 0.15, 0, 0])


def test_a_blend_moves_each_parameter_once() -> None:
    target, source = read()
    before = {name: tensor.detach().clone() for name, tensor in named_leaves(target)}
    with torch.no_grad():
        for _, tensor in named_leaves(source):
            tensor.zero_()
    blend(target, source, 0.25)
    for name, tensor in named_leaves(target):
        assert torch.allclose(tensor, before[name] * 0.75), name
