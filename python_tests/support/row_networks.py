"""Networks whose layers have other rows than one for each sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Experts(nn.Module):
    """Routes the tokens of all samples (N, T, D) to experts, which see those given to them.

    Args:
        width: D.
        count: Number of experts.
        expert_choice: Each expert takes its share of the tokens, those with the highest scores, so
            that all experts see as many; else each token goes to one expert.
    """

    def __init__(self, width: int = 6, count: int = 3, *, expert_choice: bool = False) -> None:
        super().__init__()
        self.before = nn.Linear(width, width)
        self.router = nn.Linear(width, count)
        self.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(count))
        self.after = nn.Linear(width, width)
        self.expert_choice = expert_choice

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.before(x).flatten(0, 1)
        scores = self.router(tokens)
        out = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            if self.expert_choice:
                given = scores[:, number].topk(len(tokens) // len(self.experts)).indices
            else:
                given = (scores.argmax(1) == number).nonzero()[:, 0]
            out[given] += expert(tokens[given])
        return self.after(out.view_as(x).mean(1))


class Windows(nn.Module):
    """Splits maps into windows that are rows of their own, as Swin's attention does."""

    def __init__(self, width: int = 8, size: int = 2) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 1)
        self.inner = nn.Linear(width, 2 * width)
        self.head = nn.Linear(2 * width, 5)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        s = self.size
        x = x.view(n, h // s, s, w // s, s, c).transpose(2, 3).reshape(-1, s * s, c)
        x = self.inner(x)
        return self.head(x.view(n, -1, x.shape[-1]).mean(1))

    def map_of_inner(self, x: Tensor) -> Tensor:
        """What ``inner`` makes of each pixel, (n, h, w, c), without windows."""
        return self.inner(self.embed(x).permute(0, 2, 3, 1))


class Siamese(nn.Module):
    """Encodes two views (N, 2, C, H, W) of each sample, one after the other in one batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.conv(x)
        return maps, self.fc(maps.mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.encode(torch.cat([x[:, 0], x[:, 1]]))[1].chunk(2)
        return (first - second).abs()


class TimeFirst(nn.Module):
    """A transformer whose layers see (T, N, D), of which only some say so."""

    def __init__(self, width: int = 8, *, batch_first: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 2, 16, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 3)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:  # (N, T, D)
        x = self.encoder(x if self.batch_first else x.transpose(0, 1))
        return self.head(x.mean(1 if self.batch_first else 0))


class AlwaysRandom(nn.Module):
    """Dropout by function, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(nn.functional.dropout(self.a(x), 0.5))


class Following(nn.Module):
    """Each sample is told of the one before it, in the second layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x + 3 * x.roll(1, 0))


class BatchAttention(nn.Module):
    """Samples attend to one another."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b((x @ x.T).softmax(1) @ x)


class AtLeast(nn.Module):
    """Refuses a batch of fewer samples."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.fc, self.least = nn.Linear(4, 3), least

    def forward(self, x: Tensor) -> Tensor:
        if len(x) < self.least:
            raise RuntimeError(f"got {len(x)} samples")
        return self.fc(x)


class Remembering(nn.Module):
    """Changes itself whenever it runs: a counter, a list, a new attribute, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.passes = 0
        self.sizes: list[int] = []
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        self.sizes.append(len(x))
        self.latest = x
        self.seen += len(x)
        return self.fc(x) + torch.rand(()) * 0


class Rearranged(nn.Module):
    """A layer sees the samples in another order, after which they come back.

    Args:
        order: From the inputs (N, 4) to the numbers of the samples as the layer sees them.
    """

    def __init__(self, order: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        order = self.order(x)
        return self.c(self.b(self.a(x)[order])[order.argsort()])


class Buffers(nn.Module):
    """Experts that are given their samples in a buffer of as many rows as the batch has."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.last = nn.Linear(4, 2), nn.Linear(5, 3)
        self.one, self.other = nn.Linear(4, 5), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        choice = self.gate(x).argmax(1)
        out = x.new_zeros(len(x), 5)
        for number, layer in enumerate((self.one, self.other)):
            given = (choice == number).nonzero()[:, 0]
            buffer = torch.zeros_like(x)
            buffer[: len(given)] = x[given]
            out[given] = layer(buffer)[: len(given)]
        return self.last(out)


class Packed(nn.Module):
    """A recurrent layer sees sentences (N, T, 4) without their padding, which is zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.gru = nn.Linear(4, 4), nn.GRU(4, 5, batch_first=True)
        self.after = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        lengths = (x.abs().sum(2) > 0).sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(
            self.before(x), lengths, batch_first=True, enforce_sorted=False
        )
        return self.after(self.gru(packed)[1][0])
