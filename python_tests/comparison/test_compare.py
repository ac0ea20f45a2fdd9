"""The numbers and the forms of call of ``compare``."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import inspect
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import repsim_fast
from python_tests.support.in_order import compare
from python_tests.support.written_out import features, hsic0, hsic1, in_place, minibatch_cka
from repsim_fast import build_info, list_layers, record
from repsim_fast.comparison import session
from repsim_fast.comparison.compare import Options
from repsim_fast.comparison.described import describe
from repsim_fast.comparison.result import SimilarityResult
from repsim_fast.data import ImageData
from repsim_fast.similarity import cka
from repsim_fast.similarity.streaming.gram import GramAccumulator
from repsim_fast.similarity.streaming.samples import SampleAccumulator

LAYERS = ("0", "1", "2", "3", "4", "5", "7")  # all but Flatten


def truth(  # type: ignore[no-untyped-def]
    models: list[nn.Module], batches: list[Tensor], hsic=hsic1, dtype=torch.float64
) -> np.ndarray:
    """CKA in float64 of features that models compute in ``dtype``."""
    copies = [copy.deepcopy(model).to(dtype) for model in models]
    for model in copies:
        in_place(model)
    per_batch = [[f for m in copies for f in features(m, x.to(dtype), LAYERS)] for x in batches]
    return minibatch_cka(per_batch, hsic).numpy()


class TestNumbers:
    @pytest.mark.parametrize(("estimator", "hsic"), [("unbiased", hsic1), ("biased", hsic0)])
    def test_equals_the_written_out_definition(
        self, net_a: nn.Module, net_b: nn.Module, images: Tensor, estimator: str, hsic: object
    ) -> None:
        # 40 images in batches of 16: the last one has 8
        result = compare(net_a, net_b, images, batch_size=16, estimator=estimator)
        expected = truth([net_a, net_b], list(images.split(16)), hsic)
        assert result.layers == (LAYERS, LAYERS)
        np.testing.assert_allclose(result.value, expected, atol=1e-5)
        assert (result.n_samples, result.n_batches) == (40, 3)
        assert np.isfinite(result.standard_error).all()

    def test_large_common_means(self, net_a: nn.Module, net_b: nn.Module, images: Tensor) -> None:
        for model in (net_a, net_b):
            with torch.no_grad():
                model[0].bias.fill_(30.0)
                model[1].bias.fill_(20.0)
        result = compare(net_a, net_b, images, batch_size=20)
        expected = truth([net_a, net_b], list(images.split(20)), dtype=torch.float32)
        np.testing.assert_allclose(result.value, expected, atol=1e-6)

    def test_in_place_relu_differs_from_its_batch_norm(
        self, net_a: nn.Module, images: Tensor
    ) -> None:
        grid = compare([net_a], images).between(0, 0)
        assert grid.value[grid.rows.index("1"), grid.columns.index("2")] < 0.99

    def test_channels_last_changes_nothing(
        self, net_a: nn.Module, net_b: nn.Module, images: Tensor
    ) -> None:
        plain = compare(net_a, net_b, images)
        last = compare(
            net_a,
            net_b.to(memory_format=torch.channels_last),
            images.contiguous(memory_format=torch.channels_last),
        )
        np.testing.assert_allclose(plain.value, last.value, atol=1e-5)

    def test_float64_models_are_compared_in_float64(self, net_a: nn.Module, images: Tensor) -> None:
        model = net_a.double()
        result = compare([model], images.double(), batch_size=20)
        expected = truth([model], list(images.double().split(20)))
        np.testing.assert_allclose(result.value, expected, atol=1e-12)

    def test_several_passes_average_over_several_orders(
        self, net_a: nn.Module, images: Tensor
    ) -> None:
        result = compare([net_a], images, batch_size=10, passes=3, seed=4)
        again = compare([net_a], images, batch_size=10, passes=3, seed=4)
        other = compare([net_a], images, batch_size=10, passes=3, seed=5)
        assert (result.n_samples, result.n_batches) == (120, 12)
        np.testing.assert_array_equal(result.value, again.value)
        assert np.abs(result.value - other.value).max() > 1e-6
        one = compare([net_a], images, batch_size=40)
        assert np.abs(result.value - one.value).max() < 0.2

    def test_pooled_maps(self, net_a: nn.Module, images: Tensor) -> None:
        result = compare([net_a], images, layers=["0", "7"], maps="pool")
        double = copy.deepcopy(net_a).double()
        in_place(double)
        with torch.no_grad():
            x, y = double[0](images.double()).mean((2, 3)), double(images.double())
        np.testing.assert_allclose(result.value, minibatch_cka([[x, y]]).numpy(), atol=1e-5)

    def test_positions_as_samples(self, net_a: nn.Module, images: Tensor) -> None:
        few = images[:4]
        result = compare([net_a], few, layers=["0", "1"], maps="positions")
        assert result.n_samples == 4 * 64
        double = copy.deepcopy(net_a).double()
        with torch.no_grad():
            x = double[0](few.double())
            pair = [f.movedim(1, -1).flatten(0, -2) for f in (x, double[1](x))]
        np.testing.assert_allclose(result.value, minibatch_cka([pair]).numpy(), atol=1e-5)

    def test_memory_of_a_batch_is_kept_for_the_next(
        self, net_a: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept: list[str] = []

        @contextlib.contextmanager
        def keeping(device: torch.device) -> Iterator[None]:
            kept.append(device.type)
            yield
            kept.append("given back")

        monkeypatch.setattr(session, "kept_memory", keeping)
        result = compare(net_a, net_a, images)
        assert kept == [torch.device(result.settings["device"]).type, "given back"]

    def test_bfloat16_products_are_close(
        self, net_a: nn.Module, net_b: nn.Module, images: Tensor
    ) -> None:
        fine = compare(net_a, net_b, images)
        rough = compare(net_a, net_b, images, precision="bfloat16")
        assert np.abs(fine.value - rough.value).max() < 1e-3
        asked = [result.settings["precision"] for result in (fine, rough)]
        assert asked == ["float32", "bfloat16"]
        assert fine.settings["products"] == "float32"
        # What is said to be float32 has its bits, and nothing else does.
        said = rough.settings["products"]
        assert (said == "float32") == np.array_equal(fine.value, rough.value)
        if torch.device(rough.settings["device"]).type == "cpu":
            narrow = {"amx": "bfloat16", "avx512_vnni": "int16"}
            assert said == narrow.get(build_info()["simd_level"], "float32")

    def test_products_of_several_dtypes(self, images: Tensor) -> None:
        class Mixed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.narrow, self.wide = nn.Flatten(), nn.Flatten()

            def forward(self, x: Tensor) -> Tensor:
                return self.wide(self.narrow(x).double())

        result = compare([Mixed()], images, layers=["narrow", "wide"])
        assert result.settings["products"] == "float32, float64"
        assert compare([Mixed()], images, layers=["wide"]).settings["products"] == "float64"
        other = compare([Mixed()], images, layers=["wide"], measure="procrustes_distance")
        assert "products" not in other.settings

    def test_autocast(self, net_a: nn.Module, net_b: nn.Module, images: Tensor) -> None:
        fine = compare(net_a, net_b, images)
        mixed = compare(net_a, net_b, images, autocast=torch.bfloat16)
        assert 0 < np.abs(fine.value - mixed.value).max() < 0.05
        assert mixed.settings["autocast"] == "bfloat16"

    def test_autocast_around_the_call(
        self, net_a: nn.Module, images: Tensor, tmp_path: Path
    ) -> None:
        mixed = compare([net_a], images, autocast=torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            around = compare([net_a], images)
            recording = record(net_a, images, tmp_path / "a", batch_size=128, shuffle=False)
        assert around.settings["autocast"] == recording.settings["autocast"] == "bfloat16"
        np.testing.assert_array_equal(around.value, mixed.value)
        np.testing.assert_array_equal(repsim_fast.compare([recording]).value, mixed.value)


@pytest.mark.filterwarnings("ignore:cca. p = ")  # few samples, of which not much is asked
def test_memory_goes_with_the_comparison(net_a: nn.Module, images: Tensor) -> None:
    # Grams, or features of all samples, should not wait for the collector of cycles.
    def accumulators() -> list[object]:
        return [o for o in gc.get_objects() if type(o) in (GramAccumulator, SampleAccumulator)]

    gc.collect()
    gc.disable()
    before = len(accumulators())  # tracebacks of other tests may hold some
    try:
        for measure in ("cka", "cca"):
            compare([net_a], images, measure=measure, maps="pool")
            assert len(accumulators()) == before
        with pytest.raises(ValueError, match="NaN"):
            compare([net_a], images * torch.nan)
        assert len(accumulators()) == before
    finally:
        gc.enable()


class TestData:
    """Every form of data gives the same numbers."""

    @pytest.fixture
    def expected(self, net_a: nn.Module, images: Tensor) -> SimilarityResult:
        return compare([net_a], images, batch_size=16)

    def test_forms(
        self, net_a: nn.Module, images: Tensor, labels: Tensor, expected: SimilarityResult
    ) -> None:
        dataset = TensorDataset(images, labels)
        for data in (
            (images, labels),
            (images, None),
            dataset,
            DataLoader(dataset, 16),
            list(images.split(16)),
            [(x,) for x in images.split(16)],
            zip(images.split(16), labels.split(16), strict=True),
            (x for x in images.split(16)),
            [{"input": x} for x in images.split(16)],
        ):
            result = compare([net_a], data, batch_size=16)
            np.testing.assert_array_equal(result.value, expected.value)

    def test_image_data(self, net_a: nn.Module, labels: Tensor) -> None:
        bytes_ = torch.randint(
            0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        data = ImageData(bytes_, labels, tuple("abcde"), name="noise", split="test")
        result = compare([net_a], data, batch_size=16)
        np.testing.assert_array_equal(
            result.value, compare([net_a], data.tensors(), batch_size=16).value
        )
        assert result.settings["data"] == "noise test, 40 samples"
        assert compare([net_a], data, batch_size=16, passes=2).n_batches == 6

    def test_shuffled_datasets_and_loaders(
        self, net_a: nn.Module, images: Tensor, labels: Tensor
    ) -> None:
        dataset = TensorDataset(images, labels)
        assert compare([net_a], dataset, batch_size=20, passes=2).n_batches == 4
        generator = torch.Generator().manual_seed(0)
        loader = DataLoader(dataset, 20, shuffle=True, generator=generator)
        assert compare([net_a], loader, passes=2).n_batches == 4

    def test_iterable_dataset(
        self, net_a: nn.Module, images: Tensor, expected: SimilarityResult
    ) -> None:
        class Stream(IterableDataset):  # type: ignore[type-arg]
            def __iter__(self):  # type: ignore[no-untyped-def]
                return iter(images.split(16))

        # A loader of it has a __len__, which raises.
        result = compare([net_a], DataLoader(Stream(), batch_size=None))
        np.testing.assert_array_equal(result.value, expected.value)

    def test_the_global_random_state_is_not_touched(
        self, net_a: nn.Module, images: Tensor, labels: Tensor
    ) -> None:
        before = torch.random.get_rng_state()
        compare([net_a], TensorDataset(images, labels), passes=2)
        compare([net_a], (images, labels), passes=2)
        assert torch.equal(before, torch.random.get_rng_state())


class Counting(nn.Module):
    """Counts its forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.fc(x)


class TestForwards:
    x = torch.rand(12, 4, generator=torch.Generator().manual_seed(0))

    def test_each_model_once_a_batch(self) -> None:
        models = [Counting() for _ in range(3)]
        compare(models, self.x, batch_size=4)
        assert [m.passes for m in models] == [3, 3, 3]

    def test_the_same_model_is_run_once(self) -> None:
        model = Counting()
        result = compare(model, model, self.x, batch_size=4)
        assert model.passes == 3
        assert result.models == ("Counting 1", "Counting 2")
        np.testing.assert_allclose(result.between(0, 1).value, [[1.0]])

    def test_the_same_model_on_other_inputs_is_run_again(self) -> None:
        model = Counting()
        result = compare(model, model, self.x, inputs=[None, lambda x, y: x.cos()])
        assert model.passes == 2
        assert result.between(0, 1).value[0, 0] < 0.999


class TestInputs:
    def test_one_for_each_model(self, net_a: nn.Module, images: Tensor) -> None:
        def flip(x: Tensor, y: object) -> Tensor:
            return x.flip(3)

        flipped = compare(net_a, net_a, images, inputs=[None, flip])
        apart = compare([net_a], images.flip(3))
        np.testing.assert_allclose(
            flipped.between(1, 1).value, apart.between(0, 0).value, atol=1e-6
        )
        assert flipped.settings["inputs"] == {"Sequential 2": describe(flip)}

    def test_by_name(self, net_a: nn.Module, net_b: nn.Module, images: Tensor) -> None:
        seen = []

        def note(x: Tensor, y: Tensor | None) -> Tensor:
            seen.append(y)
            return x

        compare({"a": net_a, "b": net_b}, images, inputs={"b": note})
        assert seen == [None]
        with pytest.raises(ValueError, match="inputs: no model is named 'c'"):
            compare({"a": net_a, "b": net_b}, images, inputs={"c": note})

    def test_a_shared_callable_is_called_once_a_batch(
        self, net_a: nn.Module, net_b: nn.Module, images: Tensor, labels: Tensor
    ) -> None:
        calls = []

        def noise(x: Tensor, y: Tensor) -> Tensor:
            calls.append(y)
            return x

        compare(net_a, net_b, (images, labels), inputs=noise, batch_size=20)
        assert len(calls) == 2
        assert torch.equal(torch.cat(calls), labels)

    def test_working_in_place_does_not_reach_the_other_model(
        self, net_a: nn.Module, images: Tensor
    ) -> None:
        before = images.clone()
        result = compare(
            net_a,
            net_a,
            images,
            inputs=[
                lambda x, y: x.zero_().add_(torch.linspace(0, 1, len(x)).view(-1, 1, 1, 1)),
                None,
            ],
        )
        assert torch.equal(images, before)
        np.testing.assert_allclose(
            result.between(1, 1).value, compare([net_a], images).value, atol=1e-6
        )

    @pytest.mark.parametrize("outer", [torch.no_grad, torch.inference_mode])
    def test_an_attack_has_gradients_and_leaves_none(
        self, net_a: nn.Module, images: Tensor, labels: Tensor, outer: type
    ) -> None:
        def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            assert not any(m.training for m in model.modules())
            x.requires_grad_(True)
            nn.functional.cross_entropy(model(x), y).backward()  # careless: also fills .grad
            return x + 0.1 * x.grad.sign()

        kept = torch.ones_like(net_a[0].weight)
        net_a[0].weight.grad = kept
        transform = functools.partial(attack, net_a)
        with outer():
            result = compare(net_a, net_a, (images, labels), inputs=[None, transform])
        assert net_a[0].weight.grad is kept
        assert torch.equal(kept, torch.ones_like(kept))
        assert net_a[7].weight.grad is None
        assert result.settings["inputs"] == {"Sequential 2": describe(transform)}
        assert result.n_samples == 40

    def test_must_keep_the_samples(self, net_a: nn.Module, images: Tensor) -> None:
        models = {"a": net_a, "b": net_a}
        with pytest.raises(ValueError, match=r"model 'b' must keep the 40 samples .* got 39"):
            compare(models, images, inputs={"b": lambda x, y: x[1:]})


class TestLayers:
    def test_for_all_models(self, net_a: nn.Module, net_b: nn.Module, images: Tensor) -> None:
        result = compare(net_a, net_b, images, layers=["0", "7"])
        assert result.layers == (("0", "7"), ("0", "7"))

    def test_for_each_model(self, net_a: nn.Module, net_b: nn.Module, images: Tensor) -> None:
        result = compare(net_a, net_b, images, layers=[["0"], None], names=["a", "b"])
        assert result.layers == (("0",), LAYERS)
        named = compare({"a": net_a, "b": net_b}, images, layers={"a": "0"})
        assert named.layers == result.layers

    def test_predicate(self, net_a: nn.Module, images: Tensor) -> None:
        result = compare([net_a], images, layers=lambda name, m: isinstance(m, nn.ReLU))
        assert result.layers == (("2", "5"),)

    def test_nothing_matched_names_the_model_and_shows_layers(
        self, net_a: nn.Module, net_b: nn.Module, images: Tensor
    ) -> None:
        with pytest.raises(ValueError, match=r"(?s)model 'b'.*'conv'.*Conv2d"):
            compare({"a": net_a, "b": net_b}, images, layers={"b": ["conv"]})

    def test_shared_layers(self, images: Tensor) -> None:
        relu = nn.ReLU(inplace=True)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu).eval()
        assert compare([model], images).layers == (("0", "1", "2", "1#2"),)
        assert compare([model], images, calls="first").layers == (("0", "1", "2"),)
        assert compare([model], images, layers=["1#2", "0"]).layers == (("0", "1#2"),)


class TestNames:
    def test_default(self, net_a: nn.Module, net_b: nn.Module, images: Tensor) -> None:
        assert compare(net_a, net_b, images).models == ("Sequential 1", "Sequential 2")
        assert compare(net_a, Wrapped(net_b), images).models == ("Sequential", "Wrapped")

    def test_given(self, net_a: nn.Module, net_b: nn.Module, images: Tensor) -> None:
        assert compare(net_a, net_b, images, names=["x", "y"]).models == ("x", "y")
        for names in (["x"], ["x", "x"], "xy"):
            with pytest.raises(ValueError, match="names must be 2 different ones"):
                compare(net_a, net_b, images, names=names)


class Wrapped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class TestForms:
    def test_one_two_or_many_models(
        self, net_a: nn.Module, net_b: nn.Module, images: Tensor
    ) -> None:
        one = compare(net_a, images)
        two = compare(net_a, net_b, data=images)
        many = compare([net_a, net_b], images)
        assert len(one.models) == 1
        np.testing.assert_array_equal(two.value, many.value)

    def test_misuse(self, net_a: nn.Module, net_b: nn.Module, images: Tensor) -> None:
        with pytest.raises(TypeError, match="data is missing"):
            compare(net_a, net_b)
        with pytest.raises(TypeError, match="got str 'resnet', which is no folder of a record"):
            compare(net_a, "resnet", images)
        with pytest.raises(TypeError, match="models must be one module when"):
            compare([net_a], net_b, images)
        with pytest.raises(ValueError, match="models must be at least one"):
            compare([], images)
        with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
            compare(["resnet"], images)
        with pytest.raises(ValueError, match="measure: expected one of aligned_cosine, "):
            compare(net_a, net_b, images, measure="rv")
        with pytest.raises(ValueError, match="estimator: expected one of"):
            compare(net_a, net_b, images, estimator="best")
        with pytest.raises(ValueError, match="layers must be one for all models or one for each"):
            compare(net_a, net_b, images, layers=[["0"]])

    def test_wrapped_models(self, net_a: nn.Module, images: Tensor) -> None:
        plain = compare([net_a], images)
        compiled = torch.compile(net_a, backend="eager")
        compiled(images)
        for model in (compiled, nn.DataParallel(net_a)):
            wrapped = compare([model], images)
            assert wrapped.layers == plain.layers
            np.testing.assert_array_equal(wrapped.value, plain.value)

    def test_progress(
        self, net_a: nn.Module, images: Tensor, capsys: pytest.CaptureFixture[str]
    ) -> None:
        compare([net_a], images, batch_size=20)
        assert capsys.readouterr().err == ""
        compare([net_a], images, batch_size=20, progress=True)
        assert "2/2" in capsys.readouterr().err

    def test_typed_options_are_those_there_are(self) -> None:
        parameters = inspect.signature(repsim_fast.compare).parameters.values()
        keywords = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
        assert Options.__annotations__.keys() == keywords


class InPlace(nn.Module):
    """Changes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x[:, :3] = 0
        return self.layer(x)


def test_a_model_that_changes_its_inputs_does_so_for_itself_alone() -> None:
    torch.manual_seed(0)
    changing, plain, x = InPlace(), nn.Sequential(nn.Linear(6, 5)), torch.randn(64, 6)
    batches = [part.clone() for part in x.split(16)]
    with torch.no_grad():
        right = float(cka(changing(x.clone()), plain(x)))
    one = compare({"a": changing, "b": plain}, x, batch_size=64)
    other = compare({"b": plain, "a": changing}, x, batch_size=64)
    for result in (one, other):
        found = result.between("a", "b").value
        np.testing.assert_allclose(found[0, 0], right, atol=1e-6)
    compare({"a": changing, "b": plain}, batches)
    assert torch.equal(torch.cat(batches), x)
    list_layers(changing, x)
    assert torch.equal(torch.cat(batches), x)
    assert float(x[:, :3].abs().min()) > 0
