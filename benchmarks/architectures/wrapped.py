"""Networks as tools hand them back: compiled, in parallel, quantised, adapted, reparametrised."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from benchmarks.architectures.case import Case, attribute, images, numbers, tokens
from benchmarks.architectures.transformers_models import DECODERS, ENCODERS, OF_IMAGES, built


def resnet() -> nn.Module:
    model: nn.Module = attribute("torchvision.models:resnet18")()
    return model


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 10)
    )


def bert() -> nn.Module:
    return built("Bert", ENCODERS["Bert"])()


def wrapped_cases() -> list[Case]:
    """Each a wrapper of torch, torchvision, peft or accelerate around one of the networks above."""

    def of_resnet(name: str, wrap: Callable[[nn.Module], nn.Module]) -> Case:
        return Case(f"resnet18, {name}", "torchvision", lambda: wrap(resnet()), images(32))

    def of_bert(name: str, wrap: Callable[[nn.Module], nn.Module], package: str) -> Case:
        return Case(f"Bert, {name}", package, lambda: wrap(bert()), tokens())

    return [
        of_resnet("torch.compile", compiled),
        of_resnet("compiled in place", compiled_in_place),
        of_resnet("nn.DataParallel", nn.DataParallel),
        of_resnet("AveragedModel", attribute("torch.optim.swa_utils:AveragedModel")),
        of_resnet("torch.fx", traced),
        of_resnet("feature extractor", extractor),
        of_resnet("channels last", lambda m: m.to(memory_format=torch.channels_last)),
        of_resnet("weight norm", on_convolutions(parametrizations.weight_norm)),
        of_resnet("spectral norm", on_convolutions(parametrizations.spectral_norm)),
        of_resnet("orthogonal", on_convolutions(parametrizations.orthogonal, nn.Linear)),
        of_resnet("pruned", on_convolutions(pruned)),
        Case("resnet18, bfloat16", "torchvision", lambda: resnet().bfloat16(), halves),
        Case("perceptron, float64", "torch", lambda: perceptron().double(), doubles),
        Case("perceptron, weight norm of old", "torch", old_weight_norm, numbers(20)),
        Case("perceptron, dynamically quantised", "torch", quantised, numbers(20)),
        Case("perceptron, checkpointed", "torch", lambda: Checkpointed(perceptron()), numbers(20)),
        Case("perceptron, frozen deep copy", "torch", frozen, numbers(20)),
        of_bert("dynamically quantised", dynamically, "transformers"),
        of_bert("torch.compile", compiled, "transformers"),
        of_bert("gradient checkpointing", checkpointed, "transformers"),
        of_bert("LoRA", adapted("LoraConfig", r=2, target_modules=["query", "value"]), "peft"),
        of_bert("DoRA", adapted("LoraConfig", r=2, target_modules=["query"], use_dora=True),
                "peft"),
        of_bert("IA3", adapted("IA3Config", target_modules=["key", "output.dense"],
                               feedforward_modules=["output.dense"]), "peft"),
        of_bert("offloaded", offloaded, "accelerate"),
        Case("Llama, LoRA", "peft",
             lambda: adapted("LoraConfig", r=2, target_modules=["q_proj", "down_proj"])(
                 built("Llama", DECODERS["Llama"])()), tokens()),
        Case("ViT, dynamically quantised", "transformers",
             lambda: dynamically(built("ViT", OF_IMAGES["ViT"])()), images(32)),
    ]  # fmt: skip


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model)  # type: ignore[return-value]


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile()
    return model


def traced(model: nn.Module) -> nn.Module:
    return torch.fx.symbolic_trace(model)


def extractor(model: nn.Module) -> nn.Module:
    create = attribute("torchvision.models.feature_extraction:create_feature_extractor")
    found: nn.Module = create(model, ["layer1", "layer3"])
    return found


def on_convolutions(
    change: Callable[[nn.Module], object], kind: type[nn.Module] = nn.Conv2d
) -> Callable[[nn.Module], nn.Module]:
    """The change made to every layer of a kind."""

    def wrap(model: nn.Module) -> nn.Module:
        for layer in [m for m in model.modules() if isinstance(m, kind)]:
            change(layer)
        return model

    return wrap


def pruned(layer: nn.Module) -> None:
    prune.l1_unstructured(layer, "weight", amount=0.5)


def halves(generator: torch.Generator) -> Tensor:
    return images(32)(generator).bfloat16()


def doubles(generator: torch.Generator) -> Tensor:
    return numbers(20)(generator).double()


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return on_convolutions(nn.utils.weight_norm, nn.Linear)(perceptron())


def quantised() -> nn.Module:
    return dynamically(perceptron())


def dynamically(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it moves to a package of its own
        found: nn.Module = attribute("torch.ao.quantization:quantize_dynamic")(model, {nn.Linear})
    return found


class Checkpointed(nn.Module):
    """Our own: layers that are run again in the backward pass."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.layers, x, use_reentrant=False)


def frozen() -> nn.Module:
    return copy.deepcopy(perceptron()).requires_grad_(False)


def checkpointed(model: nn.Module) -> nn.Module:
    model.gradient_checkpointing_enable()  # type: ignore[operator]
    return model


def adapted(config: str, **options: object) -> Callable[[nn.Module], nn.Module]:
    """A network with adapters of peft."""

    def wrap(model: nn.Module) -> nn.Module:
        chosen = attribute(f"peft:{config}")(**options)
        found: nn.Module = attribute("peft:get_peft_model")(model, chosen)
        return found

    return wrap


def offloaded(model: nn.Module) -> nn.Module:
    found: nn.Module = attribute("accelerate:cpu_offload")(model, execution_device="cpu")
    return found
