"""A recording that is there is handed back, gone on with and compared as what it is alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repsim_fast import Recording, SimilarityResult, compare, compare_zoo, record
from repsim_fast.attacks import PGD

SETTINGS: dict[str, Any] = {"batch_size": 10, "seed": 3}


@pytest.fixture
def conv() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 3)


@pytest.fixture
def labels() -> Tensor:
    return torch.arange(40) % 4


def slope(conv: nn.Module, slope: float) -> nn.Module:
    """A model of the same class, name and weights whatever the slope."""
    return nn.Sequential(conv, nn.LeakyReLU(slope))


class Embedded(nn.Module):
    """Some of its tokens have other embeddings than those of the first one."""

    def __init__(self, changed: Sequence[int] = ()) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.last = nn.Embedding(5000, 8), nn.Linear(8, 6)
        with torch.no_grad():
            self.embedding.weight[[*changed]] *= -3.0

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.last(self.embedding(tokens).mean(1))
        return found


class Noisy(nn.Module):
    """Draws random numbers in each pass."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.layer, self.scale = nn.ReLU(), scale

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x + self.scale * torch.randn_like(x))
        return found


def noise(x: Tensor, y: Tensor | None, eps: float) -> Tensor:
    return x + eps * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def first(x: Tensor, k: int) -> Tensor:
    return x.flatten(1)[:, :k]


# Arguments of the first recording and of the second, and what the error names.
CHOICES = [
    ({"inputs": functools.partial(noise, eps=0.01)}, {"inputs": functools.partial(noise, eps=9.0)}),
    ({"inputs": lambda x, y: x}, {"inputs": lambda x, y: 1 - x**4}),
    ({"maps": lambda x: x.flatten(1)}, {"maps": lambda x: x.mean((2, 3))}),
    ({"maps": functools.partial(first, k=1)}, {"maps": functools.partial(first, k=4)}),
    ({"layers": lambda name, _: name == "0"}, {"layers": lambda name, _: name == "1"}),
    ({"mask": lambda x: None}, {"mask": lambda x, more=1: None}),
]


class TestFinished:
    def test_of_the_same_weights_and_another_activation(
        self, conv: nn.Module, images: Tensor, tmp_path: Path
    ) -> None:
        record(slope(conv, 0.01), images, tmp_path / "r", **SETTINGS)
        with pytest.raises(ValueError, match=r"model: .* another one.*'1' is off by [\d.e+]+ %"):
            record(slope(conv, -1.0), images, tmp_path / "r", **SETTINGS)
        # One percent is no rounding.
        with pytest.raises(ValueError, match=r"model: .* another one"):
            record(slope(conv, 0.03), images, tmp_path / "r", **SETTINGS)
        assert record(slope(conv, 0.01), images, tmp_path / "r", **SETTINGS).n_samples == 40

    def test_without_weights(self, images: Tensor, tmp_path: Path) -> None:
        record(nn.Sequential(nn.AvgPool2d(2), nn.Tanh()), images, tmp_path / "r", **SETTINGS)
        with pytest.raises(ValueError, match=r"model: .* another one"):
            record(nn.Sequential(nn.MaxPool2d(2), nn.Tanh()), images, tmp_path / "r", **SETTINGS)

    @pytest.mark.parametrize("every", [1, 2, 16])
    def test_that_changes_after_the_first_batch(self, tmp_path: Path, every: int) -> None:
        class Late(nn.Module):
            def __init__(self, after: float) -> None:
                super().__init__()
                self.layer, self.after = nn.ReLU(), after

            def forward(self, x: Tensor) -> Tensor:
                found: Tensor = self.layer(torch.where(x[:, :1] > self.after, x**3, x))
                return found

        x = torch.rand(40, 6) + torch.arange(40)[:, None] // 10
        options = {"batch_size": 10, "shuffle": False, "every": every}
        with pytest.warns(UserWarning, match="sorted"):
            compare([record(Late(1.0), x, tmp_path / "r", **options)])
        with pytest.raises(ValueError, match=r"features of batch 3"):
            record(Late(9.0), x, tmp_path / "r", **options)

    @pytest.mark.parametrize(("before", "after"), CHOICES)
    def test_of_other_functions(
        self,
        conv: nn.Module,
        images: Tensor,
        tmp_path: Path,
        before: dict[str, Any],
        after: dict[str, Any],
    ) -> None:
        model = slope(conv, 0.01)
        record(model, images, tmp_path / "r", **SETTINGS, **before)
        with pytest.raises(ValueError, match=f"{next(iter(after))}: .* has a recording with"):
            record(model, images, tmp_path / "r", **SETTINGS, **after)
        record(model, images, tmp_path / "r", **SETTINGS, **before)

    def test_of_an_embedding_some_of_whose_rows_are_others(self, tmp_path: Path) -> None:
        tokens = torch.randint(0, 5000, (40, 9), generator=torch.Generator().manual_seed(0))
        record(Embedded(), tokens, tmp_path / "r", **SETTINGS)
        with pytest.raises(ValueError, match=r"weights: .* has a recording with"):
            record(Embedded(range(1, 20)), tokens, tmp_path / "r", **SETTINGS)

    def test_with_other_labels_for_an_attack(
        self, images: Tensor, labels: Tensor, tmp_path: Path
    ) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
        attack = functools.partial(PGD(0.1, seed=0, steps=2), model)
        record(model, (images, labels), tmp_path / "r", inputs=attack, **SETTINGS)
        other = (images, labels.roll(1))
        with pytest.raises(ValueError, match=r"data: .* recording of other labels, .*from batch 0"):
            record(model, other, tmp_path / "r", inputs=attack, **SETTINGS)
        # Nothing rests on them without a transform.
        record(model, (images, labels), tmp_path / "s", **SETTINGS)
        record(model, other, tmp_path / "s", **SETTINGS)

    @pytest.mark.parametrize("every", [1, 2, 16])
    def test_of_a_model_that_draws_random_numbers(
        self, images: Tensor, tmp_path: Path, every: int
    ) -> None:
        options: dict[str, Any] = {**SETTINGS, "maps": "flatten", "every": every}
        for _ in range(2):
            record(Noisy(), images, tmp_path / "r", **options)
        with pytest.raises(ValueError, match=r"model: .* another one"):
            record(Noisy(0.5), images, tmp_path / "r", **options)

    def test_in_a_zoo(self, conv: nn.Module, images: Tensor, tmp_path: Path) -> None:
        zoo = {"one": slope(conv, 0.01), "two": nn.Sequential(nn.Flatten(), nn.Linear(192, 3))}
        compare_zoo(zoo, images, tmp_path, **SETTINGS)
        with pytest.warns(UserWarning, match="'one' failed .* another one, or of other inputs"):
            result = compare_zoo(zoo | {"one": slope(conv, -1.0)}, images, tmp_path, **SETTINGS)
        assert result.models == ("two",)


class TestCompared:
    @pytest.mark.parametrize(("one", "other"), [pair for pair in CHOICES if "maps" in pair[0]])
    def test_by_other_maps(
        self,
        conv: nn.Module,
        images: Tensor,
        tmp_path: Path,
        one: dict[str, Any],
        other: dict[str, Any],
    ) -> None:
        a, b = slope(conv, 0.01), slope(conv, -1.0)
        first = record(a, images, tmp_path / "a", **SETTINGS, **one)
        second = record(b, images, tmp_path / "b", **SETTINGS, **other)
        for refused in (
            lambda: compare([first, second]),
            lambda: compare({"a": first, "b": b}, images, **SETTINGS, **other),
            lambda: compare([first], **other),
        ):
            with pytest.raises(ValueError, match="maps: expected"):
                refused()
        third = record(b, images, tmp_path / "c", **SETTINGS, **one)
        got = compare({"a": first, "b": third})
        want = compare({"a": first, "b": b}, images, **SETTINGS, **one)
        assert (got.value == want.value).all()

    def test_attacked_with_other_labels(
        self, images: Tensor, labels: Tensor, tmp_path: Path
    ) -> None:
        torch.manual_seed(0)
        models = {n: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)) for n in "abc"}
        attack = functools.partial(PGD(0.1, seed=0, steps=2), models["a"])

        def made(name: str, y: Tensor, **options: Any) -> Recording:
            path = tmp_path / f"{name}{y[0]}{len(options)}"
            return record(models[name], (images, y), path, name=name, **SETTINGS, **options)

        one, other = made("a", labels, inputs=attack), made("b", labels.roll(1), inputs=attack)
        plain = made("c", labels.roll(1))
        with pytest.raises(ValueError, match=r"the same labels for the transform .* in batch 0"):
            compare([one, other])
        with pytest.raises(ValueError, match="the same labels for the transform"):
            compare([plain, one, other])
        assert compare([plain, one]).models == ("c", "a")
        assert compare([one, made("b", labels, inputs=attack)]).models == ("a", "b")
        live = {"a": one, "b": models["b"]}
        with pytest.raises(ValueError, match="batch 0 has other labels than the transform"):
            compare(live, (images, labels.roll(1)), inputs=attack, **SETTINGS)
        with pytest.raises(ValueError, match="batch 0 has other labels than the transform"):
            compare([one], (images, labels.roll(1)), **SETTINGS)


class TestExtended:
    @pytest.fixture
    def folders(self, conv: nn.Module, images: Tensor, tmp_path: Path) -> Callable[..., Path]:
        def made(name: str, of: float, where: str | None = None) -> Path:
            path = tmp_path / (where or name)
            record(slope(conv, of), images, path, name=name, **SETTINGS)
            return path

        return made

    def test_a_recording_that_was_replaced(
        self, folders: Callable[..., Path], tmp_path: Path
    ) -> None:
        a, b, c = folders("a", 0.01), folders("b", 0.5), folders("c", 0.2)
        result = SimilarityResult.from_recordings([a, b])
        result = SimilarityResult.load(result.save(tmp_path / "result.safetensors"))
        whole = result.extend(c)
        assert (whole.value[:4, :4] == result.value).all()
        moved = a.rename(tmp_path / "moved")
        assert (result.extend(c, recordings={"a": moved}).value == whole.value).all()
        folders("a", -1.0)
        with pytest.raises(ValueError, match=r"recordings: expected that of 'a' .* got another"):
            result.extend(c)

    def test_a_recording_of_another_than_the_model_that_was_run(
        self, conv: nn.Module, images: Tensor, folders: Callable[..., Path]
    ) -> None:
        live = compare({"a": slope(conv, 0.01), "b": slope(conv, 0.5)}, images, **SETTINGS)
        own = {"a": folders("a", 0.01), "b": folders("b", 0.5)}
        c = folders("c", 0.2)
        live.extend(c, recordings=own)
        with pytest.raises(ValueError, match=r"recordings: .* values of 'a' and 'b' are off by"):
            live.extend(c, recordings=own | {"a": folders("a", -1.0, "other")})


class TestIds:
    @pytest.fixture
    def made(self, net_a: nn.Module, images: Tensor, tmp_path: Path) -> Callable[..., Recording]:
        def made(name: str, ids: Any, x: Tensor = images) -> Recording:
            return record(net_a, x, tmp_path / name, ids=ids, **SETTINGS)

        return made

    @pytest.mark.parametrize(
        "ids",
        [
            torch.arange(40),
            torch.arange(40, dtype=torch.int16),
            np.arange(40),
            np.arange(40).astype(np.uint8),
            [np.array(i) for i in range(40)],
        ],
        ids=["int64", "int16", "numpy", "uint8", "arrays"],
    )
    def test_equal_numbers_are_the_same(self, made: Callable[..., Recording], ids: Any) -> None:
        one, other = made("a", range(40)), made("b", ids)
        assert compare([one, other]).models == ("a", "b")
        assert made("a", ids).path == one.path

    def test_texts_and_numbers_are_not(self, made: Callable[..., Recording]) -> None:
        one, other = made("a", range(40)), made("b", [*map(str, range(40))])
        with pytest.raises(ValueError, match="differ in ids 'str' and 'int'"):
            compare([one, other])

    @pytest.mark.parametrize("n", [39, 50, 70])
    def test_there_is_one_for_each_sample(
        self, net_a: nn.Module, images: Tensor, made: Callable[..., Recording], n: int
    ) -> None:
        message = f"ids: expected one for each sample, got {n} for 40 samples"
        with pytest.raises(ValueError, match=message):
            made("a", range(n))
        with pytest.raises(ValueError, match=message):
            compare([made("b", range(40)), net_a], images, ids=range(n), **SETTINGS)
