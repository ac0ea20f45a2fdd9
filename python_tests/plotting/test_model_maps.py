"""Names of models in a plane."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation

from repsim_fast.plotting.model_maps import Tree, plot_models


def names_drawn(points: list[list[float]]) -> tuple[Axes, list[Annotation]]:
    count = len(points)
    figure = plot_models(
        np.eye(count),
        [f"network {i}" for i in range(count)],
        Tree([], [], range(count)),
        np.array(points),
        label="",
        distance="",
        shown=1.0,
    )
    FigureCanvasAgg(figure).draw()
    plane = figure.axes[-1]
    return plane, [text for text in plane.texts if isinstance(text, Annotation)]


@pytest.mark.parametrize("apart", [0.0, 0.01, 0.05])
def test_names_of_models_that_lie_together_can_be_read(apart: float) -> None:
    near = [[0.0, 0.0], [apart, 0.0], [0.0, apart], [apart, apart]]
    _, texts = names_drawn([*near, [3.0, 0.0], [0.0, 3.0]])
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_a_name_stands_by_its_model() -> None:
    plane, texts = names_drawn([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    for text in texts:
        place = plane.transData.transform(text.xy)
        box = text.get_window_extent()
        nearest = np.clip(place, box.min, box.max)
        assert np.linalg.norm(nearest - place) < 10
