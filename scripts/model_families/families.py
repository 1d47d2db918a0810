"""The families: small random models in which every feature of the family matters."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rl_lightning.policy.config import EMBEDDED

WORDS = len(AutoTokenizer.from_pretrained(EMBEDDED["tiny"]))
"""Number of token ids that the tokenizer has words for."""

SPARE = 20
"""Further ids of a model's vocabulary, which no text has."""

WINDOW = 12
"""Sliding windows, in tokens: sequences are longer."""

LAYERS = 4
ALTERNATING = ["sliding_attention", "full_attention"] * (LAYERS // 2)

SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "pad_token_id": 616,
    "eos_token_id": 617,
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
DEEPSEEK = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 32,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
GRANITE = {
    "embedding_multiplier": 2.0,
    "logits_scaling": 1.3,
    "residual_multiplier": 0.7,
    "attention_multiplier": 0.3,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def rope(**settings: Any) -> dict[str, Any]:
    """Rotary settings that differ from the default ones."""
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0} | settings}


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        model_type: transformers' name.
        settings: what differs from `SHAPE` in the config; None removes a setting.
        embedding: standard deviation of the embedding. A tied one that the model scales up must be smaller, or each token would
            predict itself.
        text_only: false where the settings of the language model are a part of the config.
    """

    model_type: str
    settings: dict[str, Any] = field(default_factory=dict)
    embedding: float = 0.3
    text_only: bool = True

    def config(self, spare: int = SPARE) -> Any:
        """The config of the small model, with so many ids that the tokenizer has no words for."""
        shape = SHAPE | {"vocab_size": WORDS + spare}
        if self.text_only:
            merged = shape | self.settings
            without = ("bos_token_id", "sliding_window")
            return AutoConfig.for_model(
                self.model_type, **{k: v for k, v in merged.items() if v is not None or k in without}
            )
        text = shape | self.settings["text_config"]
        return AutoConfig.for_model(self.model_type, **self.settings | {"text_config": text})


LLAMA3 = rope(
    rope_type="llama3",
    factor=4.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
GEMMA = {
    "sliding_window": WINDOW,
    "layer_types": ALTERNATING,
    "query_pre_attn_scalar": 24,
    "tie_word_embeddings": True,
}

LISTED = {
    "Qwen2.5": Family("qwen2", {"tie_word_embeddings": True}),
    "R1 distill (Qwen)": Family("qwen2", {"tie_word_embeddings": False}),
    "Qwen3": Family("qwen3"),
    "Qwen3-MoE": Family("qwen3_moe", MOE),
    "Llama 3": Family("llama", LLAMA3),
    "SmolLM2": Family("llama", {"tie_word_embeddings": True}),
    "Falcon3": Family("llama", rope(rope_theta=1000042.0)),
    "SmolLM3": Family("smollm3", {"no_rope_layers": [1, 1, 0, 1], "head_dim": None}),
    "Mistral": Family("mistral", {"sliding_window": WINDOW}),
    "Mistral, whole context": Family("mistral", {"sliding_window": None}),
    "Ministral": Family("ministral", {"sliding_window": WINDOW, "layer_types": ALTERNATING}),
    "Ministral 3": Family(
        "ministral3",
        rope(
            rope_type="yarn",
            factor=4.0,
            original_max_position_embeddings=32,
            llama_4_scaling_beta=0.1,
            beta_fast=32.0,
            beta_slow=1.0,
            mscale=1.0,
            mscale_all_dim=1.0,
        ),
    ),
    "Phi-3": Family("phi3", {"sliding_window": None}),
    "Phi-4-mini": Family("phi3", rope(partial_rotary_factor=0.75) | {"tie_word_embeddings": True}),
    "OLMo 2": Family("olmo2"),
    "OLMo 3": Family("olmo3", {"sliding_window": WINDOW, "layer_types": ALTERNATING}),
    "GLM-4": Family("glm4", rope(partial_rotary_factor=0.5)),
    "Granite 3": Family("granite", GRANITE),
    "Granite 4 dense": Family(
        "granitemoehybrid",
        GRANITE
        | {
            "layer_types": ["attention"] * LAYERS,
            "shared_intermediate_size": 96,
            "num_local_experts": 0,
            "num_experts_per_tok": 0,
            "position_embedding_type": "rope",
        },
    ),
    "Gemma 2": Family(
        "gemma2", GEMMA | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 4.0}, embedding=0.04
    ),
    "Gemma 3": Family("gemma3_text", GEMMA, embedding=0.04),
    "Gemma 3 multimodal": Family(
        "gemma3",
        {
            "text_config": GEMMA | {"tie_word_embeddings": True},
            "vision_config": VISION,
            "mm_tokens_per_image": 4,
            "boi_token_index": WORDS + 1,
            "eoi_token_index": WORDS + 2,
            "image_token_index": WORDS + 3,
        },
        embedding=0.04,
        text_only=False,
    ),
    "Mixtral": Family("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "OLMoE": Family("olmoe", {"num_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 32}),
    "GPT-OSS": Family(
        "gpt_oss",
        {
            "sliding_window": WINDOW,
            "layer_types": ALTERNATING,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "intermediate_size": 32,
        }
        | rope(
            rope_type="yarn",
            factor=4.0,
            beta_fast=32.0,
            beta_slow=1.0,
            truncate=False,
            original_max_position_embeddings=32,
        ),
    ),
    "Cohere": Family("cohere", {"logit_scale": 0.8, "use_qk_norm": True}),
    "Cohere 2": Family("cohere2", {"logit_scale": 0.8, "sliding_window": WINDOW, "layer_types": ALTERNATING}),
}

_OTHERS: dict[str, dict[str, Any]] = {
    "qwen2, attention_dropout 0.1": {"attention_dropout": 0.1},
    "qwen2_moe": MOE | {"shared_expert_intermediate_size": 32},
    "gemma": {},
    "starcoder2": {"sliding_window": WINDOW},
    "internlm3": {},
    "olmo": {"clip_qkv": 1.0},
    "gpt2": {"num_key_value_heads": None, "n_embd": 64, "n_layer": LAYERS, "n_head": 4, "n_positions": 128},
    "gpt_neox": rope(partial_rotary_factor=0.5) | {"num_key_value_heads": None},
    "stablelm": rope(partial_rotary_factor=0.5) | {"use_qkv_bias": True},
    "phi": rope(partial_rotary_factor=0.5),
    "phimoe": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None, "lm_head_bias": True},
    "opt": {"num_key_value_heads": None, "ffn_dim": 96, "word_embed_proj_dim": 64},
    "bloom": {"num_key_value_heads": None, "n_layer": LAYERS, "n_head": 4},
    "falcon": {"head_dim": None, "new_decoder_architecture": False, "multi_query": True, "alibi": False},
    "mamba": {"state_size": 8, "expand": 2},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2, "block_multiple_of": 16},
    "qwen3_next": MOE
    | {
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "shared_expert_intermediate_size": 32,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
    },
    "deepseek_v3": DEEPSEEK
    | {
        "num_key_value_heads": 4,
        "head_dim": None,
        "q_lora_rank": 32,
        "kv_lora_rank": 32,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
    },
    "glm": rope(partial_rotary_factor=0.5),
    "glm4_moe": DEEPSEEK | rope(partial_rotary_factor=0.5) | {"use_qk_norm": True},
    "seed_oss": {},
    "exaone4": {"sliding_window": WINDOW, "layer_types": ALTERNATING},
    "helium": {},
    "arcee": {},
    "apertus": {},
    "nemotron": rope(partial_rotary_factor=0.5),
    "llama4_text": {
        "intermediate_size_mlp": 96,
        "num_local_experts": 4,
        "attention_chunk_size": 16,
        "no_rope_layers": [1, 1, 0, 1],
    },
    "persimmon": rope(partial_rotary_factor=0.5) | {"num_key_value_heads": None},
    "hunyuan_v1_dense": {},
    "ernie4_5": {},
}
UNLISTED = {
    name: Family(name.partition(",")[0], settings, embedding=0.04 if name == "gemma" else 0.3)
    for name, settings in _OTHERS.items()
}

FAMILIES = LISTED | UNLISTED


def write_model(family: Family, directory: Path, spare: int = SPARE) -> None:
    """Write a small random model of a family, with the embedded tokenizer.

    Args:
        family: the family.
        directory: must not exist.
        spare: ids of the vocabulary that the tokenizer has no words for.
    """
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(family.config(spare), dtype=torch.float32)
    make_matter(model, family.embedding)
    shutil.copytree(EMBEDDED["tiny"], directory, ignore=shutil.ignore_patterns("*.safetensors", "*config.json"))
    shutil.copy(EMBEDDED["tiny"] / "tokenizer_config.json", directory)
    model.save_pretrained(directory)


@torch.no_grad()
def make_matter(model: torch.nn.Module, embedding: float) -> None:
    """Scale the weights so that logits have a spread of a few nats, and disturb what starts at zero or one."""
    embeddings = {id(each.weight) for each in model.modules() if isinstance(each, torch.nn.Embedding)}
    for name, parameter in model.named_parameters():
        noise = torch.randn_like(parameter)
        if id(parameter) in embeddings or name.endswith("lm_head.weight"):
            parameter.copy_(embedding * noise)
        elif parameter.dim() >= 2 and not name.endswith("A_log"):
            parameter.copy_(noise / parameter.shape[-1] ** 0.5)
        else:
            parameter.add_(noise * (1.0 if "sink" in name else 0.2))
            if name.endswith(("model.norm.weight", "language_model.norm.weight")):
                parameter.add_(0.3 / embedding - 1)  # the last norm makes up for a small embedding
    for name, buffer in model.named_buffers():
        if name.endswith("bias") and buffer.is_floating_point():
            buffer.add_(0.2 * torch.randn_like(buffer))
