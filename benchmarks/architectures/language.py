"""Language models, from transformers. Keys and values of the tokens before are inputs and outputs, so that one file
reads a prompt (no tokens before) and writes what follows (one token, many before).
"""

from __future__ import annotations

from typing import Any

import transformers as hf
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

LAYERS = 2
SMALL = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}


def filled(past: tuple[Tensor, ...]) -> DynamicCache:
    """A cache that holds key, value, key, value, ... of all layers."""
    cache = DynamicCache()
    for layer in range(len(past) // 2):
        cache.update(past[2 * layer], past[2 * layer + 1], layer)
    return cache


def content(cache: DynamicCache) -> tuple[Tensor, ...]:
    """Key, value, key, value, ... of all layers."""
    return tuple(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))


def present(layers: int = LAYERS, kind: str = "") -> list[str]:
    """Names of the outputs that `content` makes."""
    return [f"present_{kind}{what}_{layer}" for layer in range(layers) for what in ("key", "value")]


class CausalLM(nn.Module):
    """Logits of all tokens, and the cache with them added; inputs: ids, mask over past and present tokens, the past."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        cache = filled(past)
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=True)
        return out.logits, *content(out.past_key_values)


class Decoder(nn.Module):
    """A decoder that attends to an encoder's states: logits, and the cache of its own tokens.

    Keys and values of the encoder's states come from the states themselves, or with `cached` as inputs, after the past.
    """

    def __init__(self, decoder: Any, head: nn.Module, cached: bool = False) -> None:
        super().__init__()
        self.decoder, self.head, self.cached = decoder, head, cached

    def forward(self, input_ids: Tensor, states: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        own = past[: 2 * LAYERS] if self.cached else past
        cache = EncoderDecoderCache(filled(own), filled(past[len(own) :]))
        out = self.decoder(input_ids=input_ids, encoder_hidden_states=states, past_key_values=cache, use_cache=True)
        return self.head(out.last_hidden_state), *content(cache.self_attention_cache)


class Named(nn.Module):
    """Some outputs of a model of transformers, inputs given by position."""

    def __init__(self, model: Any, inputs: list[str], outputs: list[str], **options: Any) -> None:
        super().__init__()
        self.model, self.inputs, self.outputs, self.options = model, inputs, outputs, options

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        out = self.model(**dict(zip(self.inputs, args, strict=True)), **self.options)
        return tuple(out[name] for name in self.outputs)


def named(model: Any, inputs: str, outputs: str, **options: Any) -> tuple[nn.Module, list[str]]:
    return Named(model, inputs.split(), outputs.split(), **options), outputs.split()


def causal(model: Any) -> tuple[nn.Module, list[str]]:
    return CausalLM(model), ["logits", *present(model.config.num_hidden_layers)]


def gpt2() -> tuple[nn.Module, list[str]]:
    return causal(
        hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=512, n_embd=64, n_layer=LAYERS, n_head=4, n_positions=256))
    )


def llama() -> tuple[nn.Module, list[str]]:
    return causal(hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, num_key_value_heads=2)))


def qwen3() -> tuple[nn.Module, list[str]]:
    return causal(hf.Qwen3ForCausalLM(hf.Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=16)))


def gemma3() -> tuple[nn.Module, list[str]]:
    config = hf.Gemma3TextConfig(**SMALL, num_key_value_heads=1, head_dim=16, sliding_window=8)
    return causal(hf.Gemma3ForCausalLM(config))


def mixtral(experts: str = "batched_mm") -> tuple[nn.Module, list[str]]:
    config = hf.MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2)
    config._experts_implementation = experts
    return causal(hf.MixtralForCausalLM(config))


def deepseek_v3() -> tuple[nn.Module, list[str]]:
    config = hf.DeepseekV3Config(
        **SMALL,
        num_key_value_heads=4,
        moe_intermediate_size=32,
        n_routed_experts=8,
        n_shared_experts=1,
        n_group=4,
        topk_group=2,
        num_experts_per_tok=2,
        kv_lora_rank=16,
        q_lora_rank=24,
        qk_rope_head_dim=8,
        qk_nope_head_dim=16,
        v_head_dim=16,
        first_k_dense_replace=1,
    )
    config._experts_implementation = "batched_mm"
    model = hf.DeepseekV3ForCausalLM(config)
    for module in model.modules():
        if hasattr(module, "e_score_correction_bias"):
            nn.init.normal_(module.weight)  # the router's is zero, which would leave every choice a tie
            nn.init.normal_(module.e_score_correction_bias)
    return causal(model)


def mamba() -> tuple[nn.Module, list[str]]:
    config = hf.MambaConfig(vocab_size=512, hidden_size=32, state_size=8, num_hidden_layers=LAYERS, use_mambapy=True)
    return named(hf.MambaForCausalLM(config), "input_ids", "logits", use_cache=False)


def bert() -> tuple[nn.Module, list[str]]:
    return named(
        hf.BertModel(hf.BertConfig(**SMALL)),
        "input_ids attention_mask token_type_ids",
        "last_hidden_state pooler_output",
    )


def modernbert() -> tuple[nn.Module, list[str]]:
    config = hf.ModernBertConfig(**SMALL, local_attention=8, pad_token_id=0, cls_token_id=1, sep_token_id=2)
    return named(hf.ModernBertModel(config), "input_ids attention_mask", "last_hidden_state")


def deberta() -> tuple[nn.Module, list[str]]:
    config = hf.DebertaV2Config(
        **SMALL,
        relative_attention=True,
        position_buckets=16,
        pos_att_type=["p2c", "c2p"],
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
    )
    return named(hf.DebertaV2Model(config), "input_ids attention_mask", "last_hidden_state")


def t5(part: str) -> tuple[nn.Module, list[str]]:
    model = hf.T5ForConditionalGeneration(
        hf.T5Config(vocab_size=512, d_model=64, d_kv=16, d_ff=128, num_layers=LAYERS, num_heads=4)
    )
    if part == "encoder":
        return named(model.encoder, "input_ids attention_mask", "last_hidden_state")
    return Decoder(model.decoder, model.lm_head), ["logits", *present()]


BUILDERS = {
    "gpt2": gpt2,
    "llama": llama,
    "qwen3": qwen3,
    "gemma3": gemma3,
    "mixtral": mixtral,
    "deepseek_v3": deepseek_v3,
    "mamba": mamba,
    "bert": bert,
    "modernbert": modernbert,
    "deberta": deberta,
    "t5_encoder": lambda: t5("encoder"),
    "t5_decoder": lambda: t5("decoder"),
}
