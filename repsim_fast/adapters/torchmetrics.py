"""A metric of torchmetrics: CKA of all pairs of layers, batch by batch, over all processes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from repsim_fast._core.extras import extra
from repsim_fast.capture.features import flatten
from repsim_fast.comparison.result import SimilarityResult
from repsim_fast.ops import centered_gram
from repsim_fast.similarity import MinibatchCKA
from repsim_fast.similarity.base.estimator import CENTERING, Estimator

__all__ = ["LayerCKA"]

_Metric: Any = extra("torchmetrics", of="torchmetrics", purpose="adapters.torchmetrics").Metric

# Batches are dealt out to so many groups, whose sums all states have, also those of other
# processes: with g groups a jackknife's standard error is uncertain by about 1/sqrt(2g).
_GROUPS = 64
# Of a saved state: rows of numbers do not tell which layers they are of, or in what order.
_ABOUT = "about"


class LayerCKA(_Metric):
    """Linear CKA between all pairs of layers, from minibatches, with standard errors.

    States are sums, so that ``merge_state`` and synchronisation over processes give the value over
    all batches, up to rounding. Features are told by name, those of several models together. A
    ``state_dict`` knows its layers and estimator, and loads into a metric of the same alone; of
    ``metric_state``, which are numbers only, the caller knows.

    Args:
        layers: Names of the layers, of which every update brings each.
        estimator: "unbiased" (each batch at least 4 samples) or "biased".
        **options: Of ``torchmetrics.Metric``.

    Example:
        >>> import torch
        >>> from repsim_fast.adapters.torchmetrics import LayerCKA  # doctest: +SKIP
        >>> metric = LayerCKA(["first", "second"])  # doctest: +SKIP
        >>> for x in torch.randn(8, 32, 5):  # doctest: +SKIP
        ...     metric.update({"first": x, "second": x.relu()})
        >>> metric.compute().shape  # doctest: +SKIP
        torch.Size([2, 2])
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = True  # which group a batch is of depends on those before

    hsic: Tensor  # (groups, L, L) float64, sums of n HSIC
    samples: Tensor  # (groups,)
    batches: Tensor  # (groups,)

    def __init__(
        self, layers: Sequence[str], *, estimator: Estimator = "unbiased", **options: Any
    ) -> None:
        super().__init__(**options)
        self.layers = tuple(layers)
        if not self.layers or len(set(self.layers)) != len(self.layers) or isinstance(layers, str):
            raise ValueError(f"layers: expected different names, at least one, got {layers!r}")
        self.estimator = MinibatchCKA(estimator=estimator).estimator  # which checks it
        size = len(self.layers)
        zeros = torch.zeros(_GROUPS, size, size, dtype=torch.float64)
        self.add_state("hsic", zeros, dist_reduce_fx="sum")
        for name in ("samples", "batches"):
            counts = torch.zeros(_GROUPS, dtype=torch.int64)
            self.add_state(name, counts, dist_reduce_fx="sum")

    def update(self, features: Mapping[str, Tensor]) -> None:
        """Add a batch: features (n, ...) of each layer, of the same n samples.

        Raises:
            TypeError: No mapping of floating-point tensors.
            ValueError: Other layers, different numbers of samples, too few, NaN or Inf.
        """
        if not isinstance(features, Mapping):
            raise TypeError(f"features: expected a mapping by layer, got {type(features).__name__}")
        if features.keys() != set(self.layers):
            raise ValueError(
                f"features: expected those of {sorted(self.layers)}, got {sorted(features)}"
            )
        for name, x in features.items():
            if not isinstance(x, Tensor) or x.ndim == 0:
                got = "a single number" if isinstance(x, Tensor) else type(x).__name__
                raise TypeError(f"features[{name!r}]: expected a tensor (n, ...), got {got}")
        sizes = {name: len(x) for name, x in features.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"features: expected the same samples of all layers, got {sizes}")
        n = next(iter(sizes.values()))
        grams = [
            centered_gram(
                flatten(features[name].detach()),
                centering=CENTERING[self.estimator],
                packed=True,
            )
            for name in self.layers
        ]
        batch = MinibatchCKA(estimator=self.estimator)
        batch.update(torch.stack(grams), n=n)
        group = int(self.batches.sum()) % _GROUPS
        self.hsic[group] += batch.compute().hsic[0].to(self.hsic.device)
        self.samples[group] += n
        self.batches[group] += 1

    def merge_state(self, incoming_state: LayerCKA | Mapping[str, Tensor]) -> None:
        """Add the batches of another metric of the same layers, or of its ``metric_state``.

        Raises:
            ValueError: Of other layers, another estimator or another kind.
        """
        state: Any = incoming_state
        if isinstance(incoming_state, LayerCKA):
            for name in ("layers", "estimator"):
                ours, theirs = getattr(self, name), getattr(incoming_state, name)
                if ours != theirs:
                    raise ValueError(f"incoming_state: expected {name} {ours!r}, got {theirs!r}")
            state = incoming_state.metric_state
        if not isinstance(state, Mapping) or state.keys() != self.metric_state.keys():
            raise ValueError(
                "incoming_state: expected a LayerCKA or its metric_state, got "
                f"{type(incoming_state).__name__}"
            )
        if state["hsic"].shape != self.hsic.shape:
            raise ValueError(
                f"incoming_state: expected {len(self.layers)} layers, got {len(state['hsic'][0])}"
            )
        for name, value in state.items():
            setattr(self, name, getattr(self, name) + value.to(self.hsic.device))
        self._states_are_others()

    def state_dict(
        self, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """States that are persistent, and with them what they are of.

        Args:
            destination, prefix, keep_vars: As ``torch.nn.Module``.
        """
        held: dict[str, Any] = super().state_dict(
            destination=destination, prefix=prefix, keep_vars=keep_vars
        )
        if any(self._persistent.values()):
            held[prefix + _ABOUT] = torch.tensor([*self._about().encode()], dtype=torch.uint8)
        return held

    def _about(self) -> str:
        return json.dumps({"estimator": self.estimator, "layers": self.layers})

    def _load_from_state_dict(self, state: Any, prefix: str, *details: Any) -> None:
        about = state.pop(prefix + _ABOUT, None)
        if about is not None and (got := bytes(about.tolist()).decode()) != self._about():
            raise ValueError(f"state_dict: expected one of {self._about()}, got {got}")
        wanted = {name: getattr(self, name).shape for name in self.metric_state}
        for name, shape in wanted.items():
            value = state.get(prefix + name)
            if value is not None and value.shape != shape:
                raise ValueError(
                    f"state_dict: expected {name} {tuple(shape)} of {len(self.layers)} layers, "
                    f"got {tuple(value.shape)}"
                )
        super()._load_from_state_dict(state, prefix, *details)
        for name in wanted:  # which updates write to, as may those of others that loaded the same
            setattr(self, name, getattr(self, name).clone())
        self._states_are_others()

    def _states_are_others(self) -> None:
        """Tell the base class, which keeps what it computed until the next update."""
        self._computed = None
        self._update_count = int(self.batches.sum())

    def compute(self) -> Tensor:
        """CKA (L, L) of all pairs, float64.

        Raises:
            RuntimeError: No batch was added.
        """
        return self._estimate().compute().value

    def result(self, model: str = "model") -> SimilarityResult:
        """All of it, with standard errors and replicates, to be drawn, saved or looked at.

        It is of what this process has seen, or all of them inside ``sync_context()``.

        Args:
            model: What the layers are said to be of.

        Raises:
            RuntimeError: No batch was added.
        """
        found = self._estimate().compute()
        return SimilarityResult(
            models=(model,),
            layers=(self.layers,),
            value=found.value.cpu().numpy(),
            standard_error=found.standard_error.cpu().numpy(),
            measure="cka",
            estimator=self.estimator,
            n_samples=found.n_samples,
            n_batches=found.n_batches,
            hsic=found.hsic.cpu().numpy(),
            group_samples=found.group_samples,
        )

    def plot(self, val: Any = None, ax: Any = None) -> tuple[Any, Any]:
        """Heat map of the values so far: the figure and its axes.

        Raises:
            ValueError: ``val`` or ``ax``, for which there is no use here.
        """
        if val is not None or ax is not None:
            raise ValueError("val, ax: expected None, the heat map is of what was added")
        figure = self.result().plot()
        return figure, figure.axes

    def _estimate(self) -> MinibatchCKA:
        held = self.samples > 0
        if not bool(held.any()):
            raise RuntimeError("LayerCKA: no batch has been added; call update() first")
        return MinibatchCKA.from_groups(
            self.hsic[held],
            self.samples[held].tolist(),
            n_batches=int(self.batches.sum()),
            estimator=self.estimator,
        )
