"""Models of the Hugging Face hub, or of a folder in its layout, `hf:NAME-OR-FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from .external import Preprocessing, package


def load_huggingface(name: str) -> tuple[nn.Module, Preprocessing, str]:
    """A model of the class that its configuration names, with its weights.

    Code of a repository is never run (``trust_remote_code`` stays off). A folder is read without
    any look at the hub.

    Args:
        name: A repository of the hub, such as "google/vit-base-patch16-224", or a folder that
            ``save_pretrained`` wrote.

    Returns:
        The model, how its images are prepared (nothing for other inputs), and a word on the
        weights.

    Raises:
        ImportError: transformers is missing or does not fit this torch.
        OSError: there is no such repository or folder, or it cannot be fetched.
        ValueError: a model that transformers does not know.
    """
    transformers: Any = package("transformers", of="transformers")
    local = Path(name).expanduser()
    where = str(local) if local.is_dir() else name
    options = {"local_files_only": local.is_dir()}
    try:
        config = transformers.AutoConfig.from_pretrained(where, **options)
    except OSError as error:
        if local.is_dir():
            raise
        raise OSError(
            f"hf:{name}: there is no such folder, and from the hub: {str(error).splitlines()[0]}"
        ) from error
    named = getattr(config, "architectures", None) or [""]
    kind = getattr(transformers, named[0], transformers.AutoModel)
    model: nn.Module = kind.from_pretrained(where, **options)
    prepared = Preprocessing()
    if getattr(model, "main_input_name", "") == "pixel_values":
        prepared = _of_images(transformers, where, options)
    return model, prepared, f"{type(model).__name__} of {where}"


def _of_images(transformers: Any, where: str, options: dict[str, Any]) -> Preprocessing:
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(where, **options)
    except OSError:  # it has no configuration of one
        return Preprocessing()
    sizes = getattr(processor, "size", None) or {}
    if getattr(processor, "do_center_crop", False):
        sizes = getattr(processor, "crop_size", None) or sizes
    size = next((sizes[k] for k in ("height", "shortest_edge") if k in sizes), None)
    if not getattr(processor, "do_normalize", False):
        return Preprocessing(size=size)
    return Preprocessing(tuple(processor.image_mean), tuple(processor.image_std), size)
