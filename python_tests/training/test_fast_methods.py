"""Training methods whose inner loop runs the faster form of the model."""

from __future__ import annotations

import pytest
import torch

from repsim_fast import models
from repsim_fast.attacks import Execution
from repsim_fast.training import methods, train
from repsim_fast.training.methods import TrainingBatch


@pytest.mark.parametrize("name", ["pgd", "trades", "mart"])
def test_same_examples_also_after_a_step(name: str) -> None:
    torch.set_num_threads(1)
    model = models.build("resnet-8", num_classes=5, seed=0).double().train()
    images, labels = torch.rand(8, 3, 16, 16, dtype=torch.float64), torch.arange(8) % 5
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        exact, fast = (
            methods.build(name, execution=execution).perturb(
                model, TrainingBatch(images, labels, torch.Generator().manual_seed(0))
            )
            for execution in ("exact", "fast")
        )
        assert torch.allclose(exact, fast, rtol=0, atol=1e-12)
        assert (exact != images).any()
        torch.nn.functional.cross_entropy(model(exact), labels).backward()
        optimizer.step()


def test_trains_and_leaves_no_trace_in_the_weights_file() -> None:
    torch.set_num_threads(1)
    model = models.build("resnet-8", num_classes=5, seed=0)
    names = set(model.state_dict())
    images, labels = torch.rand(16, 3, 16, 16), torch.arange(16) % 5
    options = {"execution": "fast", "steps": 2}
    train(model, (images, labels), method="pgd", method_options=options, epochs=1, progress=False)
    assert set(model.state_dict()) == names


def test_no_graph_for_trades() -> None:
    with pytest.raises(ValueError, match="no cuda_graph for trades"):
        methods.trades(execution=Execution(cuda_graph=True))
