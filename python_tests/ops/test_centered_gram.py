from __future__ import annotations

import pytest
import torch

from python_tests.support.op_tester import (
    assert_as_good_as_plain_torch,
    devices,
    opcheck,
    relative_error,
)
from repsim_fast import _C, ops
from repsim_fast.ops.centering import unpack_gram
from repsim_fast.ops.reference import gram as reference

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
FLOAT64_TOLERANCE = 1e-13


def truth(x: torch.Tensor, centering: str, packed: bool) -> torch.Tensor:
    return reference.centered_gram(x.cpu().double(), centering=centering, packed=packed)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("centering", ops.CENTERINGS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_matches_the_float64_definition(device, dtype, centering, packed):
    # No multiple of a tile (32), a block of features (192) or a vector.
    for n, p in [(4, 1), (5, 3), (31, 191), (33, 193), (64, 192), (100, 500)]:
        x = (torch.randn(n, p) + 3).to(dtype).to(device)
        gram = ops.centered_gram(x, centering=centering, packed=packed)
        expected = truth(x, centering, packed)
        assert gram.device == x.device
        assert gram.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert gram.shape == expected.shape
        if dtype == torch.float64:
            assert relative_error(gram, expected) <= FLOAT64_TOLERANCE
        else:
            plain = reference.centered_gram(x, centering=centering, packed=packed)
            assert_as_good_as_plain_torch(gram, plain, expected, atol=1e-6)


@pytest.mark.parametrize("device", devices())
def test_every_float16_number_is_read_exactly(device):
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
    one = torch.ones(1, dtype=torch.float16)
    for some in every.split(1024):
        x = torch.cat([some, one])[:, None].to(device)
        products = ops.centered_gram(x, centering="none")[-1, :-1].cpu()  # each times one
        torch.testing.assert_close(products, some.float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("device", devices())
def test_few_samples_and_features(device):
    for n in range(1, 5):
        for p in (0, 1, 2):
            x = torch.randn(n, p, dtype=torch.float64, device=device)
            for centering in ops.CENTERINGS:
                if n < ops.MIN_SAMPLES[centering]:
                    continue
                gram = ops.centered_gram(x, centering=centering)
                assert torch.allclose(gram.cpu(), truth(x, centering, False), atol=1e-13)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize(("n", "p"), [(64, 3000), (1000, 48)])
@pytest.mark.parametrize("mean", [0.0, 1.0, 10.0, 100.0])
def test_a_feature_mean_does_not_cost_accuracy(device, mean, n, p):
    x = (torch.randn(n, p) + mean).to(device)
    for centering in ("features", "double", "unbiased"):
        gram = ops.centered_gram(x, centering=centering)
        assert relative_error(gram, truth(x, centering, False)) < 2e-6


@pytest.mark.parametrize("device", devices())
def test_any_strides(device):
    base = torch.randn(70, 90, dtype=torch.float64, device=device)
    views = {
        "transposed": base.T,
        "every other row": base[::2],
        "every other column": base[:, ::2],
        "columns within": base[:, 5:50],
        "expanded rows": base[:1].expand(8, -1),
        "one feature": base[:, :1],
    }
    for name, x in views.items():
        gram = ops.centered_gram(x, centering="none")
        assert torch.allclose(gram, x @ x.T, atol=1e-12), name


@pytest.mark.parametrize("device", devices())
def test_bfloat16_products_round_only_the_centred_features(device):
    x = (torch.randn(50, 700) + 5).to(device)
    gram = ops.centered_gram(x, centering="unbiased", precision="bfloat16")
    if device == "cuda":
        expected = reference.centered_gram(x.cpu(), centering="unbiased", precision="bfloat16")
        assert relative_error(gram, expected) < 1e-3  # same features, sums in another order
    # Two roundings.
    assert relative_error(gram, truth(x, "unbiased", False)) < rounding(x)


def rounding(x: torch.Tensor) -> float:
    """What the norm of a sample's features may lose in bfloat16 products, both factors together. Of
    16-bit integers half a unit of each feature, 32700 units being the norm over 256 features."""
    products = ops.products_in(x, "bfloat16")
    return {"bfloat16": 2.0**-7, "int16": 256**0.5 / 32700, "float32": 1e-5}[products]


def awkward_features() -> dict[str, torch.Tensor]:
    x = torch.randn(70, 500)
    sizes = torch.logspace(-6, 6, 70)[:, None]
    spike = x.clone()
    spike[:, 7] *= 1e4
    lone = torch.zeros(70, 500)
    lone[torch.arange(70), torch.arange(70)] = torch.randn(70)
    return {
        "samples of all sizes": x * sizes,
        "a feature far larger than all others": spike,
        "one feature a sample": lone,
        "zeros": torch.zeros(70, 500),
        "half of the samples zero": x * (torch.arange(70)[:, None] % 2),
        "tiny": x * 1e-17,
        "huge": x * 1e17,
        "equal and opposite": torch.cat([x[:35], -x[:35]]),
        "largest of a unit": torch.full((70, 500), -1.0),
        "17 features": x[:, :17],
        "257 features": x[:, :257],
        "three blocks of features and 33": torch.randn(70, 801),
    }


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("kind", awkward_features())
def test_bfloat16_products_err_by_the_samples_norms_at_most(device, kind):
    x = awkward_features()[kind].to(device)
    gram = ops.centered_gram(x, centering="none", precision="bfloat16").double().cpu()
    norms = torch.linalg.vector_norm(x.double().cpu(), dim=1)
    # Both factors are rounded, and sums in float32 lose a little; tiny ones are denormal numbers.
    bound = (1.01 * rounding(x) + 1e-6) * norms[:, None] * norms[None, :] + 1e-37
    assert ((gram - truth(x, "none", False)).abs() <= bound).all()


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e25])
def test_bfloat16_products_do_not_hide_what_is_not_finite(device, value):
    x = torch.randn(40, 300, device=device)
    x[3, 200] = value
    gram = ops.centered_gram(x, centering="none", precision="bfloat16").cpu()
    wrong = torch.zeros(40, 40, dtype=torch.bool)
    wrong[3, :] = wrong[:, 3] = True
    assert gram[~wrong].isfinite().all()
    assert not gram[3, 3].isfinite()
    assert not ops.centered_gram(x, precision="bfloat16").isfinite().all()


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_samples_far_from_the_others_cost_little(device, precision):
    # What goes before the products may be the mean of some samples, the worst of them here.
    for far, factor in ((slice(0, 16), 1), (slice(0, 200), 1), (slice(0, 400, 25), 5)):
        x = torch.randn(400, 300)
        x[far] += 30
        x = x.to(device)
        gram = ops.centered_gram(x, centering="double", precision=precision)
        tolerance = factor * (1e-6 if precision is None else rounding(x))
        assert relative_error(gram, truth(x, "double", False)) < tolerance


@pytest.mark.parametrize("device", devices())
def test_packed_keeps_inner_products(device):
    x, y = (torch.randn(20, 30, dtype=torch.float64, device=device) for _ in range(2))
    for centering in ops.CENTERINGS:
        full = [ops.centered_gram(t, centering=centering) for t in (x, y)]
        packed = [ops.centered_gram(t, centering=centering, packed=True) for t in (x, y)]
        assert torch.allclose(packed[0] @ packed[1], (full[0] * full[1]).sum())
        assert torch.allclose(unpack_gram(packed[0], 20, centering), full[0], atol=1e-12)


def test_centred_grams_have_the_properties_their_names_claim():
    x = torch.randn(40, 7, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64)).Q
    for centering in ("double", "unbiased"):
        gram = ops.centered_gram(x, centering=centering)
        assert torch.equal(gram, gram.T)
        assert gram.sum(dim=1).abs().max() < 1e-12
        assert torch.allclose(ops.centered_gram(x @ rotation + 4, centering=centering), gram)
    assert torch.equal(gram.diagonal(), torch.zeros(40, dtype=torch.float64))


def test_result_does_not_depend_on_threads_beyond_rounding():
    x = torch.randn(300, 2000)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = ops.centered_gram(x)
        torch.set_num_threads(2)
        two = ops.centered_gram(x)
        assert torch.equal(two, ops.centered_gram(x)), "same threads, same bits"
    finally:
        torch.set_num_threads(threads)
    assert relative_error(two, one) < 1e-6


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("centering", ops.CENTERINGS)
def test_gradients(centering, packed):
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)

    def function(x: torch.Tensor) -> torch.Tensor:
        return ops.centered_gram(x, centering=centering, packed=packed)

    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("centering", ops.CENTERINGS)
def test_opcheck(device, centering, packed):
    for dtype, precision in ((torch.float64, "float64"), (torch.float32, "bfloat16")):
        x = torch.randn(6, 9, dtype=dtype, device=device, requires_grad=True)
        opcheck(torch.ops.repsim_fast.centered_gram.default, x, centering, packed, precision)


def test_compiles_without_graph_breaks():
    def function(x: torch.Tensor) -> torch.Tensor:
        return ops.centered_gram(x.relu(), packed=True).square().sum()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    x = torch.randn(12, 30, requires_grad=True)
    assert torch.allclose(compiled(x), function(x))
    compiled(x).backward()
    gradient, x.grad = x.grad, None
    function(x).backward()
    assert torch.allclose(gradient, x.grad)


def test_fake_tensors_need_no_gpu():
    with torch._subclasses.FakeTensorMode():
        x = torch.empty(10, 20, device="cuda", dtype=torch.bfloat16)
        packed = torch.ops.repsim_fast.centered_gram(x, "unbiased", True, "bfloat16")
    assert (packed.shape, packed.dtype, packed.device.type) == ((45,), torch.float32, "cuda")


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        ({"x": [1.0]}, TypeError, "x: expected a torch.Tensor, got list"),
        ({"x": torch.ones(4, 4, dtype=torch.int64)}, TypeError, "x: expected float64.*int64"),
        ({"x": torch.ones(4)}, ValueError, r"x: expected a matrix.*\(4,\)"),
        ({"x": torch.ones(3, 2)}, ValueError, "at least 4 samples, got 3"),
        ({"centering": "double-centred"}, ValueError, "centering: expected one of.*double-centred"),
        ({"precision": "float16"}, ValueError, "precision: expected one of.*float16"),
        ({"precision": "tf32"}, ValueError, "precision: 'tf32' exists on CUDA only"),
        (
            {"x": torch.ones(4, 4, dtype=torch.float64), "precision": "float32"},
            ValueError,
            "precision: expected None or 'float64' for float64 features, got 'float32'",
        ),
    ],
)
def test_bad_input_names_argument_wanted_and_got(argument, error, message):
    arguments = {"x": torch.randn(8, 3), **argument}
    with pytest.raises(error, match=message):
        ops.centered_gram(arguments.pop("x"), **arguments)


def test_raw_operator_checks_too():
    with pytest.raises(RuntimeError, match="centering: expected"):
        torch.ops.repsim_fast.centered_gram(torch.randn(4, 4), "other", False, "float32")
    with pytest.raises(RuntimeError, match="precision"):
        torch.ops.repsim_fast.centered_gram(torch.randn(4, 4), "none", False, "float64")


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("packed", [False, True])
def test_out_is_written_in_place(device, dtype, packed):
    x = torch.randn(9, 40, device=device).to(dtype)
    want = ops.centered_gram(x, packed=packed)
    rows = torch.full((3, *want.shape), torch.nan, device=device, dtype=want.dtype)
    got = ops.centered_gram(x, packed=packed, out=rows[1])
    assert got.data_ptr() == rows[1].data_ptr()
    assert torch.equal(rows[1], want)
    assert rows[[0, 2]].isnan().all()
    arguments = (x, "unbiased", packed, "float64" if dtype == torch.float64 else "float32", rows[1])
    opcheck(torch.ops.repsim_fast.centered_gram_out.default, *arguments)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (torch.empty(35), "vector of 36"),
        (torch.empty(6, 6), "vector of 36"),
        (torch.empty(72)[::2], "contiguous"),
        (torch.empty(36, dtype=torch.float64), "float32"),
        (torch.empty(36, requires_grad=True), "gradient"),
    ],
)
def test_out_that_does_not_fit(out, message):
    with pytest.raises(RuntimeError, match=message):
        ops.centered_gram(torch.randn(9, 4), packed=True, out=out)


class TestGramWriter:
    """The way to a Gram without an operator's call; what it writes is tested with ``compare``."""

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("int64", "unbiased", "float32"), "dtype: expected float64, .* got int64"),
            (("float32", "mean", "float32"), "centering: expected none, .* got mean"),
            (("float32", "unbiased", "tf32"), "precision: tf32 exists on CUDA only"),
            (("float32", "unbiased", "float64"), "precision: float64 does not go with float32"),
            (("float64", "unbiased", "float32"), "precision: float32 does not go with float64"),
        ],
    )
    def test_unknown_words(self, words: tuple[str, str, str], message: str) -> None:
        with pytest.raises(RuntimeError, match=message):
            _C.GramWriter(*words)

    def test_too_few_samples(self) -> None:
        x, out = torch.randn(3, 5), torch.zeros(3)
        writer = _C.GramWriter("float32", "unbiased", "float32")
        with pytest.raises(RuntimeError, match="at least 4 samples, got 3"):
            writer.write(x.data_ptr(), 3, 5, out.data_ptr())
        assert not out.any()
