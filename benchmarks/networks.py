"""Four well-known networks in plain torch.nn, to be exported with random weights.

They are written here so that an export needs only torch. Layer for layer they are the networks of the papers and of
torchvision and transformers; only the weights differ. Nothing here is trained.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_bn(cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution with "same" padding and its batch normalisation."""
    return [nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(cout)]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut; the stride is in the 3x3 (version 1.5)."""

    def __init__(self, cin: int, width: int, stride: int) -> None:
        super().__init__()
        cout = 4 * width
        self.body = nn.Sequential(
            *conv_bn(cin, width, 1), nn.ReLU(), *conv_bn(width, width, 3, stride), nn.ReLU(), *conv_bn(width, cout, 1)
        )
        self.shortcut = nn.Sequential(*conv_bn(cin, cout, 1, stride)) if stride > 1 or cin != cout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """ResNet-50 v1.5 (He et al. 2015, stride as in torchvision). x: (batch, 3, height, width) -> (batch, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [*conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        cin = 64
        for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for i in range(blocks):
                layers.append(Bottleneck(cin, width, stride if i == 0 else 1))
                cin = 4 * width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(cin, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), 1)
        return self.head(torch.flatten(x, 1))


class InvertedResidual(nn.Module):
    """Expand by 1x1, depthwise 3x3, project by 1x1 without activation; a shortcut where the shapes allow one."""

    def __init__(self, cin: int, cout: int, stride: int, expand: int) -> None:
        super().__init__()
        mid = cin * expand
        layers = [*conv_bn(cin, mid, 1), nn.ReLU6()] if expand != 1 else []
        layers += [*conv_bn(mid, mid, 3, stride, groups=mid), nn.ReLU6(), *conv_bn(mid, cout, 1)]
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 at width 1.0 (Sandler et al. 2018). x: (batch, 3, height, width) -> (batch, 1000)."""

    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [*conv_bn(3, 32, 3, 2), nn.ReLU6()]
        cin = 32
        for expand, cout, blocks, stride in self.STAGES:
            for i in range(blocks):
                layers.append(InvertedResidual(cin, cout, stride if i == 0 else 1, expand))
                cin = cout
        self.features = nn.Sequential(*layers, *conv_bn(cin, 1280, 1), nn.ReLU6())
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), 1)
        return self.head(torch.flatten(x, 1))


class SelfAttention(nn.Module):
    """Multi-head self-attention with three separate projections. x: (batch, seq, dim) -> the same."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def split(self, x: Tensor) -> Tensor:
        """(batch, seq, dim) -> (batch, heads, seq, dim / heads)"""
        return x.view(x.shape[0], -1, self.heads, x.shape[-1] // self.heads).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).flatten(2))


class MLP(nn.Sequential):
    """Two linear layers with an exact (erf) GELU between. (batch, seq, dim) -> the same."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class ViTBlock(nn.Module):
    """Normalise first, then attend; normalise first, then the MLP."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attention, self.mlp = SelfAttention(dim, heads), MLP(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViTSmall(nn.Module):
    """ViT-S/16 at 224x224 (Touvron et al. 2020). x: (batch, 3, 224, 224) -> (batch, 1000)."""

    def __init__(self, dim: int = 384, depth: int = 12, heads: int = 6, patch: int = 16, size: int = 224) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, patch, patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.zeros(1, (size // patch) ** 2 + 1, dim))
        self.blocks = nn.Sequential(*(ViTBlock(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class BertLayer(nn.Module):
    """Attend, add, normalise; MLP, add, normalise."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention, self.mlp = SelfAttention(dim, heads), MLP(dim, 4 * dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-12), nn.LayerNorm(dim, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x, mask))
        return self.norm2(x + self.mlp(x))


LONGEST = 512  # tokens in BERT's table of positions


class BertBase(nn.Module):
    """BERT-base (Devlin et al. 2018). Three int64 (batch, seq) -> (batch, seq, 768) and pooled (batch, 768)."""

    def __init__(self, vocab: int = 30522, dim: int = 768, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        self.words, self.types = nn.Embedding(vocab, dim), nn.Embedding(2, dim)
        self.places = nn.Embedding(LONGEST, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.layers = nn.ModuleList(BertLayer(dim, heads) for _ in range(depth))
        self.pooler = nn.Linear(dim, dim)
        self.register_buffer("indices", torch.arange(LONGEST)[None], persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        places = self.places(self.indices[:, : input_ids.shape[1]])
        x = self.norm(self.words(input_ids) + places + self.types(token_type_ids))
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, mask)
        return x, torch.tanh(self.pooler(x[:, 0]))


def randomise(model: nn.Module, sample: Tensor | None, seed: int) -> nn.Module:
    """Fill every parameter from `seed` so that signals keep their size in depth; returns `model` for inference.

    Batch-norm statistics are those of `sample` with noise on top: a network whose statistics were the default (0, 1)
    would hide a wrong fold, and would let its outputs fade to nothing.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(like: Tensor, scale: float) -> Tensor:
        return scale * torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.copy_(noise(module.weight, fan_in**-0.5))
                if module.bias is not None:
                    module.bias.copy_(noise(module.bias, 0.1))
            elif isinstance(module, nn.Embedding):
                module.weight.copy_(noise(module.weight, 1.0))
            elif isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
                module.weight.copy_(1 + noise(module.weight, 0.1))
                module.bias.copy_(noise(module.bias, 0.1))
            for parameter in module.parameters(recurse=False):
                if isinstance(module, ViTSmall):
                    parameter.copy_(noise(parameter, 1.0))
        if sample is not None:
            norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
            for norm in norms:
                norm.momentum = 1.0
            model.train()(sample)
            for norm in norms:
                norm.running_mean += noise(norm.running_mean, 0.1) * norm.running_var.sqrt()
                norm.running_var *= torch.exp(noise(norm.running_var, 0.1))
    return model.eval()
