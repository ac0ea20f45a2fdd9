"""A comparison goes on where it was stopped: the same bits, and no pass twice but the first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from python_tests.comparison.test_recordings import same
from python_tests.support.ranks import launch
from python_tests.support.shared_comparisons import Sometimes, Stops, images, network
from repsim_fast import SimilarityResult, compare, record


def pooled(x: Tensor) -> Tensor:
    return x.flatten(1)


OPTIONS: dict[str, Any] = {"batch_size": 16, "every": 2, "maps": pooled}
CASES: dict[str, dict[str, Any]] = {
    "unbiased": {},
    "biased": {"estimator": "biased"},
    "passes": {"passes": 2},
    "small last batch": {"data": images(163)},
    "groups of batches": {"data": images(16 * 70)},
    "several": {"measure": ["cka", "cka"]},
    "ids": {"ids": [f"image {i}" for i in range(160)]},
    "loader": {
        "data": torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(images(160)), 16, shuffle=True
        ),
        "batch_size": None,
    },
}


def _compared(model: nn.Module, options: dict[str, Any], **more: Any) -> Any:
    given = {"data": images(160), **OPTIONS, **options, **more}
    return compare({"a": model, "b": network(1)}, given.pop("data"), **given)


@pytest.mark.filterwarnings("ignore:dropped 1 of 11")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_bits_of_one_that_was_not_stopped(case: str, error: Any, tmp_path: Path) -> None:
    options = CASES[case]
    whole = Stops(network(0))
    want = _compared(whole, options)
    stops = Stops(network(0), at=8, error=error)
    with pytest.raises(error):
        _compared(stops, options, resume=tmp_path)
    goes_on = Stops(network(0))
    got = _compared(goes_on, options, resume=tmp_path)
    # Seven were whole; an interrupt loses what is not written. The first is run again.
    kept = 7 if error is RuntimeError else 6
    assert goes_on.passes == whole.passes - kept + 1
    again = Stops(network(0))
    finished = _compared(again, options, resume=tmp_path)
    assert again.passes == 1
    for result in (got, finished):
        pairs = zip(want.values(), result.values(), strict=True) if isinstance(want, dict) else ()
        for one, other in pairs or [(want, result)]:
            same(one, other)


@pytest.mark.filterwarnings("ignore:data come sorted")
def test_a_layer_that_a_batch_lacks(tmp_path: Path) -> None:
    data = images(80)
    data[:32, 0, 0, 0] = 1.0
    data[32:40, 0, 0, 0] = 0.0
    options: dict[str, Any] = {"batch_size": 8, "shuffle": False, "every": 1}
    with pytest.warns(UserWarning, match="sometimes"):
        want = compare(Sometimes(), data, **options)

    class Fails(Sometimes):
        def forward(self, x: Tensor) -> Tensor:
            if stopping and torch.equal(x[:1], data[64:65]):
                raise RuntimeError("gone")
            return super().forward(x)

    stopping = True
    with pytest.raises(RuntimeError, match="gone"):
        compare(Fails(), data, names=["Sometimes"], resume=tmp_path, **options)
    stopping = False
    with pytest.warns(UserWarning, match="sometimes"):
        got = compare(Fails(), data, names=["Sometimes"], resume=tmp_path, **options)
    assert got.layers == want.layers
    assert got.notes == want.notes
    np.testing.assert_array_equal(got.value, want.value)


class Other(nn.Module):
    """Of another code than what it stands for, with the same weights."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flip(-1) ** 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": images(80) + 1}, "contents of the data"),
        ({"data": list((images(80) + 1).split(16)), "batch_size": None}, "data"),
        ({"model": network(2)}, "weights"),
        ({"seed": 3}, "seed: .* with 0, got 3"),
        ({"estimator": "biased"}, "measure"),
        ({"maps": "pool"}, "maps"),
        ({"measure": "cca"}, "resume: expected measures from sums over batches, such as cka"),
        ({"every": 0}, "every: expected at least 1"),
        ({"every": 1.5}, "every must be a whole number"),
    ],
    ids=range(9),
)
def test_what_is_another_comparison(changes: Any, message: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": network(0), "data": images(80), "batch_size": 16}

    def run(**changes: Any) -> SimilarityResult:
        options = given | changes
        return compare(options.pop("model"), options.pop("data"), resume=tmp_path, **options)

    run()
    (file,) = tmp_path.glob("sums*")
    before = file.read_bytes()
    with pytest.raises((ValueError, TypeError), match=message):
        run(**changes)
    assert file.read_bytes() == before
    run()


def test_other_samples_or_models_behind_the_same_names(tmp_path: Path) -> None:
    batches = list(images(80).split(16))
    compare(Other(network(0)), batches, names=["m"], resume=tmp_path)
    batches[3] = batches[3] + 1
    with pytest.raises(ValueError, match=r"data: .* other samples, .* from batch 3 on"):
        compare(Other(network(0)), batches, names=["m"], resume=tmp_path)

    with pytest.raises(ValueError, match=r"data: .* has 5 batches, got 3: choose another folder"):
        compare(Other(network(0)), batches[:3], names=["m"], resume=tmp_path)

    before = Other.forward
    Other.forward = lambda self, x: self.inner(x)  # type: ignore[method-assign]
    try:
        with pytest.raises(ValueError, match=r"models: .* other features of the first batch"):
            compare(Other(network(0)), list(images(80).split(16)), names=["m"], resume=tmp_path)
    finally:
        Other.forward = before  # type: ignore[method-assign]


def _scaled(x: Tensor, y: Tensor | None) -> Tensor:
    return x if y is None else x * y.view(-1, 1, 1, 1)


def test_labels_and_inputs_of_further_models_count(tmp_path: Path) -> None:
    model, y = network(0), torch.arange(80.0)

    def batches(x: Tensor, y: Tensor) -> list[tuple[Tensor, ...]]:
        return list(zip(x.split(16), y.split(16), strict=True))

    def run(folder: str, data: Any, **options: Any) -> SimilarityResult:
        return compare({"a": model, "b": network(1)}, data, resume=tmp_path / folder, **options)

    run("labels", batches(images(80), y), inputs=_scaled)
    other = torch.cat([y[:40], y[40:] + 1])
    with pytest.raises(ValueError, match=r"data: .* other samples, .* from batch 2 on"):
        run("labels", batches(images(80), other), inputs=_scaled)
    run("plain", batches(images(80), y))
    run("plain", batches(images(80), other))  # nothing rests on them

    def each(x: Tensor) -> dict[str, Any]:
        return {"a": list(images(80).split(16)), "b": list(x.split(16))}

    run("each", each(images(80)))
    changed = images(80)
    changed[70] += 1
    with pytest.raises(ValueError, match=r"data: .* other samples, .* from batch 4 on"):
        run("each", each(changed))


def test_what_cannot_go_on(tmp_path: Path) -> None:
    data, model = images(80), network(0)
    recording = record(model, data, tmp_path / "r", batch_size=16)
    for models in ([recording], [recording, model]):
        with pytest.raises(ValueError, match="resume: expected None with recordings"):
            compare(models, data, resume=tmp_path / "sums", batch_size=16)
    with pytest.raises(ValueError, match="cuda_graph: expected False with resume"):
        compare(model, data, resume=tmp_path / "sums", cuda_graph=True)
    sparse = [batch.flatten(1).to_sparse() for batch in data.split(16)]
    with pytest.raises(ValueError, match="resume: expected inputs by which samples are known"):
        compare(nn.Linear(36, 3), sparse, resume=tmp_path / "sums")


@pytest.mark.parametrize(
    "damage", [lambda old: old[:100], lambda old: b"", lambda old: old[:-8] + b"\xff" * 8]
)
def test_a_damaged_file(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    def run() -> SimilarityResult:
        return compare(network(0), images(80), batch_size=16, resume=tmp_path)

    want = run()
    (file,) = tmp_path.glob("sums*")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    if damage(whole)[:-8] != whole[:-8]:
        with pytest.raises(ValueError, match="sums-0-of-1"):
            run()
    file.write_bytes(whole)
    same(want, run())


_SHARED = """
import os, signal
from python_tests.support.shared_comparisons import *

class Dies(Stops):
    def forward(self, x):
        if os.path.exists(f"{folder}/die") and rank == size - 1 and self.passes == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)

def run(**more):
    model = Dies(network(0))
    options = {"batch_size": 16, "maps": lambda x: x.flatten(1), **more}
    models = {"a": model, "b": network(1)}
    return model, compare(models, images(16 * 24), process_group=dist.group.WORLD, **options)

model, result = run(resume=f"{folder}/sums", every=2)
result.save(f"{folder}/{rank}.safetensors")
run()[1].save(f"{folder}/{rank}-whole.safetensors")
print("passes", model.passes)
"""


@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this torch has no gloo back end",
)
def test_after_a_killed_process_the_next_start_goes_on(tmp_path: Path) -> None:
    (tmp_path / "die").touch()
    first, second = launch(_SHARED, 2, tmp_path, timeout=100)
    assert second.code == -9
    assert first.code == 1
    assert "one was killed" in first.output
    assert (tmp_path / "sums" / "sums-1-of-2.safetensors").exists()
    (tmp_path / "die").unlink()
    # As many as before, or an error that says so; nothing is lost by it.
    for code, output in launch(_SHARED, 3, tmp_path):
        assert code == 1
        assert "sums of 2 processes, got 3" in output, output
    for rank, (code, output) in enumerate(launch(_SHARED, 2, tmp_path)):
        assert code == 0, output
        # Of twelve; the first had ended with an error, the killed one had run five, four written.
        passes = int(output.split("passes ")[1])
        assert passes == 9 if rank else passes < 12, output
        found, want = (
            SimilarityResult.load(tmp_path / f"{rank}{which}.safetensors")
            for which in ("", "-whole")
        )
        np.testing.assert_array_equal(found.value, want.value)
        np.testing.assert_array_equal(found.standard_error, want.standard_error)
        assert found.order_digest == want.order_digest
