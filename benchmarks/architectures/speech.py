"""Models of speech, from transformers."""

from __future__ import annotations

import transformers as hf
from torch import nn

from benchmarks.architectures.language import LAYERS, Decoder, named, present


def whisper(part: str) -> tuple[nn.Module, list[str]]:
    config = hf.WhisperConfig(
        vocab_size=512,
        num_mel_bins=16,
        d_model=64,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_source_positions=100,
        max_target_positions=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    model = hf.WhisperForConditionalGeneration(config)
    if part == "encoder":
        return named(model.model.encoder, "input_features", "last_hidden_state")
    return Decoder(model.model.decoder, model.proj_out), ["logits", *present()]


def wav2vec2() -> tuple[nn.Module, list[str]]:
    config = hf.Wav2Vec2Config(
        vocab_size=32,
        hidden_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=128,
        conv_dim=(32, 32, 32),
        conv_stride=(5, 2, 2),
        conv_kernel=(10, 3, 2),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    return named(hf.Wav2Vec2ForCTC(config), "input_values", "logits")


BUILDERS = {
    "whisper_encoder": lambda: whisper("encoder"),
    "whisper_decoder": lambda: whisper("decoder"),
    "wav2vec2": wav2vec2,
}
