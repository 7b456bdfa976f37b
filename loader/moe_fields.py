"""The fields of `config.json` that shape the router and the experts."""

from typing import Any

from leadline.loader.config_reader import ConfigReader

_NO_MOE: dict[str, Any] = {
    "moe_intermediate_size": 0,
    "n_routed_experts": 0,
    "n_shared_experts": 0,
    "num_experts_per_tok": 0,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 0,
    "moe_layer_freq": 1,
    "scoring_func": "softmax",
    "topk_method": "greedy",
    "norm_topk_prob": False,
    "routed_scaling_factor": 1.0,
}


def moe_fields(reader: ConfigReader, *, is_v3: bool) -> dict[str, Any]:
    """Arguments of `ModelConfig`; what is not written is what the architecture implies.

    What V3's own code and that of transformers would fill in from the largest model (groups,
    scaling, dense layers) must be written: a guess would change every answer.

    Args:
        reader: collects what is wrong.
        is_v3: the architecture is DeepSeek-V3's, else DeepSeek-V2's.
    """
    num_experts = reader.optional_integer("n_routed_experts", low=0) or 0
    if num_experts == 0:
        return _NO_MOE
    methods = ("noaux_tc",) if is_v3 else ("greedy", "group_limited_greedy")
    fields = {
        "moe_intermediate_size": reader.integer("moe_intermediate_size"),
        "n_routed_experts": num_experts,
        "n_shared_experts": reader.optional_integer("n_shared_experts", low=0) or 0,
        "num_experts_per_tok": reader.integer("num_experts_per_tok", high=num_experts),
        "n_group": reader.integer("n_group", default=None if is_v3 else 1),
        "topk_group": reader.integer("topk_group", default=None if is_v3 else 1),
        "first_k_dense_replace": reader.integer(
            "first_k_dense_replace", default=None if is_v3 else 0, low=0
        ),
        "moe_layer_freq": reader.integer("moe_layer_freq", default=1),
        "scoring_func": "sigmoid" if is_v3 else "softmax",
        "topk_method": reader.choice("topk_method", methods, default=methods[0]),
        "norm_topk_prob": reader.boolean("norm_topk_prob", default=is_v3),
        "routed_scaling_factor": reader.number(
            "routed_scaling_factor", default=None if is_v3 else 1.0
        ),
    }
    if reader.sound("n_routed_experts", "n_group", "topk_group"):
        _check_groups(reader, fields)
    return fields


def _check_groups(reader: ConfigReader, fields: dict[str, Any]) -> None:
    experts, groups = fields["n_routed_experts"], fields["n_group"]
    top_groups, top_k = fields["topk_group"], fields["num_experts_per_tok"]
    if experts % groups:
        reader.problem(f"n_group is {groups}; it must divide n_routed_experts = {experts}")
        return
    if top_groups > groups:
        reader.problem(f"topk_group is {top_groups}; allowed: 1 to n_group = {groups}")
        return
    size = experts // groups
    if fields["topk_method"] == "noaux_tc" and groups > 1 and size < 2:
        reader.problem(
            f"n_group is {groups}; allowed: 1 to n_routed_experts / 2 = {experts // 2}, since a "
            "group is scored by its two best experts"
        )
    if fields["topk_method"] != "greedy" and top_k > size * top_groups:
        reader.problem(
            f"num_experts_per_tok is {top_k}, but {top_groups} groups of {size} experts hold "
            f"{size * top_groups}"
        )
