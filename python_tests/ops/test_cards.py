"""Which cards a build runs on, and what operators and `info` say of the others."""

from __future__ import annotations

import pytest
import torch

from repsim_fast import ops
from repsim_fast.cli import info
from repsim_fast.ops import cards, extension

ASKED_ANEW = cards.card_missing.__wrapped__
DEFAULT = "8.0;9.0;10.0;12.0+PTX"


@pytest.mark.parametrize(
    ("architectures", "runs", "does_not"),
    [
        (DEFAULT, [(8, 0), (8, 6), (8, 9), (9, 0), (10, 3), (12, 0), (12, 1)], [(7, 5), (11, 0)]),
        (DEFAULT, [(13, 0)], [(7, 0)]),
        ("9.0a", [(9, 0)], [(8, 9), (10, 0)]),
        ("9.0a+PTX", [(9, 0)], [(10, 0)]),
        ("8.6", [(8, 6), (8, 9)], [(8, 0), (9, 0)]),
        ("7.5+PTX", [(7, 5), (8, 0), (12, 0)], [(7, 0)]),
        ("", [], [(9, 0)]),
    ],
)
def test_runs_on(
    architectures: str, runs: list[tuple[int, int]], does_not: list[tuple[int, int]]
) -> None:
    for capability in (*runs, *does_not):
        assert cards.runs_on(architectures, capability) == (capability in runs), capability


def put_in(monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int]) -> None:
    """A card that is not there, and a build for the default ones."""
    monkeypatch.setattr(extension, "cuda_missing", "")
    monkeypatch.setattr(cards._C, "build_info", lambda: {"cuda_architectures": DEFAULT})
    monkeypatch.setattr(cards, "card_missing", ASKED_ANEW)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)


CALLS = {
    "centered_gram": lambda x: ops.centered_gram(x),
    "batched_svdvals": lambda x: ops.batched_svdvals(x[None]),
    "pgd_linf_step": lambda x: ops.pgd_linf_step(x, x, x, step_size=0.1, eps=0.1),
    "random_start": lambda x: ops.random_start(x, norm="l2", eps=0.1, seed=0),
}


@pytest.mark.parametrize("operator", CALLS)
def test_operators_name_card_need_and_cure(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch._subclasses.FakeTensorMode():
        x = torch.empty(8, 3, device="cuda")
        put_in(monkeypatch, "Tesla T4", (7, 5))
        message = (
            r"is on cuda:0, but Tesla T4 has compute capability 7.5 and this build has CUDA "
            r"kernels for 8.0, 9.0, 10.0, 12.0\+PTX: TORCH_CUDA_ARCH_LIST=7.5 FORCE_CUDA=1 pip"
        )
        with pytest.raises(RuntimeError, match=message):
            CALLS[operator](x)
        put_in(monkeypatch, "Tesla V100", (7, 0))
        with pytest.raises(RuntimeError, match=r"need 7\.5 or later: move the tensors to the CPU"):
            CALLS[operator](x)
        put_in(monkeypatch, "NVIDIA L4", (8, 9))
        CALLS[operator](x)


def test_info_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    build = {"cuda_missing": ""}
    put_in(monkeypatch, "NVIDIA Thor", (11, 0))
    assert "NVIDIA Thor has compute capability 11.0" in info._cuda_kernels(build)
    put_in(monkeypatch, "NVIDIA H200", (9, 0))
    assert info._cuda_kernels(build) == "ready"
