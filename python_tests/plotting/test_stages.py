"""Stages by names of layers, as libraries name them."""

from __future__ import annotations

from itertools import groupby

import pytest

from repsim_fast.plotting import names_without_containers, stages_by_name

BERT_PARTS = ("attention.self.query", "attention.output.LayerNorm", "output.LayerNorm")


def runs(*names: str) -> list[tuple[str, int]] | None:
    stages = stages_by_name(names)
    return stages and [(label, len(list(run))) for label, run in groupby(stages)]


def test_a_residual_network() -> None:
    names = ["conv1", "bn1"]
    names += [f"layer{s}.{b}.{kind}" for s in (1, 2) for b in (0, 1) for kind in ("conv", "bn")]
    assert runs(*names, "avgpool", "fc") == [("stem", 2), ("layer1", 4), ("layer2", 4), ("head", 2)]


def test_what_holds_most_layers_is_parted() -> None:
    blocks = [f"encoder.layers.{b}.{part}" for b in range(3) for part in ("ln", "mlp")]
    found = runs("conv_proj", *blocks, "encoder.ln", "head")
    assert found == [("stem", 1), ("layers.0", 2), ("layers.1", 2), ("layers.2", 2), ("head", 2)]


@pytest.mark.parametrize("names", [[], ["fc"], ["0", "1", "2"], ["a.0", "a.1", "a.2"]])
def test_names_without_stages(names: list[str]) -> None:
    assert stages_by_name(names) is None


def test_a_layer_between_stages_is_of_the_one_before() -> None:
    assert runs("a.0", "a.1", "pool", "b.0", "b.1") == [("a", 3), ("b", 2)]


def blocks(pattern: str, count: int, parts: tuple[str, ...] = BERT_PARTS) -> list[str]:
    return [f"{pattern.format(block)}.{part}" for block in range(count) for part in parts]


@pytest.mark.parametrize("count", [2, 12, 32])
@pytest.mark.parametrize(
    ("before", "pattern", "after", "shown"),
    [
        (["bert.embeddings.LayerNorm"], "bert.encoder.layer.{}", ["classifier"], "layer.{}"),
        (["embeddings.norm"], "encoder.layer.{}", ["pooler.dense"], "layer.{}"),
        (["transformer.wte"], "transformer.h.{}", ["lm_head"], "h.{}"),
        (["model.embed_tokens"], "model.layers.{}", ["model.norm", "lm_head"], "layers.{}"),
        (["patch_embed.proj"], "blocks.{}", ["norm", "head"], "blocks.{}"),
        (["conv_proj"], "encoder.layers.encoder_layer_{}", ["encoder.ln"], "layer_{}"),
    ],
)
def test_blocks_of_transformers(
    before: list[str], pattern: str, after: list[str], shown: str, count: int
) -> None:
    found = runs(*before, *blocks(pattern, count), *after)
    each = [(shown.format(block), len(BERT_PARTS)) for block in range(count)]
    assert found == [("stem", len(before)), *each, ("head", len(after))]


def test_an_encoder_of_few_layers_beside_other_stages() -> None:
    embeddings = [f"bert.embeddings.{kind}" for kind in ("word", "position", "type", "norm")]
    found = runs(*embeddings, *blocks("bert.encoder.layer.{}", 2), "bert.pooler.dense")
    assert found == [("embeddings", 4), ("layer.0", 3), ("layer.1", 3), ("head", 1)]


def test_labels_tell_an_encoder_from_a_decoder() -> None:
    both = blocks("encoder.block.{}", 2) + blocks("decoder.block.{}", 3)
    found = runs("shared", *both, "lm_head")
    assert found is not None
    assert [label for label, _ in found] == [
        "stem", "encoder.block.0", "encoder.block.1",
        "decoder.block.0", "decoder.block.1", "decoder.block.2", "head",
    ]  # fmt: skip


def test_kinds_of_blocks_that_end_alike_keep_their_names() -> None:
    names = [f"{kind}_block_{b}.{p}" for b in (0, 1) for kind in ("dense", "conv") for p in "ab"]
    found = runs(*names)
    assert found is not None
    assert [label for label, _ in found] == [
        "dense_block_0", "conv_block_0", "dense_block_1", "conv_block_1"
    ]  # fmt: skip


def test_a_long_stage_is_one_stage() -> None:
    names = [
        f"layer{s}.{b}.{p}" for s, n in ((1, 3), (2, 12), (3, 3)) for b in range(n) for p in "ab"
    ]
    assert runs(*names) == [("layer1", 6), ("layer2", 24), ("layer3", 6)]


def test_names_lose_what_holds_nearly_all_layers() -> None:
    names = [
        "bert.embeddings",
        *(f"bert.encoder.layer.{k}" for k in range(12)),
        "bert.pooler",
        "fc",
    ]
    assert names_without_containers(names) == (
        "embeddings", *(f"layer.{k}" for k in range(12)), "pooler", "fc"
    )  # fmt: skip


@pytest.mark.parametrize(
    "names",
    [
        [], ["fc"], ["features.0", "features.1", "features.2"], ["net.a", "net.b", "a"],
        ["conv1", "layer1.0.conv1", "layer2.0.conv1", "fc"],
    ],
)  # fmt: skip
def test_names_that_stay(names: list[str]) -> None:
    """A number keeps its word, and a name its container where it would be another's without."""
    assert names_without_containers(names) == tuple(names)
