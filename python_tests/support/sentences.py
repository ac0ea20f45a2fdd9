"""Sentences of different lengths, padded, and small transformers that take them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

VOCABULARY = 30
PADDING = 0


def sentences(count: int, *, shortest: int = 3, longest: int = 11, seed: int = 0) -> list[Tensor]:
    """Numbers of tokens, none of them padding."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(1, VOCABULARY, (n,), generator=generator) for n in lengths]


def padded(texts: Sequence[Tensor], length: int, side: str = "right") -> dict[str, Tensor]:
    """A batch as a tokenizer gives it."""
    rows = []
    for text in texts:
        padding = torch.full((length - len(text),), PADDING)
        rows.append(torch.cat([text, padding] if side == "right" else [padding, text]))
    ids = torch.stack(rows)
    return {"input_ids": ids, "attention_mask": (ids != PADDING).long()}


class Encoder(nn.Module):
    """Embedding, positions counted among real tokens, two transformer layers, a last norm."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Embedding(64, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True) for _ in range(2)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        real = attention_mask.bool()
        places = (real.cumsum(1) - 1).clamp(min=0)
        x = self.embedding(input_ids) + self.positions(places)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~real)
        x = self.norm(x)
        return self.head((x * real[..., None]).sum(1) / real.sum(1, keepdim=True))


class OfIds(nn.Module):
    """The same of token numbers alone, which tell what is padding."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.encoder(input_ids, (input_ids != PADDING).long())
