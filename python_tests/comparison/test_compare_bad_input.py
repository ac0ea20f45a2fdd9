"""What ``compare`` says to unusable input, and what it leaves behind."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from python_tests.support.in_order import compare
from repsim_fast.similarity import get_measure


class Poison(nn.Module):
    """Writes a bad number into its output from the given batch on."""

    def __init__(self, value: float, batch: int) -> None:
        super().__init__()
        self.value, self.batch, self.seen = value, batch, 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        if self.seen <= self.batch:
            return x
        x = x.clone()
        x[0, 0] = self.value
        return x


def poisoned(value: float, batch: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), Poison(value, batch), nn.Linear(4, 3))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(24, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def good() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh())


class TestNotFinite:
    @pytest.mark.parametrize(
        ("value", "what"), [(math.nan, "3 NaN and 0 Inf"), (math.inf, r"\d NaN and \d Inf")]
    )
    def test_names_model_layer_and_batch(
        self, good: nn.Module, x: Tensor, value: float, what: str
    ) -> None:
        models = {"good": good, "bad": poisoned(value, batch=1)}
        message = rf"layer '2' of model 'bad' in batch 1 \(.*\): activations have {what}"
        with pytest.raises(ValueError, match=message) as caught:
            compare(models, x, batch_size=8)
        assert caught.value.partial_result.n_batches == 1

    def test_the_first_bad_layer_is_named(self, x: Tensor) -> None:
        model = nn.Sequential(Poison(math.nan, 0), *(nn.Linear(4, 4) for _ in range(3)))
        with pytest.raises(ValueError, match=r"layer '1' of .*; 2 later layers too"):
            compare([model], x)

    def test_too_large_for_float32(self, x: Tensor) -> None:
        with pytest.raises(ValueError, match="finite but too large for their Gram matrix"):
            compare([nn.Tanhshrink()], x * 1e30)

    def test_nothing_completed_nothing_partial(self, x: Tensor) -> None:
        with pytest.raises(ValueError, match="in batch 0") as caught:
            compare([poisoned(math.nan, 0)], x)
        assert not hasattr(caught.value, "partial_result")


class TestFewSamples:
    def test_short_last_batch_is_dropped(self, good: nn.Module, x: Tensor) -> None:
        with pytest.warns(UserWarning, match="dropped 1 of 2 batches, of 3 samples.*at least 4"):
            result = compare([good], x[:23], batch_size=20)
        assert (result.n_samples, result.n_batches) == (20, 1)
        assert np.isnan(result.standard_error).all()

    def test_the_biased_estimator_takes_less(self, good: nn.Module, x: Tensor) -> None:
        assert compare([good], x[:23], batch_size=20, estimator="biased").n_samples == 23

    def test_only_short_batches(self, good: nn.Module, x: Tensor) -> None:
        with pytest.raises(ValueError, match="at least 4 samples, got batches of 3"):
            compare([good], x[:3])

    def test_sizes_are_named_once(self, good: nn.Module, x: Tensor) -> None:
        with pytest.raises(ValueError, match=r"got batches of 1, 2; where these are single"):
            compare([good], [*x[:21].split(1), x[:2]])

    def test_four_are_enough(self, good: nn.Module, x: Tensor) -> None:
        assert compare([good], x[:4]).n_samples == 4

    @pytest.mark.parametrize("data", [torch.zeros(0, 4), [], iter([])])
    def test_empty(self, good: nn.Module, data: object) -> None:
        with pytest.raises(ValueError, match="data is empty"):
            compare([good], data)


class TestConstantLayers:
    @pytest.mark.parametrize("bias", [0.0, 0.3, 1000.1])
    def test_are_nan_and_named(self, x: Tensor, bias: float) -> None:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
        with torch.no_grad():
            model[1].weight.zero_()
            model[1].bias.fill_(bias)
        with pytest.warns(
            UserWarning, match=r"'1' of model 'm', '2' of model 'm': they do not vary"
        ):
            result = compare({"m": model}, x[:23], batch_size=23)
        assert result.undefined_layers == (("m", "1"), ("m", "2"))
        assert np.isnan(result.value[1]).all()
        assert result.value[0, 0] == pytest.approx(1)
        assert "nan" not in repr(result)[: repr(result).index("off-diagonal")]

    def test_many_are_not_all_listed(self, x: Tensor) -> None:
        model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(15)))
        nn.init.zeros_(model[0].weight)
        with pytest.warns(UserWarning, match=r"'9' of model '\w+' and 5 more"):
            assert len(compare([model], x).undefined_layers) == 15

    def test_tiny_but_varying_layers_are_not_constant(self, x: Tensor) -> None:
        model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
        with torch.no_grad():
            model[1].weight.mul_(1e-8)
        assert np.isfinite(compare([model], x).value).all()

    @pytest.mark.parametrize("size", [1e-8, 1e-11, 1e-16, 1e8, 1e16])
    def test_layers_whose_squares_float32_does_not_hold(self, x: Tensor, size: float) -> None:
        model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
        with torch.no_grad():
            model[1].weight.mul_(size)
        value = compare([model], x, batch_size=8).value
        expected = compare([model.double()], x.double(), batch_size=8).value
        np.testing.assert_allclose(value, expected, atol=1e-6)

    @pytest.mark.parametrize("size", [1e-20, 1e-25])
    def test_layers_whose_gram_float32_does_not_hold_have_no_value(
        self, x: Tensor, size: float
    ) -> None:
        model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
        with torch.no_grad():
            model[1].weight.mul_(size)
        with pytest.warns(UserWarning, match=r"'1' of model .* too little for their dtype"):
            value = compare([model], x).value
        assert np.isnan(value[:, 1]).all()
        assert np.isfinite(compare([model.double()], x.double()).value).all()


class Halving(nn.Module):
    """Drops every other sample inside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)[::2])


class TestSamplesThatDiffer:
    def test_layers_left_out_by_default_with_a_warning(self, good: nn.Module, x: Tensor) -> None:
        with pytest.warns(
            UserWarning, match=r"'h': 1 layers left out.*'b' \(2 rows for 4 samples\)"
        ):
            result = compare({"good": good, "h": Halving()}, x)
        assert result.layers[1] == ("a",)

    def test_layers_asked_for(self, good: nn.Module, x: Tensor) -> None:
        with pytest.raises(ValueError, match="'b' of model 'h': 2 rows for 4 samples"):
            compare({"good": good, "h": Halving()}, x, layers={"h": ["a", "b"]})

    def test_a_layer_that_returns_one_number(self, good: nn.Module, x: Tensor) -> None:
        class Mean(nn.Linear):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x).mean()

        model = nn.Sequential(nn.Linear(4, 4), Mean(4, 3))
        with pytest.warns(UserWarning, match=r"1 layers left out.*'1' \(a single number\)"):
            assert compare({"good": good, "m": model}, x).layers[1] == ("0",)
        with pytest.raises(ValueError, match=r"'1' of model 'm': a single number; .* same samples"):
            compare({"good": good, "m": model}, x, layers=["0", "1"])

    def test_a_model_with_no_such_layer(self, good: nn.Module, x: Tensor) -> None:
        half = nn.Sequential(Halving(), nn.Tanh())[1:]
        model = nn.Sequential(Every2nd(), *half)
        with pytest.raises(ValueError, match=r"no layer of model 'h'.*each sample.*'1' \(2 rows"):
            compare({"good": good, "h": model}, x)

    def test_positions_of_maps_of_different_sizes(self) -> None:
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2))
        message = r"'1' of model 'Sequential': 16 rows where 64 .*choose .* layers="
        with pytest.raises(ValueError, match=message):
            compare([model], torch.rand(4, 1, 6, 6), maps="positions")

    def test_maps_that_give_no_matrix(self, good: nn.Module, x: Tensor) -> None:
        with pytest.raises(ValueError, match=r"maps must give a matrix \(n, p\), got shape"):
            compare([good], x, maps=lambda a: a[None])

    def test_maps_that_give_no_features(self, good: nn.Module, x: Tensor) -> None:
        with pytest.raises(TypeError, match="maps must give floating-point tensors, got NoneType"):
            compare([good], x, maps=lambda activation: None)
        with pytest.raises(TypeError, match=r"got torch\.int64 for layer '0'"):
            compare([good], x, maps=Tensor.long)

    def test_layers_that_come_and_go(self, x: Tensor) -> None:
        class Moody(nn.Sequential):
            calls = 0

            def forward(self, x: Tensor) -> Tensor:
                self.calls += 1
                return self[self.calls % 2](x)

        model = Moody(nn.Linear(4, 4), nn.Linear(4, 4))
        with pytest.raises(ValueError, match=r"no layer .*'0' .not called in the first batch, but"):
            compare([model], x, batch_size=12)
        model.calls = 0
        with pytest.raises(ValueError, match="'0' of model 'Moody': not called in the first"):
            compare([model], x, layers=lambda name, module: True, batch_size=12)


class Stream(torch.utils.data.IterableDataset[Tensor]):
    """Samples without a length."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.x)


class Every2nd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[::2]


class TestArguments:
    def test_layer_that_never_runs(self, x: Tensor) -> None:
        model = nn.ModuleDict({"used": nn.Linear(4, 4), "unused": nn.Linear(4, 4)})
        model.forward = lambda x: model["used"](x)  # type: ignore[method-assign]
        assert compare([model], x).layers == (("used",),)
        with pytest.raises(ValueError, match="'unused' of model 'ModuleDict' was never called"):
            compare([model], x, layers=["used", "unused"])
        with pytest.raises(ValueError, match="'used#2' of model 'ModuleDict' was never called"):
            compare([model], x, layers=["used#1", "used#2"])

    def test_missing_gpu(self, good: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(RuntimeError, match="device='cuda' was asked for, but torch cannot use"):
            compare([good], x, device="cuda")

    def test_batch_size_and_passes(self, good: nn.Module, x: Tensor) -> None:
        for bad in (0, -1, 1.5):
            with pytest.raises(ValueError, match="batch_size must be a positive integer"):
                compare([good], x, batch_size=bad)
        with pytest.raises(ValueError, match="passes must be a positive integer"):
            compare([good], x, passes=0)

    def test_several_passes_are_of_minibatch_measures_alone(
        self, good: nn.Module, x: Tensor
    ) -> None:
        for measure in ("svcca", get_measure("svcca"), get_measure("rv_coefficient")):
            with pytest.raises(ValueError, match=r"passes: expected 1 for .*, got 2"):
                compare([good], x, measure=measure, passes=2)

    def test_passes_over_batches_in_a_fixed_order(self, good: nn.Module, x: Tensor) -> None:
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), 8)
        stream = torch.utils.data.DataLoader(Stream(x), 8)
        for data in (loader, stream, list(x.split(8))):
            with pytest.raises(ValueError, match="passes=2 needs data that can be shuffled"):
                compare([good], data, passes=2)

    def test_models(self, good: nn.Module, x: Tensor) -> None:
        for bad in (None, nn.Linear):
            with pytest.raises(TypeError, match=r"models must be a torch\.nn\.Module, or"):
                compare(bad, x)
        with pytest.raises(TypeError, match="got str 'resnet18', which is no folder of a record"):
            compare("resnet18", x)

    def test_lazy_models_that_were_never_run(self, good: nn.Module, x: Tensor) -> None:
        lazy = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.LazyLinear(2))
        with pytest.raises(ValueError, match=r"model 'lazy': '2\.weight' has no value yet: run"):
            compare({"good": good, "lazy": lazy}, x)
        norm = nn.Sequential(nn.LazyBatchNorm1d(affine=False))
        with pytest.raises(ValueError, match=r"model 'Sequential': '0\.running_mean' has no value"):
            compare([norm], x)
        lazy(x)
        assert compare([lazy], x, batch_size=8).value.shape == (3, 3)

    def test_layers_and_inputs(self, good: nn.Module, x: Tensor) -> None:
        for bad in (3.5, True):
            with pytest.raises(TypeError, match="layers must be names or patterns"):
                compare([good], x, layers=bad)
        with pytest.raises(TypeError, match=r"inputs must be one for all models, .* got 3"):
            compare([good], x, inputs=3)
        with pytest.raises(TypeError, match=r"model 'Sequential' must return .* got NoneType"):
            compare([good], x, inputs=lambda x, y: None)

    def test_autocast_seed_and_device(self, good: nn.Module, x: Tensor) -> None:
        for bad in ("bfloat16", True, torch.int8):
            with pytest.raises(ValueError, match=r"autocast: expected torch\.bfloat16, .* got"):
                compare([good], x, autocast=bad)
        with pytest.raises(TypeError, match="seed must be an integer, got NoneType"):
            compare([good], x, seed=None)
        with pytest.raises(RuntimeError, match="device='gpu' was asked for"):
            compare([good], x, device="gpu")

    def test_jackknife(self, good: nn.Module, x: Tensor) -> None:
        with pytest.raises(TypeError, match="jackknife: expected an int, got float"):
            compare([good], x, measure="procrustes_similarity", jackknife=2.5)
        with pytest.raises(ValueError, match=r"jackknife: expected at least 2 groups.* got 1"):
            compare([good], x, measure="procrustes_similarity", jackknife=1)
        with pytest.raises(ValueError, match="jackknife: expected at most the 24 samples, got 25"):
            compare([good], x, measure="procrustes_similarity", jackknife=25)

    def test_a_model_that_fails_is_named_with_its_inputs(self, good: nn.Module, x: Tensor) -> None:
        half = nn.Sequential(nn.Linear(4, 4)).half()
        message = r"model 'b' failed in batch 0 on inputs \(24, 4\) float32 with weights float16: "
        with pytest.raises(RuntimeError, match=message):
            compare([good, half], x, names=["a", "b"])

    @pytest.mark.parametrize("error", [KeyError("k"), AttributeError("k"), ValueError("k")])
    def test_a_model_that_fails_in_any_way_is_named(self, x: Tensor, error: Exception) -> None:
        class Fails(nn.Linear):
            def forward(self, x: Tensor) -> Tensor:
                raise error

        with pytest.raises(RuntimeError, match=r"model 'a' failed in batch 0 on .* float32.*k"):
            compare([nn.Sequential(nn.Tanh(), Fails(4, 2))], x, names=["a"])

    @pytest.mark.parametrize("kind", ["uint8", "float64"])
    def test_images_of_another_type_say_what_to_do(self, kind: str) -> None:
        images = torch.ones(8, 3, 4, 4, dtype=getattr(torch, kind))
        wanted = r"images\.float\(\) / 255" if kind == "uint8" else r"images\.to\(torch\.float32\)"
        with pytest.raises(RuntimeError, match=f"failed in batch 0 .*{wanted}"):
            compare([nn.Conv2d(3, 2, 3)], images)

    def test_a_layer_without_floating_point_output(self, x: Tensor) -> None:
        class Complex(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.to(torch.complex64)

        model = nn.Sequential(Complex())
        with pytest.raises(ValueError, match="returned a floating-point tensor: none was called"):
            compare([model], x, layers=lambda name, module: True)

    def test_data(self, good: nn.Module, x: Tensor) -> None:
        with pytest.raises(
            TypeError, match="got dict: a mapping has tensors or arrays of the same"
        ):
            compare([good], {"input": [1]})
        with pytest.raises(TypeError, match=r"data must be ImageData, a tensor.*got int"):
            compare([good], 3)
        with pytest.raises(TypeError, match=r"batch 0 must be x or \(x, y\).*list\(str, Tensor"):
            compare([good], [["label", x]])
        with pytest.raises(
            ValueError, match=r"a second stream of inputs or a mask.*forward=lambda"
        ):
            compare([good], [(x, x, x)])
        with pytest.raises(ValueError, match="one label for each sample"):
            compare([good], (x, torch.zeros(3)))


class TestWhatIsLeftBehind:
    """The models come back as they were, also after an exception."""

    @pytest.fixture
    def model(self) -> nn.Module:
        model = nn.Sequential(
            nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.BatchNorm1d(4), nn.ReLU()
        ).train()
        model[3].eval()  # a frozen batch norm in a model that is being trained
        model[0].bias.requires_grad_(False)
        model[0].weight.grad = torch.ones(4, 4)
        return model

    def state(self, model: nn.Module) -> tuple[object, ...]:
        return (
            [m.training for m in model.modules()],
            [(id(p), p.requires_grad, id(p.grad)) for p in model.parameters()],
            [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
            {name: value.tolist() for name, value in model.state_dict().items()},
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
        )

    def test_after_success(self, model: nn.Module, x: Tensor) -> None:
        before = self.state(model)
        compare([model], x)
        assert self.state(model) == before

    @pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
    def test_after_an_exception_in_the_data(
        self, model: nn.Module, x: Tensor, kind: type[BaseException]
    ) -> None:
        def batches():  # type: ignore[no-untyped-def]
            yield x[:8]
            yield x[8:16]
            raise kind("the disk is gone")

        before = self.state(model)
        with pytest.raises(kind, match="the disk is gone") as caught:
            compare([model], batches())
        assert self.state(model) == before
        partial = caught.value.partial_result
        np.testing.assert_array_equal(partial.value, compare([model], x[:16], batch_size=8).value)

    def test_after_an_exception_in_a_model(self, model: nn.Module, x: Tensor) -> None:
        before = self.state(model)
        with pytest.raises(ValueError, match="3 NaN"):
            compare([model, poisoned(math.nan, 0)], x)
        with pytest.raises(RuntimeError):
            compare([model], x[:, :3])
        assert self.state(model) == before

    def test_after_an_exception_in_a_transform(self, model: nn.Module, x: Tensor) -> None:
        def fail(x: Tensor, y: Tensor | None) -> Tensor:
            model(x.requires_grad_()).sum().backward()
            for parameter in model.parameters():
                parameter.requires_grad_(False)
            raise KeyError("attack")

        before = self.state(model)
        with pytest.raises(KeyError):
            compare([model], x, inputs=fail)
        assert self.state(model) == before


def test_a_batch_that_memory_does_not_hold_is_not_the_models_fault():
    def full(*_):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")

    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    model[0].register_forward_hook(full)
    with pytest.raises(RuntimeError, match=r"out of memory in batch 0 of 8 samples.*batch_size"):
        compare(model, model, torch.rand(16, 3), batch_size=8)
