"""Recordings stand for their models: the same numbers, or an error that says what differs."""

from __future__ import annotations

import contextlib
import errno
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from python_tests.support.forked import run_python
from repsim_fast import Recording, SimilarityResult, compare, record
from repsim_fast._core.tensor_files import read_tensors, write_tensors
from repsim_fast.comparison import recording_files
from repsim_fast.comparison.recording_files import INDEX, part_path
from repsim_fast.similarity import get_measure

SETTINGS: dict[str, Any] = {"batch_size": 10, "seed": 3}
ARRAYS = ("value", "standard_error", "chance", "hsic", "left_out")
TEXTS = (
    "models", "layers", "measure", "estimator", "n_samples", "n_batches", "group_samples",
    "no_error", "undefined", "chance_note", "notes", "order_digest", "sample_digests",
)  # fmt: skip


def same(one: SimilarityResult, other: SimilarityResult) -> None:
    """To the last bit, and in all that is said of it."""
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    for name in TEXTS:
        assert getattr(one, name) == getattr(other, name), name
    for name in one.settings.keys() - {"recordings"}:
        assert one.settings[name] == other.settings[name], name


class Counted(nn.Module):
    """A model that counts its passes, and fails in one of them."""

    def __init__(self, inner: nn.Module, fail_at: int | None = None) -> None:
        super().__init__()
        self.inner, self.passes, self.fail_at = inner, 0, fail_at

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        if self.passes == self.fail_at:
            raise RuntimeError("the machine is gone")
        return self.inner(x)


@pytest.fixture
def recorded(net_a: nn.Module, images: Tensor, tmp_path: Path) -> Recording:
    return record(net_a, images, tmp_path / "a", **SETTINGS)


class TestNumbers:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"estimator": "biased"},
            {"precision": "bfloat16"},
            {"maps": "positions", "layers": ["0", "1", "2"]},
            {"passes": 2},
            {"batch_size": 16},  # the last batch has 8
            {"batch_size": 19},  # and here 2, too few
            {"autocast": torch.bfloat16, "calls": "first"},
        ],
        ids=str,
    )
    @pytest.mark.filterwarnings("ignore:dropped 1 of")
    def test_those_of_the_models(
        self,
        net_a: nn.Module,
        net_b: nn.Module,
        images: Tensor,
        tmp_path: Path,
        options: dict[str, Any],
    ) -> None:
        given = SETTINGS | options
        one, two = (
            record(m, images, tmp_path / n, **given) for m, n in ((net_a, "a"), (net_b, "b"))
        )
        models = {"a": net_a, "b": net_b}
        want = compare(models, images, **given)
        assert np.isfinite(want.standard_error).all()
        same(want, compare([one, two]))
        same(want, compare({"a": one, "b": net_b}, images, **given))
        same(want, compare({"a": net_a, "b": tmp_path / "b"}, images, **given))

    @pytest.mark.filterwarnings("ignore:cca. ")  # few samples, of which not much is asked
    @pytest.mark.parametrize(
        "options",
        [
            {"measure": "procrustes_similarity", "jackknife": 4, "permutations": 3},
            {"measure": "cca", "jackknife": 0, "permutations": 0},
            {"measure": "cka"},
            {"measure": "cka", "estimator": "biased"},
            {"measure": "cka_rbf", "estimator": "biased", "jackknife": 2},
        ],
        ids=str,
    )
    def test_of_features(
        self,
        net_a: nn.Module,
        net_b: nn.Module,
        images: Tensor,
        tmp_path: Path,
        options: dict[str, Any],
    ) -> None:
        given = SETTINGS | {"maps": "pool"}
        for name, model in (("a", net_a), ("b", net_b)):
            record(model, images, tmp_path / name, keep="features", **given)
        want = compare({"a": net_a, "b": net_b}, images, **given, **options)
        same(want, compare([tmp_path / "a", tmp_path / "b"], **options))
        same(want, compare({"a": tmp_path / "a", "b": net_b}, images, **given, **options))

    def test_grams_and_features_together(
        self, recorded: Recording, net_b: nn.Module, images: Tensor, tmp_path: Path
    ) -> None:
        features = record(net_b, images, tmp_path / "b", keep="features", **SETTINGS)
        want = compare([recorded, record(net_b, images, tmp_path / "b2", **SETTINGS)])
        got = compare([recorded, features])
        np.testing.assert_allclose(got.value, want.value, atol=1e-6)
        np.testing.assert_allclose(got.standard_error, want.standard_error, atol=1e-6)

    @pytest.mark.parametrize("keep", ["grams", "features"])
    def test_sixteen_bits_are_as_far_off_as_they_say(
        self, net_a: nn.Module, net_b: nn.Module, images: Tensor, tmp_path: Path, keep: Any
    ) -> None:
        with torch.no_grad():
            net_a[0].weight *= 1e5  # Grams beyond the largest number of 16 bits
        whole, half = (
            [
                record(m, images, tmp_path / f"{n}{stored}", stored=stored, keep=keep, **SETTINGS)
                for m, n in ((net_a, "a"), (net_b, "b"))
            ]
            for stored in (None, "float16")
        )
        assert all(float(r.rounding.max()) == 0 for r in whole)
        assert all(0 < float(r.rounding.min()) <= float(r.rounding.max()) < 2**-11 for r in half)
        assert half[0].n_bytes < 0.7 * whole[0].n_bytes or keep == "grams"  # headers weigh as much
        want = compare(whole, names=["a", "b"])
        with pytest.warns(UserWarning, match="stored in float16"):
            got = compare(half, names=["a", "b"])
        off = np.abs(got.value - want.value)
        assert 0 < off.max() < 1e-3
        if keep == "features":
            assert "may be off by far more" in got.notes[-1]
        else:
            unit = torch.cat([r.rounding for r in half]).arcsin().numpy()
            assert (off <= unit[:, None] + unit[None, :] + 1e-7).all()
            assert "values are off by at most" in got.notes[-1]

    @pytest.mark.parametrize("mean", [1e2, 1e4])
    @pytest.mark.parametrize("stored", ["float16", "float32"])
    @pytest.mark.filterwarnings("ignore:recordings of")
    def test_features_far_from_zero(self, stored: Any, mean: float, tmp_path: Path) -> None:
        dtype = torch.float64 if stored == "float32" else torch.float32
        x = torch.randn(60, 12, dtype=dtype)
        models = {name: nn.Linear(12, 9).to(dtype) for name in ("a", "b")}
        with torch.no_grad():
            for model in models.values():
                model.bias += mean if stored == "float16" else mean**2
        kept: dict[str, Any] = {"keep": "features", "stored": stored, **SETTINGS}
        recordings = [record(m, x, tmp_path / n, **kept) for n, m in models.items()]
        off = np.abs(compare(recordings).value - compare(models, x, **SETTINGS).value)
        assert off.max() < (3e-4 if stored == "float16" else 1e-7)

    @pytest.mark.parametrize("stored", ["float16", "float32"])
    def test_what_has_no_more_digits_is_kept_as_computed(self, stored: Any, tmp_path: Path) -> None:
        dtypes = {"float16": [torch.float16], "float32": [torch.float16, torch.bfloat16]}[stored]
        for dtype in dtypes:
            model = nn.Linear(4, 12).to(dtype)
            x = torch.randn(60, 4).to(dtype)
            recording = record(
                model, x, tmp_path / str(dtype), keep="features", stored=stored, shuffle=False
            )
            assert float(recording.rounding.max()) == 0
            part = recording_files.read_part(part_path(recording.path, 0))
            (features,) = part.features(0, [0])
            with torch.no_grad():
                assert torch.equal(features, model(x[: len(features)]))
            assert features.dtype == dtype

    def test_float64_is_kept(self, tmp_path: Path) -> None:
        a, b = nn.Linear(6, 4).double(), nn.Sequential(nn.Linear(6, 4), nn.ReLU()).double()
        x = torch.randn(40, 6, dtype=torch.float64)
        one = record(a, x, tmp_path / "a", **SETTINGS)
        want = compare({"a": a, "b": b}, x, **SETTINGS)
        same(want, compare({"a": one, "b": b}, x, **SETTINGS))
        assert one.wide == (True,)

    def test_layers_without_a_value(self, images: Tensor, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.Hardtanh(), nn.ReLU())
        with torch.no_grad():
            model[1].weight.zero_()
            model[1].bias.fill_(1.5)
        one = record(model, images, tmp_path / "a", **SETTINGS)
        with pytest.warns(UserWarning, match="undefined"):
            want = compare({"a": model}, images, **SETTINGS)
        with pytest.warns(UserWarning, match="undefined"):
            same(want, compare([one]))
        assert len(want.undefined["a"]) == 3

    def test_layers_that_do_not_come_in_every_batch(self, tmp_path: Path) -> None:
        class Moody(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.c, self.passes = nn.ReLU(), nn.ReLU(), nn.Tanh(), 0

            def forward(self, x: Tensor) -> Tensor:
                self.passes += 1
                return self.c(self.b(x) if self.passes == 4 else self.b(self.a(x)))

        x = torch.randn(40, 6)
        calls: dict[str, Any] = {**SETTINGS, "maps": lambda x: x}
        with pytest.warns(UserWarning, match="'a'"):
            want = compare({"m": Moody()}, x, **calls)
        one = record(Moody(), x, tmp_path / "m", every=1, **calls)
        assert one.layers == ("b", "c")
        with pytest.warns(UserWarning, match="'a'"):
            same(want, compare([one]))
        with pytest.warns(UserWarning, match="model 'renamed': 1 layers left out"):
            compare([one], names=["renamed"])

    def test_notes_on_the_data(self, net_a: nn.Module, images: Tensor, tmp_path: Path) -> None:
        x = images + torch.arange(40).view(-1, 1, 1, 1) // 10  # batches differ
        given = {"batch_size": 10, "shuffle": False}
        with pytest.warns(UserWarning, match="sorted"):
            want = compare({"a": net_a}, x, **given)
        with pytest.warns(UserWarning, match="sorted"):
            same(want, compare([record(net_a, x, tmp_path / "a", **given)]))

    def test_inputs_of_their_own(self, net_a: nn.Module, images: Tensor, tmp_path: Path) -> None:
        def darker(x: Tensor, y: Tensor | None) -> Tensor:
            return x.pow(3)

        plain = record(net_a, images, tmp_path / "plain", **SETTINGS)
        dark = record(net_a, images, tmp_path / "dark", inputs=darker, **SETTINGS)
        given: dict[str, Any] = {"names": ["plain", "dark"], "inputs": [None, darker], **SETTINGS}
        same(compare([net_a, net_a], images, **given), compare([plain, dark]))


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"seed": 4}, "seed 3 and 4"),
            ({"batch_size": 8}, "batch_size 10 and 8"),
            ({"maps": "pool"}, "maps: expected 'pool' as the comparison, got recording 'a'"),
            ({"calls": "first"}, "calls: expected 'first'"),
            ({"precision": "bfloat16"}, "precision: expected 'bfloat16'"),
            ({"passes": 2}, "passes: expected 2"),
            ({"measure": "procrustes_distance"}, "keep='features'"),
            ({"estimator": "biased"}, "Grams for cka with estimator 'unbiased'"),
            ({"shuffle": False}, "order 'random' and 'as given'"),
            ({"ids": range(40)}, "ids False and 'int'"),
        ],
    )
    def test_other_settings(
        self,
        recorded: Recording,
        net_b: nn.Module,
        images: Tensor,
        options: dict[str, Any],
        message: str,
    ) -> None:
        with pytest.raises(ValueError, match=message):
            compare([recorded, net_b], images, **SETTINGS | options)

    @pytest.mark.parametrize("alone", [False, True])
    def test_other_data(
        self, recorded: Recording, net_b: nn.Module, images: Tensor, alone: bool
    ) -> None:
        members = [recorded] if alone else [recorded, net_b]
        changed = images.clone()
        changed[17, 0, 0, 0] += 0.01
        with pytest.raises(ValueError, match="other samples or another order"):
            compare(members, changed, **SETTINGS)
        with pytest.raises(ValueError, match="data"):
            compare(members, images[:30], **SETTINGS)
        with pytest.raises(ValueError, match="data"):
            compare(members, torch.cat([images, images]), **SETTINGS)
        assert compare(members, images, **SETTINGS).n_samples == 40

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"seed": 4}, "another order from batch 0 on; it and 'a' differ in seed 4 and 3"),
            ({"batch_size": 8}, "batches of 10 samples, got 8; .*batch_size 8 and 10"),
            ({"maps": "pool"}, "maps: expected 'flatten' as recording 'a', got recording 'b'"),
        ],
    )
    def test_recordings_of_other_settings(
        self,
        recorded: Recording,
        net_b: nn.Module,
        images: Tensor,
        tmp_path: Path,
        options: dict[str, Any],
        message: str,
    ) -> None:
        other = record(net_b, images, tmp_path / "b", **SETTINGS | options)
        with pytest.raises(ValueError, match=message):
            compare([recorded, other])

    def test_recordings_of_fewer_samples(
        self, recorded: Recording, net_b: nn.Module, images: Tensor, tmp_path: Path
    ) -> None:
        other = record(net_b, images[:30], tmp_path / "b", **SETTINGS)
        with pytest.raises(ValueError, match=r"expected as in 'a' .* 40 samples, got 30"):
            compare([recorded, other])

    def test_arguments_that_nothing_would_follow(self, recorded: Recording) -> None:
        with pytest.raises(ValueError, match=r"maps: .* got 'pool' where 'a' has 'flatten'"):
            compare([recorded], maps="pool")
        with pytest.raises(ValueError, match="layers: expected the default"):
            compare([recorded], layers=["0"])
        with pytest.raises(ValueError, match=r"batch_size: .* got 7 where 'a' has 10"):
            compare([recorded], batch_size=7)
        assert compare([recorded], batch_size=10, seed=3).n_batches == 4

    def test_names(self, recorded: Recording, net_a: nn.Module) -> None:
        with pytest.raises(ValueError, match="names must be 2 different ones"):
            compare([recorded, recorded], names=["a", "a"])
        assert compare([recorded, recorded]).models == ("a 1", "a 2")
        with pytest.raises(TypeError, match="data is missing"):
            compare([recorded, net_a])

    def test_two_by_position(self, recorded: Recording, net_b: nn.Module, images: Tensor) -> None:
        assert compare(recorded, net_b, images, **SETTINGS).models == ("a", "Sequential")
        assert compare(recorded, recorded).models == ("a 1", "a 2")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"keep": "all"}, "keep: expected one of 'grams', 'features', got 'all'"),
            ({"stored": "int8"}, "stored: expected one of None, 'float32', 'float16', got 'int8'"),
            ({"every": 0}, "every: expected at least 1 batch, got 0"),
            ({"keep": "features", "precision": "bfloat16"}, "precision: expected None"),
            ({"keep": "features", "passes": 2}, "passes: expected 1"),
            ({"ids": [1] * 40}, "ids: expected different ones, got '1' twice"),
            ({"ids": range(39)}, "ids: expected one for each sample"),
        ],
    )
    def test_bad_arguments(
        self,
        net_a: nn.Module,
        images: Tensor,
        tmp_path: Path,
        options: dict[str, Any],
        message: str,
    ) -> None:
        with pytest.raises(ValueError, match=message):
            record(net_a, images, tmp_path / "x", **SETTINGS | options)
        assert not (tmp_path / "x" / INDEX).exists()

    def test_batches_without_a_known_order_take_no_ids(
        self, net_a: nn.Module, images: Tensor, tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match="ids: expected data that are read by number"):
            record(net_a, [images[:20], images[20:]], tmp_path / "x", ids=range(40))


def test_ids_stand_for_inputs(
    net_a: nn.Module, net_b: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    names = [f"image {i}" for i in range(40)]
    other_inputs = images.flip(-1)
    one = record(net_a, images, tmp_path / "a", ids=names, **SETTINGS)
    two = record(net_b, other_inputs, tmp_path / "b", ids=names, **SETTINGS)
    want = compare({"a": net_a, "b": net_b}, {"a": images, "b": other_inputs}, **SETTINGS)
    got = compare([one, two])
    np.testing.assert_array_equal(got.value, want.value)
    live = compare({"a": one, "b": net_b}, other_inputs, ids=names, **SETTINGS)
    np.testing.assert_array_equal(live.value, want.value)
    other = record(net_b, other_inputs, tmp_path / "c", ids=names[::-1], **SETTINGS)
    with pytest.raises(ValueError, match="other ones or another order"):
        compare([one, other])


class TestExtending:
    def test_is_the_comparison_of_all(
        self, net_a: nn.Module, net_b: nn.Module, images: Tensor, tmp_path: Path
    ) -> None:
        nets = {"a": net_a, "b": net_b, "c": nn.Sequential(nn.Flatten(), nn.Linear(192, 7))}
        for name, net in nets.items():
            record(net, images, tmp_path / name, **SETTINGS)
        two = SimilarityResult.from_recordings([tmp_path / "a", tmp_path / "b"])
        same(compare({n: nets[n] for n in "ab"}, images, **SETTINGS), two)
        two.save(tmp_path / "result.safetensors")
        three = SimilarityResult.load(tmp_path / "result.safetensors").extend(tmp_path / "c")
        same(compare(nets, images, **SETTINGS), three)
        assert three.extend(tmp_path / "c", name="again").models == ("a", "b", "c", "again")
        of_models = compare({n: nets[n] for n in "ab"}, images, **SETTINGS)
        with pytest.raises(ValueError, match="recordings: expected those of 'a', 'b', whose"):
            of_models.extend(tmp_path / "c")
        own = {n: tmp_path / n for n in "ab"}
        same(three, of_models.extend(tmp_path / "c", recordings=own))

    @pytest.mark.filterwarnings("ignore:cca. ")
    def test_measures_with_options(
        self, net_a: nn.Module, net_b: nn.Module, images: Tensor, tmp_path: Path
    ) -> None:
        given: dict[str, Any] = SETTINGS | {"maps": "pool", "keep": "features"}
        nets = {"a": net_a, "b": net_b}
        one, two = (record(m, images, tmp_path / n, **given) for n, m in nets.items())
        svcca = get_measure("svcca", components=2)
        none: dict[str, Any] = {"jackknife": 0, "permutations": 0}
        result = SimilarityResult.from_recordings([one], measure=svcca, **none)
        with pytest.raises(ValueError, match=r"measure: expected svcca \(components 2"):
            result.extend(two, **none)
        want = SimilarityResult.from_recordings([one, two], measure=svcca, **none)
        same(want, result.extend(two, measure=svcca, **none))

    def test_refused(
        self, net_a: nn.Module, net_b: nn.Module, images: Tensor, tmp_path: Path
    ) -> None:
        nets = {"a": net_a, "b": net_b}
        a, b = (record(m, images, tmp_path / n, **SETTINGS) for n, m in nets.items())
        other = record(net_b, images, tmp_path / "c", **SETTINGS | {"seed": 4})
        result = SimilarityResult.from_recordings(a)
        with pytest.raises(ValueError, match=r"name: expected one that is not among \('a',\)"):
            result.extend(a)
        with pytest.raises(ValueError, match="differ in seed 4 and 3"):
            result.extend(other)
        with pytest.raises(ValueError, match="recordings: expected that of 'a' with weights"):
            result.extend(b, recordings={"a": b})
        with pytest.raises(ValueError, match="recordings: expected names among"):
            result.extend(b, recordings={"z": b})
        with pytest.raises(ValueError, match="precision: expected 'float32'"):
            SimilarityResult.from_recordings([a, b], precision="bfloat16")
        with pytest.raises(TypeError, match="recordings: expected recordings or their paths, got"):
            SimilarityResult.from_recordings([net_a])
        shutil.rmtree(a.path)
        with pytest.raises(FileNotFoundError, match="expected the folder of a recording"):
            result.extend(b)


class TestResuming:
    @pytest.mark.parametrize("every", [1, 2, 3])
    def test_goes_on_after_the_last_batch(
        self, net_a: nn.Module, images: Tensor, tmp_path: Path, recorded: Recording, every: int
    ) -> None:
        model = Counted(net_a, fail_at=4)
        with pytest.raises(RuntimeError, match="the machine is gone"):
            record(model, images, tmp_path / "x", every=every, **SETTINGS)
        with pytest.raises(ValueError, match="got one of 3 batches so far"):
            Recording.open(tmp_path / "x")
        model.passes, model.fail_at = 0, None
        whole = record(model, images, tmp_path / "x", every=every, **SETTINGS)
        # The first batch to see that it is the same model, layers' places, and what was not there.
        assert model.passes <= 4
        again = record(Counted(net_a), images, tmp_path / "y", every=every, **SETTINGS)
        same(compare([whole], names=["m"]), compare([again], names=["m"]))

    def test_of_a_model_that_draws_random_numbers(self, images: Tensor, tmp_path: Path) -> None:
        class Noisy(nn.Module):
            def __init__(self, fail_at: int | None = None) -> None:
                super().__init__()
                self.layer, self.passes, self.fail_at = nn.ReLU(), 0, fail_at

            def forward(self, x: Tensor) -> Tensor:
                self.passes += 1
                noisy = x + torch.randn_like(x)  # drawn for nothing where the pass fails
                if self.passes == self.fail_at:
                    raise RuntimeError("gone")
                return self.layer(noisy)

        model = Noisy(fail_at=4)
        options: dict[str, Any] = {**SETTINGS, "maps": lambda x: x.flatten(1)}
        with pytest.raises(RuntimeError, match="gone"):
            record(model, images, tmp_path / "x", **options)
        model.passes, model.fail_at = 0, None
        got = record(model, images, tmp_path / "x", **options)
        want = record(Noisy(), images, tmp_path / "y", **options)
        same(compare([want], names=["m"]), compare([got], names=["m"]))

    def test_a_finished_one_costs_the_passes_of_two_batches(
        self, net_a: nn.Module, images: Tensor, tmp_path: Path
    ) -> None:
        model = Counted(net_a)
        record(model, images, tmp_path / "x", **SETTINGS)
        before = (tmp_path / "x" / INDEX).stat().st_mtime_ns
        model.passes = 0
        assert record(model, images, tmp_path / "x", **SETTINGS).n_samples == 40
        assert model.passes == 2
        assert (tmp_path / "x" / INDEX).stat().st_mtime_ns == before

    @pytest.mark.parametrize("finished", [False, True])
    def test_nothing_is_written_over(
        self, net_a: nn.Module, net_b: nn.Module, images: Tensor, tmp_path: Path, finished: bool
    ) -> None:
        model = Counted(net_a, fail_at=None if finished else 4)
        if finished:
            record(model, images, tmp_path / "x", every=1, **SETTINGS)
        else:
            with pytest.raises(RuntimeError):
                record(model, images, tmp_path / "x", every=1, **SETTINGS)
        model.fail_at = None
        files = {path: path.read_bytes() for path in (tmp_path / "x").glob("*.safetensors")}

        def refused(message: str, net: nn.Module, x: Tensor, **options: Any) -> None:
            with pytest.raises(ValueError, match=message):
                record(net, x, tmp_path / "x", every=1, **SETTINGS | options)
            assert {p: p.read_bytes() for p in (tmp_path / "x").glob("*.safetensors")} == files

        refused("models: .*choose another path|weights: ", Counted(net_b), images)
        refused("maps: .* with 'flatten', got 'pool'", model, images, maps="pool")
        refused("seed: .* with 3, got 5", model, images, seed=5)
        refused("keep: .* with 'grams', got 'features'", model, images, keep="features")
        refused("estimator: .* 'unbiased', got 'biased'", model, images, estimator="biased")
        refused("data: .* other samples", model, images + 1e-3)
        refused("data: ", model, images[:20])

    def test_the_same_weights_in_another_program(self, images: Tensor, tmp_path: Path) -> None:
        class Net(nn.Module):
            def __init__(self, power: int, fail_at: int | None = None) -> None:
                super().__init__()
                self.layer, self.power = nn.Linear(192, 5), power
                self.passes, self.fail_at = 0, fail_at
                nn.init.ones_(self.layer.weight)

            def forward(self, x: Tensor) -> Tensor:
                self.passes += 1
                if self.passes == self.fail_at:
                    raise RuntimeError("gone")
                return self.layer(x.flatten(1) ** self.power)

        torch.manual_seed(0)
        one = Net(1, fail_at=4)
        two = Net(3)
        two.load_state_dict(one.state_dict())
        with pytest.raises(RuntimeError, match="gone"):
            record(one, images, tmp_path / "x", every=1, **SETTINGS)
        with pytest.raises(ValueError, match=r"model: .* another one"):
            record(two, images, tmp_path / "x", every=1, **SETTINGS)


_KILLED = """
import os, signal, sys, torch
from repsim_fast import record

class Net(torch.nn.Module):
    def __init__(self, kill_at):
        super().__init__()
        self.layer, self.passes, self.kill_at = torch.nn.Tanh(), 0, kill_at

    def forward(self, x):
        self.passes += 1
        if self.passes == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.layer(x)

x = torch.rand(40, 6, generator=torch.Generator().manual_seed(0))
record(Net(int(sys.argv[2])), x, sys.argv[1], name="m", batch_size=5, every=2)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system knows no SIGKILL")
def test_a_killed_recording_goes_on(tmp_path: Path) -> None:
    def run(folder: str, kill_at: int) -> int:
        return run_python(_KILLED, tmp_path / folder, kill_at).returncode

    # Passes of one batch begin with those by which layers' samples are found.
    assert run("x", 7) == -signal.SIGKILL
    parts = {path: path.read_bytes() for path in (tmp_path / "x").glob("batches-*")}
    assert parts
    assert run("x", 0) == 0
    assert run("y", 0) == 0
    assert all(path.read_bytes() == raw for path, raw in parts.items())
    same(compare([tmp_path / "x"]), compare([tmp_path / "y"]))


class TestFiles:
    def test_memory_and_parts_are_bounded(
        self, net_a: nn.Module, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record(net_a, images, tmp_path / "x", every=3, **SETTINGS)
        assert len(list((tmp_path / "x").glob("batches-*"))) == 2
        monkeypatch.setattr(recording_files, "_LARGEST_PART", 1)
        record(net_a, images, tmp_path / "y", every=3, **SETTINGS)
        assert len(list((tmp_path / "y").glob("batches-*"))) == 4
        same(compare([tmp_path / "x"], names=["m"]), compare([tmp_path / "y"], names=["m"]))

    def test_grams_lie_in_the_file(self, recorded: Recording) -> None:
        batch, part = next(recorded.parts())
        grams = recorded.grams(batch, part)
        mapped = part.tensors.get(f"{batch.number}")
        assert grams.shape == (7, 45)
        # As it is in the mapped file, not a copy.
        assert grams.untyped_storage().nbytes() == mapped.untyped_storage().nbytes()
        assert grams.data_ptr() == mapped.data_ptr()

    def test_a_full_disk(
        self, net_a: nn.Module, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write, written = recording_files.write_tensors, []

        def full(path: Path, *rest: Any) -> None:
            if len(written) == 2:
                raise OSError(errno.ENOSPC, "cannot write: No space left on device", str(path))
            write(path, *rest)
            written.append(path)

        with monkeypatch.context() as patch:
            patch.setattr(recording_files, "write_tensors", full)
            with pytest.raises(OSError, match="No space left"):
                record(net_a, images, tmp_path / "x", every=1, **SETTINGS)
        assert len(written) == 2
        model = Counted(net_a)
        want = record(model, images, tmp_path / "y", **SETTINGS)
        got = record(net_a, images, tmp_path / "x", every=1, **SETTINGS)
        assert (got.n_samples, len(got.layers)) == (want.n_samples, len(want.layers))

    @pytest.mark.parametrize(
        ("harm", "message"),
        [
            (lambda f: _cut(part_path(f, 1)), "not a readable safetensors file"),
            (lambda f: _cut(f / INDEX), "not a readable safetensors file"),
            (lambda f: part_path(f, 1).unlink(), "is missing: the recording has 4 parts"),
            (lambda f: shutil.copy(part_path(f, 0), part_path(f, 1)), "got another's"),
            (lambda f: shutil.copy(f / INDEX, part_path(f, 1)), "no part of a recording"),
            (lambda f: (f / INDEX).write_bytes(b"not this"), "not a readable safetensors file"),
            (lambda f: (f / INDEX).unlink(), "finished recording, got one of 4 batches so far"),
            (lambda f: shutil.rmtree(f), "expected the folder of a recording"),
            (lambda f: _foreign(f / INDEX), "no part of a recording"),
        ],
        ids=range(9),
    )
    def test_damaged_and_foreign_files(
        self,
        net_a: nn.Module,
        images: Tensor,
        tmp_path: Path,
        harm: Callable[[Path], object],
        message: str,
    ) -> None:
        record(net_a, images, tmp_path / "x", every=1, **SETTINGS)
        harm(tmp_path / "x")
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            compare([tmp_path / "x"])

    def test_numbers_that_were_never_written(self, recorded: Recording) -> None:
        path = part_path(recorded.path, 0)
        metadata, tensors = read_tensors(path)
        tensors["2"][0, 0] = np.nan
        write_tensors(path, tensors, metadata)  # with checksums that fit
        with pytest.raises(ValueError, match=r"'a' .*is damaged: layer '0' in batch 2: NaN or Inf"):
            compare([recorded])

    @pytest.mark.parametrize("keep", ["grams", "features"])
    def test_bits_that_have_changed(self, net_a: nn.Module, images: Tensor, tmp_path: Path, keep):
        made = record(net_a, images, tmp_path / "x", keep=keep, every=2, **SETTINGS)
        expected = SimilarityResult.from_recordings([made]).value
        path = part_path(made.path, 1)
        whole, dice = path.read_bytes(), np.random.default_rng(0)
        start = 8 + int.from_bytes(whole[:8], "little")
        for at in dice.integers(start, len(whole), 20):
            raw = bytearray(whole)
            raw[at] ^= 1 << dice.integers(8)
            path.write_bytes(raw)
            with contextlib.suppress(ValueError):
                found = SimilarityResult.from_recordings([made]).value
                assert np.array_equal(found, expected)

    def test_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(FileNotFoundError, match="got a folder without"):
            compare([tmp_path / "empty"])


def test_a_model_comes_back_as_it_was(net_a: nn.Module, images: Tensor, tmp_path: Path) -> None:
    net_a.train()
    before = {name: value.clone() for name, value in net_a.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    record(net_a, images, tmp_path / "x", **SETTINGS)
    assert all(module.training for module in net_a.modules())
    assert all(torch.equal(before[name], value) for name, value in net_a.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_samples_that_nothing_tells_apart(images: Tensor, tmp_path: Path) -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(192, 3)

        def forward(self, x_mask: Tensor) -> Tensor:
            return self.layer(x_mask.to_dense())

    rows = images.flatten(1)
    batches = [{"x_mask": x.to_sparse()} for x in rows.split(10)]
    with pytest.raises(ValueError, match="data: expected inputs by which samples are known"):
        record(Dense(), batches, tmp_path / "x")


def _cut(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) - 100])


def _foreign(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(3)}, path)


def test_names(net_a: nn.Module, images: Tensor, tmp_path: Path) -> None:
    """One that no file can hold is refused before the first pass; the folder's name is one."""
    for name in (3, "\ud800", "x" * 20_000):
        model = Counted(net_a)
        with pytest.raises(ValueError, match="name: expected a text"):
            record(model, images, tmp_path / "x", name=name, **SETTINGS)  # type: ignore[arg-type]
        assert model.passes == 0
        with pytest.raises(ValueError, match="names: expected a text"):
            compare(model, images, names=[name], **SETTINGS)  # type: ignore[call-overload]
    assert record(net_a, images, tmp_path / "y" / "." / "z" / "..", **SETTINGS).name == "y"
    assert compare(tmp_path / "y").models == ("y",)
    assert SimilarityResult.from_recordings(str(tmp_path / "y")).models == ("y",)
