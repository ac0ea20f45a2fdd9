"""Published recipes: each is a training that `train` accepts."""

from __future__ import annotations

import pytest
import torch

from repsim_fast import models
from repsim_fast.training import methods, recipes, train


@pytest.mark.parametrize("name", recipes.available())
def test_settings_are_those_of_train(name: str) -> None:
    recipe = recipes.get(name)
    settings = dict(recipe.settings)
    assert recipe.source
    built = methods.build(settings["method"], **settings.get("method_options", {}))
    assert built.eps == recipe.eps
    models.build("wrn-10-1" if recipe.model.startswith("wrn") else recipe.model, num_classes=10)
    network = models.build("resnet-8", num_classes=3, seed=0)
    images, labels = torch.rand(8, 3, 8, 8), torch.arange(8) % 3
    history = train(network, (images, labels), **(settings | {"epochs": 1}), progress=False)
    assert len(history) == 1


def test_the_rate_of_trades_falls_before_its_75th_epoch() -> None:
    settings = recipes.get("trades-zhang2019").settings
    schedule = settings["schedule"]
    assert settings["epochs"] == 76
    assert [schedule(epoch / 76) for epoch in (0, 73, 74, 75)] == [1, 1, 0.1, 0.1]


def test_unknown() -> None:
    with pytest.raises(ValueError, match="preset must be one of pgd-rice2020"):
        recipes.get("magic")
