"""Networks of torchvision and timm, as they are built by name, on images as small as they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.architectures.case import SAMPLES, Case, attribute, images

# Name: side of an image. Of each family the smallest.
CLASSIFIERS = {
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "googlenet": 32,
    "inception_v3": 75,
    "maxvit_t": 224,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_x_400mf": 32,
    "regnet_y_400mf": 32,
    "resnet18": 32,
    "resnet50": 32,
    "resnext50_32x4d": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32,
    "swin_t": 32,
    "swin_v2_t": 32,
    "vgg11_bn": 32,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
}
SEGMENTERS = ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")
DETECTORS: dict[str, dict[str, Any]] = {
    name: {"weights_backbone": None, "num_classes": 4, "min_size": 64, "max_size": 64}
    for name in ("retinanet_resnet50_fpn", "fcos_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_fpn")
}
CLIPS = ("r3d_18", "mc3_18", "r2plus1d_18")

TIMM = {
    "resnet10t": 32,
    "resnetv2_50": 32,
    "seresnet18": 32,
    "ecaresnet26t": 32,
    "res2net50_26w_4s": 32,
    "resnest14d": 32,
    "darknet17": 32,
    "cspresnet50": 32,
    "repvgg_a0": 32,
    "ghostnet_050": 32,
    "tf_efficientnetv2_b0": 32,
    "mobilenetv4_conv_small": 32,
    "hardcorenas_a": 32,
    "lcnet_035": 32,
    "fbnetc_100": 32,
    "tinynet_e": 32,
    "mobileone_s0": 32,
    "fastvit_t8": 64,
    "edgenext_xx_small": 64,
    "convnextv2_atto": 32,
    "poolformer_s12": 32,
    "nfnet_l0": 32,
    "vovnet39a": 32,
    "dla34": 32,
    "hrnet_w18_small": 64,
    "mobilevit_xxs": 64,
}
OF_ONE_SIZE = {  # networks that are told the size of the images
    "vit_tiny_patch16_224": 32,
    "deit_tiny_distilled_patch16_224": 32,
    "mixer_s32_224": 64,
    "resmlp_12_224": 32,
    "gmlp_ti16_224": 32,
    "xcit_nano_12_p16_224": 32,
    "beit_base_patch16_224": 32,
    "eva02_tiny_patch14_224": 28,
    "cait_xxs24_224": 32,
    "convit_tiny": 32,
    "pit_ti_224": 64,
}
NARROWER: dict[str, dict[str, Any]] = {"beit_base_patch16_224": {"embed_dim": 96, "num_heads": 3}}


def torchvision_cases() -> list[Case]:
    """Classifiers, segmenters, detectors and networks of clips."""
    return [
        *(of(name, images(side), **OPTIONS.get(name, {})) for name, side in CLASSIFIERS.items()),
        Case("vit_b_16 of width 48", "torchvision", vision_transformer, images(32)),
        Case("MaxVit of two stages", "torchvision", multi_axis, images(32)),
        *(of(name, images(32), "segmentation.", weights_backbone=None) for name in SEGMENTERS),
        *(of(name, listed, "detection.", **options) for name, options in DETECTORS.items()),
        *(of(name, images(32, 3, 4), "video.") for name in CLIPS),
        of("raft_small", two_frames, "optical_flow.", forward=on_two_frames),
    ]


def of(
    name: str,
    batch: Callable[[torch.Generator], Any],
    where: str = "",
    forward: Callable[[nn.Module, Any], Any] | None = None,
    **options: Any,
) -> Case:
    """A network of torchvision without weights."""

    def build() -> nn.Module:
        return attribute("torchvision.models:get_model")(name, weights=None, **options)

    return Case(where + name, "torchvision", build, batch, forward)


def vision_transformer() -> nn.Module:
    return attribute("torchvision.models:VisionTransformer")(32, 8, 3, 4, 48, 96)


def multi_axis() -> nn.Module:
    sizes = {"block_channels": [16, 32], "block_layers": [1, 1], "partition_size": 2}
    return attribute("torchvision.models:MaxVit")(
        (32, 32), stem_channels=16, head_dim=8, stochastic_depth_prob=0.0, **sizes
    )


def listed(generator: torch.Generator) -> list[Tensor]:
    """A batch of a detector, a list of images."""
    return list(torch.rand(SAMPLES, 3, 64, 64, generator=generator))


def two_frames(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    first, second = torch.rand(2, SAMPLES, 3, 128, 128, generator=generator)
    return first, second


def on_two_frames(model: nn.Module, frames: Any) -> Any:
    return model(*frames, num_flow_updates=2)


def timm_cases() -> list[Case]:
    """Convolutional networks, transformers and what is between."""

    def case(name: str, side: int, **options: Any) -> Case:
        def build() -> nn.Module:
            return attribute("timm:create_model")(name, num_classes=10, **options)

        return Case(name, "timm", build, images(side))

    sized = {
        name: {"img_size": side, **NARROWER.get(name, {})} for name, side in OF_ONE_SIZE.items()
    }
    return [
        *(case(name, side) for name, side in TIMM.items()),
        *(case(name, OF_ONE_SIZE[name], **options) for name, options in sized.items()),
    ]
