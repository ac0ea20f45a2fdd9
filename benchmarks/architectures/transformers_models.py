"""Networks of Transformers from configurations of two layers and some thirty features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.architectures.case import (
    SAMPLES,
    Case,
    attribute,
    images,
    named,
    numbers,
    tokens,
)

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 60,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEADS: dict[str, Any] = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}
LAYERS_OF_TWO: dict[str, Any] = {  # encoder and decoder
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "vocab_size": 60,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "decoder_start_token_id": 1,
}
EXPERTS = {**HEADS, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
WINDOWS = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 16,
    "depths": [1, 2],
    "num_heads": [2, 4],
    "window_size": 4,
}
PATCHES: dict[str, Any] = {
    **{k: SMALL[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads")},
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
SOUND: dict[str, Any] = {
    **SMALL,
    "conv_dim": (16, 16),
    "conv_kernel": (8, 4),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "apply_spec_augment": False,
}

ENCODERS: dict[str, dict[str, Any]] = {
    "Albert": {**SMALL, "embedding_size": 16},
    "Bert": SMALL,
    "BigBird": {**SMALL, "attention_type": "original_full"},
    "Camembert": SMALL,
    "Canine": {
        **SMALL,
        "num_hash_buckets": 50,
        "downsampling_rate": 2,
        "local_transformer_stride": 4,
    },
    "ConvBert": {**SMALL, "embedding_size": 32, "conv_kernel_size": 3},
    "Data2VecText": SMALL,
    "Deberta": SMALL,
    "DebertaV2": SMALL,
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "vocab_size": 60},
    "Electra": {**SMALL, "embedding_size": 16},
    "Ernie": SMALL,
    "Esm": {**SMALL, "position_embedding_type": "rotary"},
    "Flaubert": {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "vocab_size": 60, "n_words": 60},
    "FNet": SMALL,
    "Funnel": {
        "block_sizes": [1, 1],
        "d_model": 32,
        "n_head": 4,
        "d_head": 8,
        "d_inner": 48,
        "vocab_size": 60,
    },
    "IBert": SMALL,
    "LayoutLM": SMALL,
    "Longformer": {**SMALL, "attention_window": [4, 4]},
    "MegatronBert": SMALL,
    "MobileBert": {**SMALL, "embedding_size": 16, "intra_bottleneck_size": 16},
    "ModernBert": {**SMALL, "cls_token_id": 1, "sep_token_id": 2},
    "MPNet": SMALL,
    "Nystromformer": {**SMALL, "num_landmarks": 7, "segment_means_seq_len": 7},
    "RemBert": {**SMALL, "input_embedding_size": 16},
    "Roberta": SMALL,
    "RoFormer": {**SMALL, "embedding_size": 32},
    "SqueezeBert": {**SMALL, "embedding_size": 32},
    "XLMRoberta": SMALL,
    "XLNet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "vocab_size": 60},
    "Yoso": SMALL,
}
DECODERS: dict[str, dict[str, Any]] = {
    "Bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 60},
    "CodeGen": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "vocab_size": 60},
    "Cohere": HEADS,
    "CTRL": {"n_embd": 32, "n_layer": 2, "n_head": 4, "dff": 48, "vocab_size": 60},
    "Falcon": {**SMALL, "new_decoder_architecture": False},
    "FalconMamba": {**SMALL, "state_size": 4},
    "Gemma": HEADS,
    "Gemma2": HEADS,
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 60, "n_positions": 64},
    "GPTBigCode": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 60},
    "GPTJ": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "vocab_size": 60},
    "GPTNeo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "vocab_size": 60,
    },
    "GPTNeoX": SMALL,
    "Granite": HEADS,
    "Llama": HEADS,
    "Mamba": {**SMALL, "state_size": 4},
    "Mamba2": {**SMALL, "state_size": 4, "num_heads": 8, "head_dim": 8, "n_groups": 1},
    "Mistral": HEADS,
    "Mixtral": {**HEADS, "num_local_experts": 4},
    "Mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "vocab_size": 60},
    "Olmo2": HEADS,
    "Olmoe": EXPERTS,
    "OPT": {**SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "Persimmon": SMALL,
    "Phi": SMALL,
    "Phi3": HEADS,
    "Qwen2": HEADS,
    "Qwen2Moe": {**EXPERTS, "shared_expert_intermediate_size": 24},
    "Qwen3": HEADS,
    "Rwkv": {**SMALL, "attention_hidden_size": 32},
    "StableLm": {**HEADS, "head_dim": None},
    "Starcoder2": HEADS,
    "XGLM": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48, "vocab_size": 60},
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 60}
OF_TWO: dict[str, dict[str, Any]] = {
    "Bart": LAYERS_OF_TWO,
    "BlenderbotSmall": LAYERS_OF_TWO,
    "LED": {**LAYERS_OF_TWO, "attention_window": [4, 4]},
    "LongT5": {**T5, "local_radius": 4, "decoder_start_token_id": 0},
    "Marian": LAYERS_OF_TWO,
    "MBart": LAYERS_OF_TWO,
    "MT5": T5,
    "Pegasus": LAYERS_OF_TWO,
    "ProphetNet": {
        "hidden_size": 32,
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "num_encoder_attention_heads": 4,
        "num_decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "vocab_size": 60,
        "disable_ngram_loss": True,
    },
    "T5": T5,
    "UMT5": T5,
}
OF_IMAGES: dict[str, dict[str, Any]] = {
    "Beit": PATCHES,
    "Bit": {"embedding_size": 32, "hidden_sizes": [32, 64], "depths": [1, 1], "num_groups": 8},
    "ConvNext": {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2},
    "ConvNextV2": {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2},
    "Data2VecVision": PATCHES,
    "DeiT": PATCHES,
    "Dinov2": PATCHES,
    "FocalNet": {
        "image_size": 32,
        "embed_dim": 16,
        "hidden_sizes": [16, 32],
        "depths": [1, 1],
        "focal_levels": [2, 2],
        "focal_windows": [3, 3],
    },
    "Hiera": {
        "embed_dim": 16,
        "image_size": [32, 32],
        "depths": [1, 1],
        "num_heads": [2, 4],
        "embed_dim_multiplier": 2.0,
        "num_query_pool": 1,
        "masked_unit_size": [4, 4],
        "query_stride": [2, 2],
    },
    "IJepa": PATCHES,
    "Levit": {
        "image_size": 32,
        "hidden_sizes": [16, 24, 32],
        "num_attention_heads": [2, 3, 4],
        "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
    },
    "MobileNetV2": {"image_size": 32},
    "PoolFormer": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    "Pvt": {"image_size": 32, "hidden_sizes": [8, 16, 40, 64], "depths": [1, 1, 1, 1]},
    "RegNet": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "groups_width": 8},
    "ResNet": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]},
    "Segformer": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    "Swin": WINDOWS,
    "Swinv2": WINDOWS,
    "ViT": PATCHES,
    "ViTMSN": PATCHES,
    "Yolos": {**PATCHES, "image_size": [32, 32], "num_detection_tokens": 4},
}
OF_SOUND: dict[str, dict[str, Any]] = {
    "Hubert": SOUND,
    "Wav2Vec2": SOUND,
    "WavLM": SOUND,
    "SEW": {**SOUND, "squeeze_factor": 2},
    "UniSpeech": SOUND,
}


def built(family: str, options: dict[str, Any]) -> Callable[[], nn.Module]:
    """``FamilyModel`` of ``FamilyConfig``."""

    def build() -> nn.Module:
        config = attribute(f"transformers:{family}Config")(**options)
        return attribute(f"transformers:{family}Model")(config)

    return build


def transformers_cases() -> list[Case]:
    """Of text, of images, of sound, and of two of them."""

    def case(family: str, options: dict[str, Any], batch: Any, **more: Any) -> Case:
        return Case(family, "transformers", built(family, options), batch, **more)

    return [
        *(case(family, options, tokens()) for family, options in ENCODERS.items()),
        *(case(family, options, tokens()) for family, options in DECODERS.items()),
        *(case(family, options, tokens(decoder=5)) for family, options in OF_TWO.items()),
        *(case(f, options, named("pixel_values", images(32))) for f, options in OF_IMAGES.items()),
        *(case(f, options, named("input_values", numbers(400))) for f, options in OF_SOUND.items()),
        case("Whisper", {**LAYERS_OF_TWO, "num_mel_bins": 8, "max_source_positions": 10}, spectra),
        case("AST", {**PATCHES, "max_length": 32, "num_mel_bins": 16}, spectrograms),
        case("CLIP", {"text_config": SMALL, "vision_config": PATCHES}, texts_and_images),
        case("Siglip", {"text_config": SMALL, "vision_config": PATCHES}, texts_and_images),
        case("VideoMAE", {**PATCHES, "num_frames": 4}, named("pixel_values", clips)),
        case("Timesformer", {**PATCHES, "num_frames": 4}, named("pixel_values", clips)),
    ]


def clips(generator: torch.Generator) -> Tensor:
    return torch.rand(SAMPLES, 4, 3, 32, 32, generator=generator)


def spectra(generator: torch.Generator) -> dict[str, Tensor]:
    return {
        "input_features": torch.randn(SAMPLES, 8, 20, generator=generator),
        "decoder_input_ids": torch.randint(5, 60, (SAMPLES, 5), generator=generator),
    }


def spectrograms(generator: torch.Generator) -> dict[str, Tensor]:
    return {"input_values": torch.randn(SAMPLES, 32, 16, generator=generator)}


def texts_and_images(generator: torch.Generator) -> dict[str, Tensor]:
    return {**tokens()(generator), "pixel_values": images(32)(generator)}
