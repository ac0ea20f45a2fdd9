"""What `compare` warns of stays with the result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from python_tests.comparison.parts import TWO
from repsim_fast import SimilarityResult, compare, record
from repsim_fast.similarity.streaming.samples import SampleAccumulator


class OddRows(nn.Module):
    """A layer whose rows are no samples."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        self.second(hidden[1:])
        return hidden


def sorted_batches() -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(16, 9) + k, torch.full((16,), k)) for k in range(6)]


@pytest.mark.parametrize(
    ("model", "data", "options", "words"),
    [
        (TWO, torch.randn(34, 9), {"batch_size": 16}, "dropped 1 of 3 batches, of 2 samples"),
        (TWO, sorted_batches(), {}, "data come sorted by their labels"),
        (OddRows(), torch.randn(32, 5), {}, "1 layers left out"),
        (TWO, torch.randn(40, 9), {"measure": "cca"}, "cca: p = 6 and q = 6 independent features"),
    ],
    ids=["dropped", "sorted", "left out", "few samples"],
)
def test_of_a_comparison(
    model: nn.Module, data: object, options: dict[str, object], words: str, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=words) as warned:
        result = compare([model], data, **options)
    (note,) = (note for note in result.notes if words in note)
    assert f"  note: {note}" in repr(result)
    assert [str(warning.message) for warning in warned] == list(result.notes)
    assert all(warning.filename == __file__ for warning in warned)
    loaded = SimilarityResult.load(result.save(tmp_path / "result.safetensors"))
    assert loaded.notes == result.notes


def test_of_a_partial_result() -> None:
    def broken() -> Iterator[tuple[Tensor, Tensor]]:
        yield from sorted_batches()
        raise KeyError("data")

    with pytest.raises(KeyError) as raised:
        compare([TWO], broken())
    partial: SimilarityResult = raised.value.partial_result
    assert any("sorted by their labels" in note for note in partial.notes)


def test_layers_without_a_value_are_told() -> None:
    x = torch.randn(40, 9)
    x[:, 3:] = 0.0
    with pytest.warns(UserWarning, match="undefined"):
        result = compare([TWO], x)
    assert "no value (NaN): 1 layers, 'layers.1' of 'Parts'" in repr(result)


@pytest.mark.filterwarnings("ignore:.* independent features of n = ")
@pytest.mark.parametrize(
    ("options", "error"), [({}, KeyboardInterrupt), ({"jackknife": 41}, ValueError)]
)
def test_values_outlive_errors_that_did_not_come(
    options: dict[str, int], error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(40, 9)
    whole = compare([TWO], x, measure="cca")
    if not options:

        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(SampleAccumulator, "_without", interrupted)
    with pytest.raises(error) as raised:
        compare([TWO], x, measure="cca", **options)
    partial: SimilarityResult = raised.value.partial_result
    np.testing.assert_array_equal(partial.value, whole.value)
    assert partial.no_error == partial.chance_note == "the comparison stopped before"


class Streamed(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        yield from torch.randn(48, 9, generator=torch.Generator().manual_seed(0))


def test_samples_that_each_worker_gives_are_spoken_of(tmp_path: Path) -> None:
    loader = DataLoader(Streamed(), batch_size=8, num_workers=2)
    with pytest.warns(UserWarning, match="100% of the samples come several times.*get_worker_info"):
        assert compare(TWO, loader).n_samples == 96
    recorded = record(TWO, loader, tmp_path / "twice")
    assert any("several times" in note for note in recorded.notes)
    found = compare(TWO, DataLoader(Streamed(), batch_size=8))
    assert not any("several times" in note for note in found.notes)


def test_passes_are_not_repetitions() -> None:
    found = compare(TWO, torch.randn(48, 9), passes=2, batch_size=8)
    assert not any("several times" in note for note in found.notes)
