"""Networks in the sizes in which they were published, from transformers, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as hf
from torch import nn

from benchmarks.architectures.language import causal, named


def efficientnet_b0() -> tuple[nn.Module, list[str]]:
    """Tan and Le 2019: 5.3 M parameters, images of 224."""
    config = hf.EfficientNetConfig(
        width_coefficient=1.0, depth_coefficient=1.0, image_size=224, hidden_dim=1280, num_labels=1000
    )
    return calibrated(hf.EfficientNetForImageClassification(config), "pixel_values", "logits", 224)


def swin_t() -> tuple[nn.Module, list[str]]:
    """Liu et al. 2021: 28 M parameters, windows of 7, images of 224."""
    config = hf.SwinConfig(
        embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7, image_size=224, num_labels=1000
    )
    return named(hf.SwinForImageClassification(config), "pixel_values", "logits")


def gpt2_124m() -> tuple[nn.Module, list[str]]:
    """Radford et al. 2019, the smallest: 12 layers of 768."""
    return causal(hf.GPT2LMHeadModel(hf.GPT2Config()))


def llama_8x1024() -> tuple[nn.Module, list[str]]:
    """8 layers of 1024, 16 heads of 64 over 4 of keys and values, a vocabulary of 32,000."""
    config = hf.LlamaConfig(
        vocab_size=32000,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=8,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=2048,
    )
    return causal(hf.LlamaForCausalLM(config))


def whisper_base_encoder() -> tuple[nn.Module, list[str]]:
    """Radford et al. 2022, base: 6 layers of 512 over 1,500 frames, half a minute of sound."""
    heads = {"encoder_attention_heads": 8, "decoder_attention_heads": 8}
    config = hf.WhisperConfig(d_model=512, encoder_layers=6, decoder_layers=1, encoder_ffn_dim=2048, **heads)
    return named(hf.WhisperModel(config).encoder, "input_features", "last_hidden_state")


def calibrated(model: Any, inputs: str, outputs: str, size: int) -> tuple[nn.Module, list[str]]:
    """`model` with weights that keep signals at their size, and statistics of batch norms made for these weights."""
    import torch

    from benchmarks.networks import randomise

    sample = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))
    randomise(model, sample, torch.initial_seed())
    return named(model, inputs, outputs)


BUILDERS: dict[str, Callable[[], tuple[nn.Module, list[str]]]] = {
    "efficientnet_b0": efficientnet_b0,
    "swin_t": swin_t,
    "gpt2_124m": gpt2_124m,
    "llama_8x1024": llama_8x1024,
    "whisper_base_encoder": whisper_base_encoder,
}
