"""Rows that are no samples are left out from the first batch on, or put right."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from python_tests.support.capture_networks import seeded
from python_tests.support.row_networks import (
    AlwaysRandom,
    AtLeast,
    BatchAttention,
    Experts,
    Remembering,
    Siamese,
    TimeFirst,
    Windows,
)
from python_tests.support.wrapped_layers import GCN, Adapted
from python_tests.support.written_out import minibatch_cka
from repsim_fast.comparison.compare import compare
from repsim_fast.comparison.result import SimilarityResult


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def batches(x: Tensor) -> list[Tensor]:
    """Data that stay in the order of the definition."""
    return list(x.split(16))


def silent(*args: object, **options: object) -> SimilarityResult:
    """A comparison in which a warning is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return compare(*args, **options)  # type: ignore[call-overload, no-any-return]


def expected(x: Tensor, features: Callable[[Tensor], list[Tensor]]) -> np.ndarray:
    """CKA of features that are written out for each batch, in float64."""
    with torch.no_grad():
        return minibatch_cka([features(part.double()) for part in x.split(16)]).numpy()


class TestExperts:
    x = numbers(48, 7, 6)

    @pytest.mark.parametrize("maps", ["flatten", "pool", "mean"])
    @pytest.mark.parametrize("measure", ["cka", "procrustes_distance"])
    def test_are_left_out_with_a_reason(self, maps: str, measure: str) -> None:
        model = seeded(Experts)
        with pytest.warns(UserWarning, match=r"3 layers left out.*'experts.0' \("):
            result = compare([model], batches(self.x), maps=maps, measure=measure)
        assert result.layers == (("before", "router", "after"),)
        bare = silent(
            [model], batches(self.x), layers=["before", "router", "after"], maps=maps,
            measure=measure,
        )  # fmt: skip
        np.testing.assert_array_equal(result.value, bare.value)

    def test_with_as_many_tokens_as_there_are_samples_in_every_batch(self) -> None:
        """Seven tokens and seven experts, each of which takes its share."""
        model = seeded(lambda: Experts(count=7, expert_choice=True))
        with pytest.warns(UserWarning, match="left out|only counted") as caught:
            result = compare([model], batches(self.x))
        counted, left_out = (str(warning.message) for warning in caught)
        assert "7 layers left out" in left_out
        assert "'experts.0' (equal samples give different rows)" in left_out
        assert "1 layers: 'after'" in counted  # for which the samples compete
        assert result.layers == (("before", "router", "after"),)

    def test_with_as_many_tokens_as_there_are_samples_by_chance(self) -> None:
        model = seeded(Experts)
        counts: list[int] = []
        handle = model.experts[0].register_forward_hook(lambda m, a, out: counts.append(len(out)))
        with torch.no_grad():
            for seed in range(200):
                x = torch.randn(12, 3, 6, generator=torch.Generator().manual_seed(seed))
                model(x)
                if counts[-1] == len(x):
                    break
        handle.remove()
        assert counts[-1] == len(x)
        with pytest.warns(UserWarning, match="layers left out"):
            result = compare([model], [x])
        assert "experts.0" not in result.layers[0]
        with pytest.raises(ValueError, match=r"layer 'experts.0' of model 'Experts': \d+ rows for"):
            compare([model], [x], layers=["before", "experts.0"])

    def test_the_router_has_the_tokens_of_each_sample(self) -> None:
        model = seeded(Experts)
        result = silent([model], batches(self.x), layers=["router", "after"], maps="pool")

        def features(x: Tensor) -> list[Tensor]:
            double = seeded(Experts).double()
            return [double.router(double.before(x)).mean(1), double(x)]

        np.testing.assert_allclose(result.value, expected(self.x, features), atol=1e-5)


class TestWindows:
    x = numbers(48, 3, 8, 8)

    def arranged(self, x: Tensor) -> Tensor:
        """(N, H, W, C) of the layer in windows, by another way than windows."""
        return seeded(Windows).double().map_of_inner(x)

    @pytest.mark.parametrize("maps", ["flatten", "pool"])
    def test_are_folded_back(self, maps: str) -> None:
        result = silent([seeded(Windows)], batches(self.x), maps=maps)
        assert result.layers == (("embed", "inner", "head"),)

        def features(x: Tensor) -> list[Tensor]:
            model = seeded(Windows).double()
            maps_of = model.embed(x), self.arranged(x).movedim(-1, 1)
            matrices = [m.flatten(1) if maps == "flatten" else m.mean((2, 3)) for m in maps_of]
            return [*matrices, model(x)]

        np.testing.assert_allclose(result.value, expected(self.x, features), atol=1e-5)

    def test_positions(self) -> None:
        result = silent([seeded(Windows)], batches(self.x), layers="inner", maps="positions")
        assert result.n_samples == 48 * 64

    @pytest.mark.parametrize("maps", ["flatten", "pool"])
    def test_of_a_library(self, maps: str) -> None:
        hub = pytest.importorskip("transformers", reason="transformers is not installed")
        config = hub.SwinConfig(
            image_size=32, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 2],
            window_size=4,
        )  # fmt: skip
        model = seeded(lambda: hub.SwinModel(config)).eval()
        block = model.encoder.layers[0].blocks[0]

        class OfPixels(nn.Module):
            """The projection of the same tokens, not in windows; one window after the other or
            row by row, features are the same but for their order."""

            def __init__(self) -> None:
                super().__init__()
                self.query = block.attention.q_proj

            def forward(self, x: Tensor) -> Tensor:
                tokens = block.layernorm_before(model.embeddings(x)[0])
                return self.query(tokens)

        x = numbers(32, 3, 32, 32)
        name = "encoder.layers.0.blocks.0.attention.q_proj"
        assert dict(model.named_modules())[name](torch.zeros(32, 16, 8)).shape == (32, 16, 8)
        result = silent(
            {"windows": model, "pixels": OfPixels()}, batches(x), maps=maps,
            layers={"windows": [name, "layernorm"], "pixels": "query"},
        )  # fmt: skip
        between = result.between("windows", "pixels").value
        assert between[0, 0] == pytest.approx(1, abs=1e-6)
        assert between[1, 0] < 0.99
        assert len(silent([model], batches(x), maps=maps).layers[0]) == 50


class TestViews:
    x = numbers(48, 2, 3, 6, 6)

    @pytest.mark.parametrize("maps", ["flatten", "pool"])
    def test_are_features_of_their_sample(self, maps: str) -> None:
        result = silent([seeded(Siamese)], batches(self.x), maps=maps)

        def features(x: Tensor) -> list[Tensor]:
            model = seeded(Siamese).double()
            (map_a, vector_a), (map_b, vector_b) = (model.encode(x[:, i]) for i in (0, 1))
            both = torch.cat([map_a, map_b], 1)
            matrix = both.flatten(1) if maps == "flatten" else both.mean((2, 3))
            return [matrix, torch.cat([vector_a, vector_b], 1)]

        np.testing.assert_allclose(result.value, expected(self.x, features), atol=1e-5)


class TestTimeFirst:
    @pytest.mark.parametrize("length", [5, 16])  # the latter as many as samples in a batch
    @pytest.mark.parametrize("maps", ["flatten", "pool", "last"])
    def test_equals_samples_first(self, length: int, maps: str) -> None:
        x = numbers(48, length, 8)
        models = [seeded(TimeFirst), seeded(lambda: TimeFirst(batch_first=True))]
        result = silent(models, batches(x), names=["time", "samples"], maps=maps)
        assert result.layers[0] == result.layers[1]
        one, other = result.between(0, 0).value, result.between(1, 1).value
        np.testing.assert_allclose(one, other, atol=1e-5)
        np.testing.assert_allclose(result.between(0, 1).value.diagonal(), 1, atol=1e-5)


class TestSamplesThatInteract:
    x = numbers(48, 4)

    def test_attention_among_samples(self) -> None:
        result = silent([seeded(BatchAttention)], batches(self.x))

        def features(x: Tensor) -> list[Tensor]:
            model = seeded(BatchAttention).double()
            return [model.a(x), model(x)]

        np.testing.assert_allclose(result.value, expected(self.x, features), atol=1e-5)

    def test_random_models_keep_their_layers(self) -> None:
        assert silent([seeded(AlwaysRandom)], batches(self.x)).layers == (("a", "b"),)

    def test_a_model_that_refuses_few_samples_is_counted(self) -> None:
        with pytest.warns(UserWarning, match=r"only counted.*four samples of a batch: got 4 samp"):
            result = compare({"model": AtLeast(8)}, batches(self.x))
        assert result.layers == (("fc",),)

    def test_a_model_that_fails_on_all_batches_says_so(self) -> None:
        with pytest.raises(RuntimeError, match=r"failed in batch 0 .*got 16 samples"):
            compare([AtLeast(99)], batches(self.x))


class TestLaterBatches:
    """Layers whose rows are samples in the first batch and not in a later one."""

    class Halving(nn.Module):
        def __init__(self, what: str) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(6, 3)
            self.what = what

        def forward(self, x: Tensor) -> Tensor:
            later = bool(x[0, 0] > 100)
            x = self.a(x)
            if self.what == "rows":
                self.b(x[::2] if later else x)
            if self.what == "gone" and not later:
                self.b(x)
            if self.what == "new" and later:
                self.b(x)
            return self.c(x)

    def data(self) -> list[Tensor]:
        parts = batches(numbers(48, 4))
        parts[1][0, 0] += 200
        return parts

    @pytest.mark.parametrize("measure", ["cka", "procrustes_distance"])
    @pytest.mark.parametrize(
        ("what", "why"),
        [
            ("rows", "8 rows where 16 are expected"),
            ("gone", "called in the first batch, but not in batch 1"),
            ("new", "not called in the first batch, but in batch 1"),
        ],
    )
    def test_are_left_out_from_the_first_batch_on(self, what: str, why: str, measure: str) -> None:
        model = seeded(lambda: self.Halving(what))
        with pytest.warns(UserWarning, match=rf"1 layers left out.*'b' \({why}\)"):
            result = compare([model], self.data(), measure=measure)
        assert result.layers == (("a", "c"),)
        bare = silent([model], self.data(), layers=["a", "c"], measure=measure)
        np.testing.assert_allclose(result.value, bare.value, atol=1e-12)
        np.testing.assert_allclose(result.standard_error, bare.standard_error, atol=1e-12)

    @pytest.mark.parametrize("what", ["rows", "gone", "new"])
    def test_raise_if_they_were_asked_for(self, what: str) -> None:
        model = seeded(lambda: self.Halving(what))
        with pytest.raises(ValueError, match="layer 'b' of model 'Halving': "):
            compare([model], self.data(), layers=lambda name, module: True)


class TestLayersMadeOfOthers:
    def test_what_is_left_out_is_said_once(self) -> None:
        model = seeded(lambda: nn.Sequential(Adapted(nn.Linear(4, 5)), nn.ReLU()))
        with pytest.warns(UserWarning, match="left out") as caught:
            result = compare({"m": model}, batches(numbers(48, 4)))
        (warning,) = caught
        assert "model 'm': 3 layers are left out that are parts of other" in str(warning.message)
        assert warning.filename == __file__
        assert result.layers == (("0", "1"),)

    def test_graph_convolutions_whose_samples_are_nodes(self) -> None:
        links = torch.rand(40, 40, generator=torch.Generator().manual_seed(1)) < 0.1
        adjacency = (links | links.T | torch.eye(40, dtype=torch.bool)).float()
        graph = {"x": numbers(40, 6), "adjacency": adjacency}
        with pytest.warns(UserWarning, match="left out|only counted"):
            result = compare([seeded(GCN)], [graph])
        assert result.layers == (("conv1", "conv2"),)
        model = seeded(GCN).double()
        with torch.no_grad():
            double = {name: value.double() for name, value in graph.items()}
            first = model.conv1(**double)
            truth = minibatch_cka([[first, model(**double)]]).numpy()
        np.testing.assert_allclose(result.value, truth, atol=1e-5)


class TestNoTrace:
    def test_the_small_batch_leaves_none(self) -> None:
        model = Remembering()
        compare([model], batches(numbers(48, 4)))
        assert model.passes == 3
        assert model.sizes == [16, 16, 16]

    def test_callables_are_given_what_the_layer_returned(self) -> None:
        shapes: list[tuple[int, ...]] = []

        def note(x: Tensor) -> Tensor:
            shapes.append(tuple(x.shape))
            return x.flatten(1)

        model = seeded(Windows)
        silent([model], batches(numbers(48, 3, 8, 8)), layers="inner", maps=note)
        assert set(shapes) == {(16 * 16, 4, 16)}
