"""Networks of diffusers and PyTorch Geometric, and torch's own transformer and recurrent ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.architectures.case import SAMPLES, Case, attribute, images, named, numbers

NODES = 5
"""Of each graph but the first, which has one more."""


def diffusers_cases() -> list[Case]:
    """Denoisers and autoencoders of two levels."""
    levels = {"block_out_channels": (16, 32), "norm_num_groups": 8, "layers_per_block": 1}
    text = {"cross_attention_dim": 16, "attention_head_dim": 8}
    transformer = {
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "num_layers": 2,
        "sample_size": 16,
        "patch_size": 4,
        "in_channels": 3,
    }

    def case(name: str, options: dict[str, Any], batch: Any) -> Case:
        def build() -> nn.Module:
            model: nn.Module = attribute(f"diffusers:{name}")(**options)
            return model

        return Case(name, "diffusers", build, batch)

    down, up = ("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D")
    return [
        case(
            "UNet2DModel",
            {**levels, "sample_size": 16, "down_block_types": down, "up_block_types": up},
            noisy(),
        ),
        case(
            "UNet2DConditionModel",
            {
                **levels,
                **text,
                "in_channels": 3,
                "out_channels": 3,
                "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
                "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            },
            noisy(encoder_hidden_states=(6, 16)),
        ),
        case("AutoencoderKL", {**levels, "down_block_types": ("DownEncoderBlock2D",) * 2,
                               "up_block_types": ("UpDecoderBlock2D",) * 2},
             named("sample", images(16))),
        case("VQModel", {**levels, "down_block_types": ("DownEncoderBlock2D",) * 2,
                         "up_block_types": ("UpDecoderBlock2D",) * 2},
             named("sample", images(16))),
        case("AutoencoderTiny", {"encoder_block_out_channels": (16, 16),
                                 "decoder_block_out_channels": (16, 16),
                                 "num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)},
             named("sample", images(16))),
        case("DiTTransformer2DModel", {**transformer, "norm_num_groups": 8},
             noisy(of="hidden_states", class_labels=())),
        case("PixArtTransformer2DModel",
             {**transformer, "caption_channels": 16, "cross_attention_dim": 32},
             noisy(of="hidden_states", encoder_hidden_states=(6, 16))),
        case("SD3Transformer2DModel",
             {**transformer, "caption_projection_dim": 32, "joint_attention_dim": 16,
              "pooled_projection_dim": 16, "pos_embed_max_size": 16},
             noisy(of="hidden_states", encoder_hidden_states=(6, 16), pooled_projections=(16,))),
    ]  # fmt: skip


def noisy(of: str = "sample", **more: tuple[int, ...]) -> Callable[[torch.Generator], Any]:
    """Images, each with the time that its noise is of, and what else is given with it."""

    def batch(generator: torch.Generator) -> dict[str, Tensor]:
        found = {of: images(16)(generator)}
        found["timestep"] = torch.randint(1000, (SAMPLES,), generator=generator)
        for name, shape in more.items():
            found[name] = numbers(*shape)(generator)
            if name == "class_labels":
                found[name] = torch.randint(1000, (SAMPLES,), generator=generator)
        return found

    return batch


CONVOLUTIONS = ("GCN", "GraphSAGE", "GIN", "GAT", "EdgeCNN", "PNA")


def graph_cases() -> list[Case]:
    """Message passing with the nodes of one graph as samples, and over batches of graphs."""

    def case(name: str) -> Case:
        def build() -> nn.Module:
            options: dict[str, Any] = {}
            if name == "PNA":
                degrees = torch.tensor([0, 4, 8])
                options = {"aggregators": ["mean", "max"], "scalers": ["identity"], "deg": degrees}
            model: nn.Module = attribute(f"torch_geometric.nn:{name}")(8, 16, 2, 4, **options)
            return model

        return Case(f"{name}, nodes", "torch_geometric", build, graph)

    return [
        *map(case, CONVOLUTIONS),
        Case("GCN with a pooled head, graphs", "torch_geometric", pooled, graphs, on_graphs),
        Case("GIN with a pooled head, graphs", "torch_geometric", lambda: pooled("GIN"), graphs,
             on_graphs),
        Case("SchNet, molecules", "torch_geometric", schnet, molecules, on_molecules),
    ]  # fmt: skip


def graph(generator: torch.Generator) -> dict[str, Tensor]:
    """One graph; every node has an edge."""
    n = 3 * SAMPLES
    ring = torch.stack([torch.arange(n), torch.arange(n).roll(1)])
    more = torch.randint(n, (2, n), generator=generator)
    return {
        "x": torch.randn(n, 8, generator=generator),
        "edge_index": torch.cat([ring, ring.flip(0), more], 1),
    }


class Pooled(nn.Module):
    """Our own head on a network of message passing: the mean over the nodes of each graph."""

    def __init__(self, nodes: nn.Module) -> None:
        super().__init__()
        self.nodes = nodes
        self.head = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x: Tensor, edges: Tensor, batch: Tensor) -> Tensor:
        pool = attribute("torch_geometric.nn:global_mean_pool")
        return self.head(pool(self.nodes(x, edges), batch))


def pooled(name: str = "GCN") -> nn.Module:
    return Pooled(attribute(f"torch_geometric.nn:{name}")(8, 16, 2))


def graphs(generator: torch.Generator) -> Any:
    data, batch = (attribute(f"torch_geometric.data:{name}") for name in ("Data", "Batch"))
    found = []
    for i in range(SAMPLES):
        n = NODES + (i == 0)
        ring = torch.stack([torch.arange(n), torch.arange(n).roll(1)])
        found.append(data(x=torch.randn(n, 8, generator=generator), edge_index=ring))
    return batch.from_data_list(found)


def on_graphs(model: nn.Module, batch: Any) -> Any:
    return model(batch.x, batch.edge_index, batch.batch)


def schnet() -> nn.Module:
    model: nn.Module = attribute("torch_geometric.nn:SchNet")(
        16, 16, 2, 8, interaction_graph=within_molecules
    )
    return model


def within_molecules(position: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Every atom with every other of its molecule, and how far they are apart."""
    together = (batch[:, None] == batch).fill_diagonal_(False)
    edges = together.nonzero().T
    return edges, (position[edges[0]] - position[edges[1]]).norm(dim=1)


def molecules(generator: torch.Generator) -> Any:
    data, batch = (attribute(f"torch_geometric.data:{name}") for name in ("Data", "Batch"))
    found = []
    for i in range(SAMPLES):
        n = NODES + (i == 0)
        found.append(
            data(
                z=torch.randint(1, 9, (n,), generator=generator),
                pos=torch.rand(n, 3, generator=generator) * 2,
            )
        )
    return batch.from_data_list(found)


def on_molecules(model: nn.Module, batch: Any) -> Any:
    return model(batch.z, batch.pos, batch.batch)


def torch_cases() -> list[Case]:
    """Layers of torch itself, samples first and time first."""

    def recurrent(kind: str, **options: Any) -> Callable[[], nn.Module]:
        return lambda: Recurrent(getattr(nn, kind)(8, 16, num_layers=2, **options))

    layer = dict(d_model=32, nhead=4, dim_feedforward=48)
    return [
        Case("nn.LSTM", "torch", recurrent("LSTM", batch_first=True), numbers(7, 8)),
        Case("nn.LSTM, bidirectional", "torch",
             recurrent("LSTM", batch_first=True, bidirectional=True), numbers(7, 8)),
        Case("nn.GRU, time first", "torch", recurrent("GRU"), numbers(7, 8)),
        Case("nn.TransformerEncoder", "torch",
             lambda: nn.TransformerEncoder(
                 nn.TransformerEncoderLayer(**layer, batch_first=True), 2), numbers(7, 32)),
        Case("nn.Transformer", "torch",
             lambda: nn.Transformer(32, 4, 2, 2, 48, batch_first=True), two_sequences),
    ]  # fmt: skip


class Recurrent(nn.Module):
    """Our own: a recurrent layer and a linear one on its last step."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.LazyLinear(4)
        self(torch.zeros(2, 7, 8))

    def forward(self, x: Tensor) -> Tensor:
        if self.layer.batch_first:
            return self.head(self.layer(x)[0][:, -1])
        return self.head(self.layer(x.transpose(0, 1))[0][-1])


def two_sequences(generator: torch.Generator) -> dict[str, Tensor]:
    return {"src": numbers(7, 32)(generator), "tgt": numbers(5, 32)(generator)}
