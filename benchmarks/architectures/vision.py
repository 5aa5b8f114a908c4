"""Vision models: from transformers, and a denoising U-Net in plain torch."""

from __future__ import annotations

import math
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.architectures.language import LAYERS, named

TRANSFORMER = {
    "hidden_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}


def statistics(model: nn.Module) -> nn.Module:
    """`model` with batch-norm statistics other than 0 and 1, which would hide a wrong fold."""
    for module in model.modules():
        mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
        if isinstance(mean, Tensor) and isinstance(variance, Tensor):
            nn.init.normal_(mean, std=0.1)
            nn.init.uniform_(variance, 0.5, 1.5)
    return model


def vit() -> tuple[nn.Module, list[str]]:
    config = hf.ViTConfig(**TRANSFORMER, image_size=64, patch_size=8, num_labels=10)
    return named(hf.ViTForImageClassification(config), "pixel_values", "logits", interpolate_pos_encoding=True)


def swin() -> tuple[nn.Module, list[str]]:
    config = hf.SwinConfig(
        image_size=64, patch_size=4, embed_dim=32, depths=[2, 2], num_heads=[2, 4], window_size=4, num_labels=10
    )
    return named(hf.SwinForImageClassification(config), "pixel_values", "logits")


def convnext() -> tuple[nn.Module, list[str]]:
    config = hf.ConvNextConfig(hidden_sizes=[16, 32, 64, 96], depths=[1, 1, 2, 1], num_labels=10, image_size=64)
    return named(hf.ConvNextForImageClassification(config), "pixel_values", "logits")


def segformer() -> tuple[nn.Module, list[str]]:
    config = hf.SegformerConfig(
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 3, 4],
        decoder_hidden_size=32,
        num_labels=10,
    )
    return named(statistics(hf.SegformerForSemanticSegmentation(config)), "pixel_values", "logits")


def detr() -> tuple[nn.Module, list[str]]:
    backbone = hf.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage4"],
    )
    config = hf.DetrConfig(
        backbone_config=backbone,
        backbone=None,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        num_queries=10,
        d_model=64,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        num_labels=10,
    )
    return named(statistics(hf.DetrForObjectDetection(config)), "pixel_values pixel_mask", "logits pred_boxes")


def clip() -> tuple[nn.Module, list[str]]:
    text = {**TRANSFORMER, "vocab_size": 512, "max_position_embeddings": 32, "eos_token_id": 511}
    config = hf.CLIPConfig(
        text_config=text, vision_config={**TRANSFORMER, "image_size": 32, "patch_size": 8}, projection_dim=32
    )
    return named(
        hf.CLIPModel(config), "input_ids pixel_values attention_mask", "logits_per_image text_embeds image_embeds"
    )


class Residual(nn.Module):
    """Two convolutions with group norms, the time's embedding added between them."""

    def __init__(self, cin: int, cout: int, time: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, cin), nn.GroupNorm(4, cout)
        self.conv1, self.conv2 = nn.Conv2d(cin, cout, 3, padding=1), nn.Conv2d(cout, cout, 3, padding=1)
        self.time = nn.Linear(time, cout)
        self.shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(time))[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class CrossAttention(nn.Module):
    """Every pixel attends to the tokens of a prompt; x: (batch, channels, height, width)."""

    def __init__(self, channels: int, prompt: int, heads: int = 4) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, channels)
        self.attention = nn.MultiheadAttention(channels, heads, kdim=prompt, vdim=prompt, batch_first=True)

    def forward(self, x: Tensor, prompt: Tensor) -> Tensor:
        rows = self.norm(x).flatten(2).transpose(1, 2)
        y, _ = self.attention(rows, prompt, prompt, need_weights=False)
        return x + y.transpose(1, 2).reshape(x.shape)


class UNet(nn.Module):
    """A small denoiser, as in latent diffusion: (batch, 4, height, width), (batch,) steps, (batch, tokens, 32)."""

    def __init__(self, width: int = 32, time: int = 64, prompt: int = 32) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.first, self.last = nn.Conv2d(4, width, 3, padding=1), nn.Conv2d(width, 4, 3, padding=1)
        self.down1, self.down2 = Residual(width, width, time), Residual(width, 2 * width, time)
        self.shrink = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.attend, self.middle = CrossAttention(2 * width, prompt), Residual(2 * width, 2 * width, time)
        self.up = Residual(3 * width, width, time)
        self.norm, self.width = nn.GroupNorm(4, width), width

    def forward(self, sample: Tensor, timestep: Tensor, prompt: Tensor) -> Tensor:
        half = self.width // 2
        rates = torch.exp(-math.log(10000) * torch.arange(half) / half)
        angles = timestep[:, None] * rates[None]
        time = self.time(torch.cat([angles.cos(), angles.sin()], dim=1))
        x = self.down1(self.first(sample), time)
        y = self.down2(self.shrink(x), time)
        y = self.middle(self.attend(y, prompt), time)
        y = F.interpolate(y, scale_factor=2.0, mode="nearest")
        y = self.up(torch.cat([x, y], dim=1), time)
        return self.last(F.silu(self.norm(y)))


def unet() -> tuple[Any, list[str]]:
    return UNet(), ["noise"]


BUILDERS = {
    "vit": vit,
    "swin": swin,
    "convnext": convnext,
    "segformer": segformer,
    "detr": detr,
    "clip": clip,
    "unet": unet,
}
