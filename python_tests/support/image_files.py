"""Small image files for the tests."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(value: int, height: int = 6, width: int = 6, mode: str = "RGB") -> Image.Image:
    """A picture whose top left pixel is 255 minus `value`, all others `value`."""
    pixels = np.full((height, width), value, np.uint8)
    pixels[0, 0] = 255 - value
    return Image.fromarray(pixels).convert(mode)


def encode(image: Image.Image, file_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format)
    return buffer.getvalue()


def write_parquet(
    file: Path,
    images: list[bytes | None],
    labels: list[int | None],
    *,
    names: list[str] | None = None,
    image_column: str = "image",
    label_column: str = "label",
    row_group_size: int = 3,
) -> Path:
    rows = [None if data is None else {"bytes": data, "path": "x.png"} for data in images]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image_column: pa.array(rows, struct), label_column: pa.array(labels)})
    if names is not None:
        features = {label_column: {"names": names, "_type": "ClassLabel"}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, file, row_group_size=row_group_size)
    return file
