"""What a measure is: its computations, its properties, and the register of all of them."""

from __future__ import annotations

import dataclasses
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor

from repsim_fast._core.names import MEASURES
from repsim_fast._core.precision import full_precision
from repsim_fast._core.suggestions import did_you_mean
from repsim_fast.ops import Precision
from repsim_fast.similarity.base.accumulator import Accumulator
from repsim_fast.similarity.base.pairs import Pairs
from repsim_fast.similarity.base.prepared import Prepared, UndefinedError, prepare

Kind = Literal["similarity", "distance"]
Invariance = Literal["permutation", "rotation", "scale", "translation", "linear"]

# What may be done to the features of one side, each set containing the ones before it where that
# follows: every rotation group contains permutations, invertible linear maps contain rotations.
INVARIANCES: dict[Invariance, str] = {
    "permutation": "reordering of features",
    "rotation": "orthogonal maps of the features",
    "scale": "multiplication by one positive number",
    "translation": "adding a vector to every sample",
    "linear": "invertible linear maps of the features",
}


@dataclass(frozen=True)
class Info:
    """Properties of a measure; the documentation's table is made from them.

    Attributes:
        name: Name of the function and of the measure in grids and comparisons.
        kind: Whether larger means more alike ("similarity") or less ("distance").
        formula: Definition, X and Y centred features unless stated.
        low, high: Range; for unbiased estimates that of the quantity estimated.
        invariant_to: What leaves the value unchanged, see `INVARIANCES`.
        differentiable: "yes", "no" or the condition.
        cost: Operations for each of L layers, then for each pair, n samples, p features.
        source: Where it was defined.
        symmetric: Whether the order of the two does not matter.
        of_itself: Value of a representation with itself; None where it depends.
        metric: Whether it is a metric between classes of representations it cannot tell apart.
        title: What figures call it; by default the name without underscores.
    """

    name: str
    kind: Kind
    formula: str
    low: float
    high: float
    invariant_to: tuple[Invariance, ...]
    differentiable: str
    cost: str
    source: str
    symmetric: bool = True
    of_itself: float | None = None
    metric: bool = False
    title: str = ""

    def __post_init__(self) -> None:
        if not self.title:
            object.__setattr__(self, "title", self.name.replace("_", " "))


View = TypeVar("View")


@dataclass(frozen=True)
class Measure(ABC, Generic[View]):
    """A measure with its options: cost per representation in `view`, per pair in `pairs`.

    Subclasses are frozen dataclasses whose fields are the options, checked when made. Most derive
    from `streaming.samples.SampleMeasure`, which adds `accumulator`.
    """

    info: ClassVar[Info]
    min_samples: ClassVar[int] = 3

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keeps autocast out of both computations, wherever they are asked for."""
        super().__init_subclass__(**kwargs)
        for name in ("view", "pairs"):
            if name in vars(cls):
                setattr(cls, name, full_precision()(vars(cls)[name]))

    @property
    def has_gradient(self) -> bool:
        """Whether the value has a gradient with respect to features anywhere."""
        return self.info.differentiable != "no"

    @abstractmethod
    def view(self, x: Prepared) -> View:
        """All that pairs need of one representation. Raises UndefinedError where it has none."""

    @abstractmethod
    def pairs(self, left: Sequence[View], right: Sequence[View], pairs: Pairs) -> Tensor:
        """Values (len(pairs),). ``left is right`` for pairs within one set."""

    @property
    def known_chance(self) -> float | None:
        """Mean value over all orders of the samples of one side, where no data change it."""
        return None

    def caution(self, left: Sequence[View], right: Sequence[View], pairs: Pairs) -> str:
        """What one must know to read the values of these pairs; for most measures nothing."""
        return ""

    @abstractmethod
    def accumulator(
        self,
        *,
        precision: Precision | None = None,
        jackknife: int | None = None,
        permutations: int | None = None,
        seed: int = 0,
        capacity: int = 0,
    ) -> Accumulator:
        """The measure for layers of whole models, whose features come batch by batch.

        Args:
            precision: Precision of products of features, as in `ops.centered_gram`.
            jackknife: Groups of samples to leave out in turn for standard errors; 0 for none, None
                for what the measure does by itself.
            permutations: Random orders of samples that give the chance level; 0 for none, None for
                what the measure does by itself.
            seed: Seed of the permutations.
            capacity: Expected number of layers.

        Raises:
            ValueError: An option that the measure does not have, or out of range.
        """

    def __call__(self, x: Tensor | Prepared, y: Tensor | Prepared) -> Tensor:
        """Value of one pair, a scalar."""
        both = [prepare(x, name="x"), prepare(y, name="y")]
        warn_of_no_gradient(self, both)
        first, second = comparable(both, self.min_samples)
        ours, theirs = [self.view(first)], [self.view(second)]
        warn_of_caution(self, ours, theirs, stacklevel=4)
        value = self.pairs(ours, theirs, [(0, 0)])[0]
        return value.to(torch.promote_types(first.dtype, second.dtype))


def warn_of_no_gradient(measure: Measure[Any], representations: Sequence[Prepared]) -> None:
    """Warns where a gradient is expected of a measure that has none."""
    if measure.has_gradient or not torch.is_grad_enabled():
        return
    if any(x.features.requires_grad for x in representations):
        warnings.warn(
            f"{measure!r} has no gradient, and its value none of the features that require one; "
            "detach them or use torch.no_grad() where none is wanted",
            stacklevel=3,
        )


def warn_of_caution(
    measure: Measure[View], left: Sequence[View], right: Sequence[View], *, stacklevel: int
) -> None:
    """Warns once of what must be known of the values of all pairs."""
    if text := caution_of_all(measure, left, right):
        warnings.warn(text, stacklevel=stacklevel)


def caution_of_all(measure: Measure[View], left: Sequence[View], right: Sequence[View]) -> str:
    """What must be known of the values of all pairs, with the name of the measure."""
    pairs = [(i, j) for i in range(len(left)) for j in range(len(right))]
    text = measure.caution(left, right, pairs)
    return f"{measure.info.name}: {text}" if text else ""


def comparable(representations: Sequence[Prepared], least: int) -> list[Prepared]:
    """The representations in one dtype, after checking that their samples can be the same.

    float64 if one of them is, or if features are so small or large that their squares leave the
    range of float32.

    Raises:
        ValueError: Different numbers of samples, or fewer than ``least``; NaN or Inf.
        RuntimeError: Different devices.
    """
    check_samples(representations, least)
    if need_float64(representations):
        return [x.double() for x in representations]
    return list(representations)


def need_float64(representations: Sequence[Prepared]) -> bool:
    """Whether representations can only be compared in float64."""
    mixed = len({x.features.dtype for x in representations}) > 1
    return mixed or any([x.needs_float64 for x in representations])  # not lazily: all are checked


def check_samples(representations: Sequence[Prepared], least: int) -> None:
    """Raises ValueError unless all have the same samples, enough of them, on one device."""
    first = representations[0]
    for other in representations[1:]:
        if other.n_samples != first.n_samples:
            raise ValueError(
                f"{other.name}: expected the same samples as {first.name}, got "
                f"{other.n_samples} rows against {first.n_samples} rows of {first.name}"
            )
        if other.features.device != first.features.device:
            raise RuntimeError(
                f"{other.name}: expected the device of {first.name}, {first.features.device}, "
                f"got {other.features.device}"
            )
    if first.n_samples < least:
        raise ValueError(f"{first.name}: expected at least {least} samples, got {first.n_samples}")


def check_not_saturated(x: Prepared, k: int, measure: str) -> None:
    """Raises UndefinedError where k directions are all there are among n centred samples."""
    if k >= x.n_samples - 1:
        raise UndefinedError(
            f"{x.name}: {measure} needs more samples than independent features, got {k} "
            f"independent features of {x.n_samples} samples; every such representation is "
            "equivalent to every other. Use more samples, svcca with fewer components, or a "
            "measure that is not invariant to linear maps (cka, procrustes_similarity)"
        )


def check_range(argument: str, value: float, low: float, high: float, *, open_low: bool) -> None:
    """Raises TypeError or ValueError unless low <= value <= high, or low < value with ``open_low``,
    and finite."""
    if not isinstance(value, Real):
        raise TypeError(f"{argument}: expected a number, got {type(value).__name__}")
    inside = (low < value if open_low else low <= value) and value <= high and value < math.inf
    if not inside:  # also for NaN
        bracket = "(" if open_low else "["
        end = ")" if math.isinf(high) else "]"
        raise ValueError(
            f"{argument}: expected a number in {bracket}{low:g}, {high:g}{end}, got {value!r}"
        )


def check_count(argument: str, value: int, low: int, high: int, why: str = "") -> None:
    """Raises TypeError or ValueError unless ``value`` is an integer from low to high."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{argument}: expected an int, got {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{argument}: expected {low} to {high}{why}, got {value}")


MeasureClass = TypeVar("MeasureClass", bound="type[Measure[Any]]")

_REGISTER: dict[str, type[Measure[Any]]] = {}


def register(measure: MeasureClass) -> MeasureClass:
    """Class decorator that makes a measure known by its name, which `_core.names` lists."""
    if measure.info.name not in MEASURES:
        raise RuntimeError(f"{measure.info.name}: expected among MEASURES of _core/names.py")
    _REGISTER[measure.info.name] = measure
    return measure


def measure_names() -> tuple[str, ...]:
    """Names of all measures, similarities first, each kind in alphabetical order."""
    return MEASURES


def measure_info(name: str) -> Info:
    """Properties of a measure.

    Raises:
        ValueError: There is none of that name; the message lists the names.
    """
    return _find(name).info


def get_measure(name: str, **options: Any) -> Measure[Any]:
    """A measure by its name, with options.

    Args:
        name: One of `measure_names`.
        **options: Keyword arguments of the function of that name.

    Raises:
        ValueError: There is no such measure or option, or a value is out of range.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import get_measure
        >>> svcca = get_measure("svcca", components=5)
        >>> value = svcca(torch.randn(50, 10), torch.randn(50, 20))
    """
    found = _find(name)
    known = [field.name for field in options_of(found)]
    for option in options:
        if option not in known:
            raise ValueError(f"{name}: expected options among {known or 'none'}, got {option!r}")
    return found(**options)


def options_of(
    measure: Measure[Any] | type[Measure[Any]],
) -> list[dataclasses.Field[Any]]:
    """The options of a measure, as fields with names and defaults."""
    return [field for field in dataclasses.fields(measure) if field.init]


def options(measure: Measure[Any]) -> dict[str, Any]:
    """The options of a measure and their values."""
    return {field.name: getattr(measure, field.name) for field in options_of(measure)}


def as_measure(measure: str | Measure[Any], given: dict[str, Any]) -> Measure[Any]:
    """A measure from its name and options, or one that already is."""
    if isinstance(measure, str):
        return get_measure(measure, **given)
    if not isinstance(measure, Measure):
        raise TypeError(f"measure: expected a name or a Measure, got {type(measure).__name__}")
    if given:
        raise ValueError(f"options: {measure!r} has its own, got {sorted(given)}")
    return measure


def _find(name: str) -> type[Measure[Any]]:
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    found = {known.lower(): measure for known, measure in _REGISTER.items()}.get(plain)
    if found is None:
        names = measure_names()
        meant = f";{near}" if (near := did_you_mean(name, names)) else ""
        raise ValueError(f"measure: expected one of {', '.join(names)}; got {name!r}{meant}")
    return found


def measures_table() -> str:
    """All measures and their properties as a Markdown table, from their own metadata."""
    lines = [
        "| measure | kind | definition | range | invariant to | symmetric | differentiable "
        "| cost: layer; pair | source |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in measure_names():
        info = _REGISTER[name].info
        options = ", ".join(
            f"{field.name}={field.default!r}" for field in options_of(_REGISTER[name])
        )
        cells = [
            f"`{name}`" + (f"<br>{options}" if options else ""),
            "metric" if info.metric else info.kind,
            info.formula,
            f"[{_bound(info.low)}, {_bound(info.high)}{')' if math.isinf(info.high) else ']'}",
            ", ".join(info.invariant_to) or "nothing",
            "yes" if info.symmetric else "no",
            info.differentiable,
            info.cost,
            info.source,
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _bound(value: float) -> str:
    return {0.0: "0", 1.0: "1", math.inf: "∞", math.pi / 2: "π/2"}.get(value, f"{value:g}")
