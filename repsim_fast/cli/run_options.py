"""Options of commands that run networks on images to compare what they represent, or to keep it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import IMAGES, On, parse_folder

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="Checkpoints that `repsim-fast train` wrote, pretrained:NAME for networks that come "
        "with the package, ARCHITECTURE=FILE for weights of any origin (.pt, .pth, .ckpt, "
        ".safetensors; FILE#KEY where several fit), torchvision:NAME@DEFAULT, "
        "timm:NAME@pretrained or hf:NAME-OR-FOLDER for published ones. ARCHITECTURE is a name "
        "such as wrn-28-10 or torchvision:resnet18, or FILE.py:NAME for code of yours; alone it "
        "is an untrained network; recordings that `repsim-fast "
        "record` wrote; folders of checkpoints or recordings, and patterns such as 'runs/*', "
        "also behind ARCHITECTURE=.",
    ),
    On.RESULTS,
]
Results = Annotated[
    Path,
    typer.Option(parser=parse_folder, metavar="DIR", help="Folder for the results."),
    On.RESULTS,
]
_INPUTS = typer.Option(
    "--data",
    metavar="SPEC",
    show_default=False,
    help=f"{IMAGES} Or FILE.npz or FILE.safetensors with arrays by the names of the network's "
    "arguments, such as input_ids and attention_mask.",
)
InputsSpec = Annotated[str, _INPUTS]
MaybeInputs = Annotated[str | None, _INPUTS, On.RESULTS]  # where there may be recordings alone
Mask = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Array of --data that says which tokens are real; of some layers PATTERN=NAME, or "
        "PATTERN= where all tokens are real; may be given several times (default: that of what "
        "the layers work on, attention_mask or decoder_attention_mask, if there).",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(min=4, metavar="N", help="Use only N images, drawn at random."),
    On.DATA,
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Layers to compare, by name or pattern such as 'stage*.relu2'; may be given "
        "several times; of transformers by role: 'hidden_states.*', 'attention.3', 'mlp.3' "
        "(default: all convolutions, norms, activations, poolings, linear layers and blocks).",
    ),
]
MapsForm = Annotated[
    str,
    typer.Option(
        metavar="FORM",
        help="What becomes of maps and tokens: 'flatten', 'pool' (mean over positions), "
        "'positions' (each of them a sample); of transformers 'tokens' (each of them a sample), "
        "'mean' (over tokens), 'cls' (the first token), 'last'.",
    ),
]
ChannelsPlace = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE",
        help="Where layers have their channels, 'first' or 'last', where that is not found from "
        "the layers themselves; 'flatten' does not ask.",
    ),
]
Calls = Annotated[
    str,
    typer.Option(
        metavar="WHICH",
        help="Of a layer that is called several times in a pass, 'all' calls or the 'first'.",
    ),
]
Shuffle = Annotated[
    bool,
    typer.Option(
        help="Read images in random order, by the seed, or in the order of the data, which makes "
        "layers look less or more alike where that follows classes."
    ),
    On.DATA,
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=4,
        metavar="N",
        help="Images at a time (default: ten even batches, of 8 to 128 images).",
        show_default=False,
    ),
    On.DATA,
]
Passes = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Times through the images, in a new order each time; of cka only.",
    ),
    On.DATA,
]
Attack = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Show each model its own adversarial images: pgd, apgd, autoattack, fgsm, jpeg, snow, "
        "rotation, ... (a wrong name lists all), or the images corrupted, such as "
        "corruption:fog@5, severities 1 to 5 (default: images as they are).",
    ),
]
AttackSteps = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Steps of the attack (default: its own, 10 of pgd)."),
]
ProductPrecision = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE",
        help="Precision of cka's products: 'bfloat16', or 'tf32' on a GPU (default: float32).",
    ),
    On.RESULTS,
]


def masks(named: list[str] | None) -> str | dict[str, str | None] | None:
    """What ``--mask`` names, as ``mask`` of ``compare``."""
    if not named:
        return None
    pairs = [text.rpartition("=") for text in named]
    of_all = [name for pattern, _, name in pairs if not pattern]
    if len(of_all) > 1 or (of_all and len(pairs) > 1):
        raise typer.BadParameter(
            f"expected one NAME, or PATTERN=NAME of some layers, got {', '.join(named)}",
            param_hint="--mask",
        )
    return of_all[0] if of_all else {pattern: name or None for pattern, _, name in pairs}
