"""Transformers of different families compared by the roles of their layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import repsim_fast
from python_tests.support.sentences import Encoder, padded, sentences
from repsim_fast import compare
from repsim_fast.capture import Maps
from repsim_fast.comparison.record import record

TOKENS = padded(sentences(48), 11)
ROLES = [
    "hidden_states.0", "attention.1", "mlp.1", "hidden_states.1",
    "attention.2", "mlp.2", "hidden_states.2",
]  # fmt: skip


class Other(nn.Module):
    """Another family: time first, a norm before, other names."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(30, 24)
        self.h = nn.Sequential(
            *(nn.TransformerEncoderLayer(24, 2, 32, norm_first=True) for _ in range(2))
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.h(self.wte(input_ids).transpose(0, 1))


def models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"a": Encoder(), "b": Other()}


@pytest.mark.parametrize("maps", ["mean", "cls", "last", "tokens"])
def test_are_paired_and_are_what_modules_return(maps: Maps) -> None:
    both = models()
    grid = compare(both, TOKENS, maps=maps, layers=["hidden_states.*", "attention.*", "mlp.*"])[
        "a", "b"
    ]
    assert list(grid.rows) == list(grid.columns) == ROLES
    modules = {
        "a": ["layers.?", "*.self_attn", "*.linear2"],
        "b": ["h.?", "*.self_attn", "*.linear2"],
    }
    by_module = compare(both, TOKENS, maps=maps, layers=modules)["a", "b"]
    assert list(by_module.rows)[:3] == ["layers.0.self_attn", "layers.0.linear2", "layers.0"]
    np.testing.assert_allclose(grid.value[1:, 1:], by_module.value, atol=1e-6)
    name, mean = grid.figures()[0][:2]
    assert name == "mean same layer"
    assert mean == pytest.approx(np.mean([grid[role, role].value for role in ROLES]))


def test_the_first_is_the_embeddings() -> None:
    layers = {"a": "hidden_states.0", "b": ["wte", "hidden_states.0"]}
    result = compare(models(), TOKENS, maps="mean", layers=layers)
    assert result["b", "b"]["wte", "hidden_states.0"].value == pytest.approx(1, abs=1e-6)


def test_padding_does_not_count() -> None:
    with pytest.raises(ValueError, match=r"would count padding.* layer 'hidden_states.0' returns"):
        compare(models(), TOKENS, layers="hidden_states.*")
    encoder = models()["a"]
    short, longer = (
        compare([encoder], x, maps="mean", layers="mlp.*", shuffle=False).value
        for x in (TOKENS, padded(sentences(48), 24))
    )
    np.testing.assert_allclose(short, longer, atol=1e-6)


def test_recordings_and_saved_results(tmp_path: Path) -> None:
    both = models()
    how = {"maps": "mean", "layers": "hidden_states.*"}
    whole = compare(both, TOKENS, **how)
    recorded = {name: record(m, TOKENS, tmp_path / name, **how) for name, m in both.items()}
    assert recorded["a"].layers == tuple(ROLES[::3])
    np.testing.assert_array_equal(compare(recorded).value, whole.value)
    whole.save(tmp_path / "result.npz")
    again = repsim_fast.load(tmp_path / "result.npz")
    assert again["a", "b"].rows == tuple(ROLES[::3])
    assert again["a", "b"]["hidden_states.1", 1] == whole["a", "b"][1, "hidden_states.1"]


def test_a_choice_of_channels_is_given_the_module() -> None:
    given: dict[str, str] = {}

    def channels(name: str, module: nn.Module, x: Tensor) -> None:
        given[name] = type(module).__name__

    compare(
        [Encoder()], TOKENS, maps="mean", layers=["mlp.1", "hidden_states.0"], channels=channels
    )
    assert given == {"mlp.1": "Linear", "hidden_states.0": "TransformerEncoderLayer"}


def test_a_model_without_is_named() -> None:
    with pytest.raises(ValueError, match=r"model 'cnn'.*'mlp.1' matched no layer. It has no roles"):
        compare({"a": Encoder(), "cnn": nn.Linear(2, 2)}, TOKENS, layers="mlp.1")
