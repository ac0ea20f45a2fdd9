"""The labelled result of a comparison: look at it, plot it, save it, load it."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch

from repsim_fast._core.checks import check_whole
from repsim_fast._core.extras import extra
from repsim_fast._core.suggestions import among
from repsim_fast.analysis.estimates import Interval, student_interval
from repsim_fast.comparison import diagnosis, storage
from repsim_fast.comparison.csv_lines import of_names, of_numbers, write_lines
from repsim_fast.comparison.grid import (
    Array,
    Grid,
    Matrix,
    Number,
    error_of,
    interval_of,
    is_distance,
    plot_grids,
)
from repsim_fast.comparison.models_matrix import ModelsMatrix, Summary, models_matrix
from repsim_fast.comparison.overview import MODELS_OF_A_SHEET, overview_in_words, plot_overview
from repsim_fast.comparison.plan import Models
from repsim_fast.comparison.recorded import compare_recordings, opened
from repsim_fast.comparison.recording import Recording
from repsim_fast.data.fingerprint import merged_samples, share_samples
from repsim_fast.ops import Precision
from repsim_fast.similarity import Measure, get_measure
from repsim_fast.similarity.base.estimator import ESTIMATORS, Estimator
from repsim_fast.similarity.base.measure import options
from repsim_fast.similarity.streaming.minibatch import MinibatchCKA, without_each_group

if TYPE_CHECKING:
    import pandas as pd
    import xarray
    from matplotlib.figure import Figure

__all__ = ["SimilarityResult", "load"]

Indices: TypeAlias = npt.NDArray[np.int64]

# Settings that change values: results that differ in them are not of one comparison.
_OF_VALUES = (
    "maps", "mask", "channels", "calls", "autocast", "precision", "inputs", "weights",
)  # fmt: skip
# By which values of recordings may be off those of models that were run: by 16 bits and low
# precision.
_SAME_VALUES = 0.02
_UNKNOWN_SAMPLES = (
    "which samples a result is over is not known, as of one from an older file: nothing tells "
    "whether those of the other are the same"
)


@dataclass(frozen=True, eq=False, repr=False)
class SimilarityResult:
    """Similarity of every layer of every model with every other.

    Args:
        models: Names of the models.
        layers: Names of each model's layers, in order of execution.
        value: (L, L) float64 over all layers, model after model; NaN where a layer is constant.
        standard_error: (L, L) float64; NaN where it is not known, as with a single batch.
        measure: What the values are.
        estimator: How they were estimated.
        n_samples: Samples used, over all passes.
        n_batches: Batches used.
        settings: Arguments of the comparison, as plain data; and of CKA, as "products", what the
            Gram products were taken in: "float64", "float32", "tf32", "bfloat16", or "int16" and
            "float32" for bfloat16 on a CPU that has no tiles (see ``ops.centered_gram``).
        versions: Versions of the software.
        seconds: Wall time in total, of transformed inputs, forward passes (with what is computed
            inside them) and the combination of pairs. A GPU is not waited for after its forward
            passes: theirs is then the time to queue them, and that of pairs has the rest.
        hsic: (G, L, L), of minibatch CKA the sums Σ n HSIC over each of at most 64 groups of
            batches, from which replicates follow and with which results can be merged. float64, or
            float32 where each group is one batch of float32 products, which have no more digits.
        left_out: (G, L, L) float64, of other measures the values without each of G groups of
            samples, where a jackknife was asked for.
        group_samples: Samples of each group.
        no_error: Why there are no standard errors, and what gives them; empty where there are.
        undefined: Why layers have no value, by model and layer.
        chance: (L, L) float64, the chance level: mean value of samples that do not correspond; None
            where it is not known.
        chance_note: How the chance level was found, or why it is not known and what gives it.
        notes: What one must know to read the values; ``compare`` has warned of it.
        order_digest: The same for the same samples in the same order only; empty where not known.
        sample_digests: Some of the samples, by which those of two results are seen to be common.

    Raises:
        ValueError: Names and matrices that do not fit together.
    """

    models: tuple[str, ...]
    layers: tuple[tuple[str, ...], ...]
    value: Matrix
    standard_error: Matrix
    measure: str
    estimator: str
    n_samples: int
    n_batches: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    hsic: Array | None = None
    left_out: Array | None = None
    group_samples: tuple[int, ...] = ()
    no_error: str = ""
    undefined: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    chance: Matrix | None = None
    chance_note: str = ""
    notes: tuple[str, ...] = ()
    order_digest: str = ""
    sample_digests: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        size = sum(map(len, self.layers))
        if len(self.layers) != len(self.models) or len(set(self.models)) != len(self.models):
            raise ValueError(
                f"models must be different names, one for each of {len(self.layers)} lists of "
                f"layers, got {self.models}"
            )
        for name in ("value", "standard_error", "chance"):
            array = getattr(self, name)
            if array is not None and array.shape != (size, size):
                raise ValueError(
                    f"{name} must have shape ({size}, {size}), one row for each layer, "
                    f"got {array.shape}"
                )
        for name in ("hsic", "left_out"):
            array = getattr(self, name)
            if array is not None and array.shape != (len(self.group_samples), size, size):
                raise ValueError(
                    f"{name} must have shape ({len(self.group_samples)}, {size}, {size}), one "
                    f"matrix for each group, got {array.shape}"
                )

    def __repr__(self) -> str:
        models = ", ".join(
            f"{model} ({len(layers)} layers)"
            for model, layers in zip(self.models, self.layers, strict=True)
        )
        lines = [
            f"SimilarityResult: {self.measure}, {self.estimator}, {self.n_samples} samples in "
            f"{self.n_batches} batches",
            f"  models: {models}",
        ]
        lines += [f"  {text}" for text in (*overview_in_words(self), *self.about_values())]
        of_models = ".models_matrix()  " if len(self.models) > MODELS_OF_A_SHEET else ""
        lines.append(f"  .plot()  [a, b]  {of_models}.report(path)  .to_dataframe()  .save(path)")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """For notebooks: text and picture."""
        from repsim_fast.plotting.style import to_html

        return to_html(repr(self), self.plot())

    def __getitem__(self, models: str | int | tuple[str | int, str | int]) -> Grid:
        """``result[a, b]`` is ``result.between(a, b)``, ``result[a]`` model a with itself."""
        if not isinstance(models, tuple):
            return self.between(models, models)
        if len(models) != 2:
            raise ValueError(
                "models: expected result[a, b], two models by name or number, and of their layers "
                f"result[a, b][row, column], got {models!r}"
            )
        return self.between(*models)

    def about_values(self) -> list[str]:
        """What a reader must know of chance levels and errors, and the notes, one text each."""
        if self.chance is None:
            chance = f"no chance level: {self.chance_note}"
        else:
            chance = f"chance level: {self.chance_note}"
        undefined = [f"{layer!r} of {model!r}" for model, layer in self.undefined_layers]
        named = ", ".join(undefined[:5]) + ", ..." * (len(undefined) > 5)
        return [
            *([chance] if self.chance_note else []),
            *([f"no standard errors: {self.no_error}"] if self.no_error else []),
            *([f"no value (NaN): {len(undefined)} layers, {named}"] if undefined else []),
            *(f"note: {note}" for note in self.notes),
        ]

    @property
    def undefined_layers(self) -> tuple[tuple[str, str], ...]:
        """(model, layer) of the layers without a value, such as those that do not vary."""
        pairs = zip(self.models, self.layers, strict=True)
        labels = [(model, layer) for model, layers in pairs for layer in layers]
        return tuple(labels[i] for i in np.flatnonzero(np.isnan(self.value.diagonal())))

    @property
    def replicates(self) -> Array | None:
        """(G, L, L) float64: the values with one of G groups of the batches left out in turn.

        Of measures that need all samples at once, a group of samples is left out. None where that
        is not known: with a single batch, or without ``jackknife``. Cells of layers without a value
        are NaN.
        """
        return self._without_each_group(slice(None), slice(None))

    def _without_each_group(self, rows: slice, columns: slice) -> Array | None:
        if self.hsic is None:
            return None if self.left_out is None else self.left_out[:, rows, columns]
        if len(self.hsic) < 2:
            return None
        values = without_each_group(torch.from_numpy(self.hsic), rows, columns).numpy()
        return np.where(np.isnan(self.value[rows, columns]), np.nan, values)

    def interval(self, level: float = 0.95, *, less_bias: bool = False) -> Interval:
        """Confidence interval of every cell, by Student's t; NaN where there is no error.

        Measured (docs/accuracy.md), 95 % intervals of unbiased CKA hold the population's value in
        93 to 96 % of data sets, with 4 to 32 batches of 8 samples and more. Other measures are off
        on average, the more the more features there are for the samples, and their intervals are
        about that average: unrelated layers' never hold 0. ``less_bias`` mends most of that where
        layers have something in common; see also ``similarity.calibrated``.

        Args:
            level: Confidence, in (0, 1).
            less_bias: About the value less what the jackknife finds it to be off on average, which
                supposes that this falls as one over the number of samples: true of values fitted
                or biased, not of those of a number of neighbours.

        Returns:
            Lower and upper limits, (L, L) each.

        Raises:
            ValueError: ``level`` outside of (0, 1).

        Example:
            >>> import torch
            >>> from repsim_fast import compare
            >>> a, b = torch.nn.Linear(9, 4), torch.nn.Sequential(torch.nn.Linear(9, 4))
            >>> low, high = compare(a, b, torch.randn(80, 9)).interval(0.95)
        """
        return interval_of(
            self.value, self.standard_error, self.replicates, level, less_bias=less_bias
        )

    def standard_error_of(
        self, function: Callable[..., Number], *others: SimilarityResult
    ) -> Number:
        """Jackknife standard error of a number that depends smoothly on the cells.

        Args:
            function: From a result (and the others) to a number or an array of them, such as the
                difference of the means of two grids.
            *others: Further results over the same batches, which err together with this one.

        Returns:
            As the function: a number or an array; NaN where there are no replicates.

        Raises:
            ValueError: Results over other batches, in another order, or merged otherwise.

        Warns:
            UserWarning: A result of an older file does not tell which samples it is over.

        Example:
            >>> import torch
            >>> from repsim_fast import compare
            >>> a, b = torch.nn.Linear(9, 4), torch.nn.Sequential(torch.nn.Linear(9, 4))
            >>> result = compare(a, b, torch.randn(64, 9), batch_size=8)
            >>> def more_alike(result):
            ...     return result.between(0, 1).mean() - result.between(1, 1).mean()
            >>> error = result.standard_error_of(more_alike)
        """
        results = (self, *others)
        for other in others:
            if other.group_samples != self.group_samples:
                raise ValueError(
                    "others: expected results over the same batches, in groups of "
                    f"{self.group_samples} samples, got {other.group_samples}"
                )
            if not (self.order_digest and other.order_digest):
                warnings.warn(_UNKNOWN_SAMPLES, stacklevel=2)
            elif other.order_digest != self.order_digest:
                raise ValueError(
                    "others: expected results over the same samples in the same batches, got other "
                    "samples or another order, as another seed gives; inputs= gives models other "
                    "inputs of the same samples"
                )
        replicated = zip(*(result._replicated() for result in results), strict=True)
        return error_of(function(*results), [function(*several) for several in replicated])

    def _replicated(self) -> list[SimilarityResult]:
        """This result without each group of batches or samples; empty where that is not known."""
        replicates = self.replicates
        if replicates is None:
            return []
        unknown = np.full_like(self.value, np.nan)
        bare = replace(self, standard_error=unknown, hsic=None, left_out=None, group_samples=())
        return [replace(bare, value=value) for value in replicates]

    def merge(self, other: SimilarityResult) -> SimilarityResult:
        """This result and one of other samples as one, as if their batches were of one comparison.

        Args:
            other: Of the same models, layers, measure, estimator and settings that change values,
                over samples that this one has not.

        Raises:
            ValueError: Results that do not fit together, or have samples in common; or of a measure
                that needs the features of all samples at once, or from a file without the sums of
                HSIC.

        Warns:
            UserWarning: A result of an older file does not tell which samples it is over.
        """
        for name in ("models", "layers", "measure", "estimator"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise ValueError(f"other: expected {name} {ours!r}, got {theirs!r}")
        _check_settings(self.settings, other.settings)
        states = []
        for argument, result in (("this result", self), ("other", other)):
            if result.hsic is None:
                raise ValueError(
                    f"{argument} has no sums of HSIC to merge: only minibatch CKA keeps them"
                )
            states.append(
                MinibatchCKA.from_groups(
                    torch.from_numpy(result.hsic),
                    result.group_samples,
                    n_batches=result.n_batches,
                    estimator=cast(Any, result.estimator),  # checked there
                )
            )
        if not (self.sample_digests and other.sample_digests):
            warnings.warn(_UNKNOWN_SAMPLES, stacklevel=2)
        elif share_samples(self.sample_digests, other.sample_digests):
            raise ValueError(
                "other: expected a result over samples that this one has not, got some of the "
                "same, which would count twice"
            )
        merged = states[0].merge(states[1]).compute()
        chance = _merged_chance(
            self, other, merged.hsic.sum(dim=0, dtype=torch.float64).diagonal().numpy()
        )
        constant = np.isnan(self.value.diagonal()) & np.isnan(other.value.diagonal())
        unknown = constant[:, None] | constant[None, :]
        return replace(
            self,
            value=np.where(unknown, np.nan, merged.value.numpy()),
            standard_error=np.where(unknown, np.nan, merged.standard_error.numpy()),
            n_samples=merged.n_samples,
            n_batches=merged.n_batches,
            settings={
                **_merged(self.settings, other.settings),
                "merged": sum(r.settings.get("merged", 1) for r in (self, other)),
            },
            versions=_merged(self.versions, other.versions),
            seconds={k: self.seconds.get(k, 0.0) + v for k, v in other.seconds.items()},
            hsic=merged.hsic.numpy(),
            group_samples=merged.group_samples,
            no_error="",
            chance=None if chance is None else np.where(unknown, np.nan, chance),
            chance_note=self.chance_note if chance is not None else "not known of both results",
            notes=tuple(dict.fromkeys((*self.notes, *other.notes))),
            undefined=_undefined_in_both(self.undefined, other.undefined),
            order_digest=_merged_order(self.order_digest, other.order_digest),
            sample_digests=merged_samples(self.sample_digests, other.sample_digests),
        )

    @classmethod
    def from_recordings(
        cls,
        recordings: Models | Recording,
        *,
        measure: str | Measure[Any] = "cka",
        estimator: Estimator | None = None,
        jackknife: int | None = None,
        permutations: int | None = None,
        precision: Precision | None = None,
        device: torch.device | str | None = None,
        names: Sequence[str] | None = None,
        progress: bool = False,
    ) -> SimilarityResult:
        """The result of recordings, which is that of ``compare`` of their models; none is run.

        Args:
            recordings: One or more, or the paths of their folders, in a sequence or by name.
            measure: As for ``compare``; of recordings of Grams "cka".
            estimator: As for ``compare``. Default: that of recorded Grams.
            jackknife: As for ``compare``.
            permutations: As for ``compare``.
            precision: As for ``compare``, of Grams of recorded features.
            device: Where to compute pairs. Default: the CPU.
            names: Names of the models. Default: those of the recordings.
            progress: Show a progress bar.

        Raises:
            ValueError: Recordings of other samples, another order of them or other settings, which
                the message names; or not for this measure.
            FileNotFoundError: No recording where one is said to be.

        Warns:
            UserWarning: Each of the result's notes.

        Example:
            >>> import tempfile, torch
            >>> from repsim_fast import SimilarityResult, record
            >>> data = torch.randn(64, 5)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     paths = [f"{folder}/{width}" for width in (3, 4)]
            ...     for path in paths:
            ...         made = record(torch.nn.Linear(5, int(path[-1])), data, path)
            ...     SimilarityResult.from_recordings(paths).models
            ('3', '4')
        """
        fields_of_result = compare_recordings(
            opened(recordings, names),
            measure=measure,
            estimator=estimator,
            jackknife=jackknife,
            permutations=permutations,
            precision=precision,
            device=device,
            progress=progress,
        )
        result = cls(**fields_of_result)
        result.warn(stacklevel=3)
        return result

    def extend(
        self,
        recording: Recording | str | os.PathLike[str],
        *,
        name: str | None = None,
        recordings: Mapping[str, Recording | str | os.PathLike[str]] | None = None,
        measure: Measure[Any] | None = None,
        jackknife: int | None = None,
        permutations: int | None = None,
        device: torch.device | str | None = None,
        progress: bool = False,
    ) -> SimilarityResult:
        """This result with one more model, of which ``record`` has made a recording.

        That costs the forward pass of its recording, if it was not there, and none of the others,
        whose recordings are read again: results know where those lie that they were made from.

        Args:
            recording: Of the new model, or the path of its folder.
            name: Of the new model. Default: that of the recording.
            recordings: Of models of this result by name, where it was not made from recordings, or
                where they have been moved.
            measure: That of this result, where it has options of its own.
            jackknife: As for ``compare``.
            permutations: As for ``compare``.
            device: Where to compute pairs. Default: the CPU.
            progress: Show a progress bar.

        Raises:
            ValueError: A name that is there, models without recordings, recordings that are not
                those of this result (known by their contents), or not of the same samples as the
                new one, or a merged result.
            FileNotFoundError: A recording is no longer where it was.
        """
        new = opened([recording], None if name is None else [name])
        if taken := new.keys() & set(self.models):
            raise ValueError(
                f"name: expected one that is not among {self.models}, got {taken.pop()!r}"
            )
        where, contents = (self.settings.get(key, {}) for key in ("recordings", "contents"))
        whole = isinstance(where, Mapping) and isinstance(contents, Mapping)
        if "merged" in self.settings or not whole:
            raise ValueError(
                "recordings: expected a result of one comparison, got a merged one, whose models "
                "have several: extend each, then merge them"
            )
        known: dict[str, Any] = {**where, **(recordings or {})}
        if unknown := [model for model in known if model not in self.models]:
            raise ValueError(f"recordings: expected names among {self.models}, got {unknown[0]!r}")
        if missing := [model for model in self.models if model not in known]:
            raise ValueError(
                f"recordings: expected those of {', '.join(map(repr, missing))}, whose features "
                "are gone with the comparison, got none: record(model, data, path) makes them"
            )
        try:
            old = opened({model: known[model] for model in self.models})
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"recordings: {error}; recordings= says where those of this result are now"
            ) from error
        for model, own in old.items():
            self._check_recording(model, own)
        chosen = self._measure() if measure is None else measure
        result = type(self)(
            **compare_recordings(
                {**old, **new},
                measure=chosen,
                jackknife=jackknife,
                permutations=permutations,
                device=device,
                progress=progress,
            )
        )
        if result.estimator != self.estimator or result.measure != self.measure:
            raise ValueError(
                f"measure: expected {self.measure} ({self.estimator}), that of this result, got "
                f"{result.measure} ({result.estimator})"
            )
        if self.order_digest and result.order_digest != self.order_digest:
            raise ValueError(
                "recordings: expected those of the samples of this result, in their order, got "
                "others"
            )
        self._check_values(result)
        result.warn(stacklevel=3)
        return result

    def _check_recording(self, model: str, recording: Recording) -> None:
        """Raises ValueError unless it is that of a model of this result."""
        layers = self.layers[self.models.index(model)]
        for what, ours, theirs in (
            ("layers", layers, recording.layers),
            (
                "weights",
                self.settings.get("weights", {}).get(model),
                recording.settings.get("weights", {}).get(recording.name),
            ),
            ("contents", self.settings.get("contents", {}).get(model), recording.digest),
        ):
            if ours is not None and ours != theirs:
                raise ValueError(
                    f"recordings: expected that of {model!r} with {what} {ours!r}, got another in "
                    f"{str(recording.path)!r} with {theirs!r}: compare the recordings anew"
                )

    def _check_values(self, extended: SimilarityResult) -> None:
        """Raises ValueError where values of this result are others in one that has it within.

        Models of equal weights, run for this result, may do something else when recorded.
        """
        size = len(self.value)
        off = np.nan_to_num(np.abs(extended.value[:size, :size] - self.value))
        if (off > _SAME_VALUES * np.maximum(1.0, np.nan_to_num(np.abs(self.value)))).any():
            (one, other), _ = self._names(np.array(np.unravel_index(off.argmax(), off.shape)))
            raise ValueError(
                f"recordings: expected those of this result, got others: values of {one!r} and "
                f"{other!r} are off by up to {off.max():.2g}: compare the recordings anew"
            )

    def _measure(self) -> Measure[Any]:
        """The measure by its name, with the estimator if it has one."""
        measure = get_measure(self.measure)
        if "estimator" in options(measure) and self.estimator in ESTIMATORS:
            return get_measure(self.measure, estimator=self.estimator)
        return measure

    def warn(self, *, stacklevel: int = 2) -> None:
        """Warn of what one must know to read the values, as whoever computes them does."""
        for note in (*self.notes, *diagnosis.undefined(self.undefined)):
            warnings.warn(note, stacklevel=stacklevel)

    def between(self, a: str | int, b: str | int) -> Grid:
        """The layers of model ``a`` (rows) against those of model ``b`` (columns).

        Args:
            a: Name or number of a model.
            b: Name or number of a model, which may be the same.

        Raises:
            ValueError: There is no such model.
        """
        i, j = self._number("a", a), self._number("b", b)
        starts = np.cumsum([0, *map(len, self.layers)])
        cells = np.s_[starts[i] : starts[i + 1], starts[j] : starts[j + 1]]
        return Grid(
            row_model=self.models[i],
            column_model=self.models[j],
            rows=self.layers[i],
            columns=self.layers[j],
            value=self.value[cells],
            standard_error=self.standard_error[cells],
            measure=self.measure,
            replicates=self._without_each_group(*cells),
            chance=None if self.chance is None else self.chance[cells],
        )

    def grids(self) -> list[Grid]:
        """One grid within each model, then one for each pair of models."""
        numbers = range(len(self.models))
        pairs = [(i, i) for i in numbers] + [(i, j) for i in numbers for j in numbers if i < j]
        return [self.between(i, j) for i, j in pairs]

    def models_matrix(self, summary: Summary = "best_match") -> ModelsMatrix:
        """Model by model: one number for each pair, with standard error; clustered and drawn.

        Args:
            summary: "same_layer": mean over layers at the same position, of models with as many
                layers, or else over those of the same name. "best_match": mean over the layers of
                each of the value of the layer most like it in the other, both ways; of few samples
                larger than it should be, as every best of several. "mean": over all pairs of
                layers. "network", of CKA with any kernel: a distance, the angle
                arccos(m_ab / √(m_aa m_bb)) of means over all pairs of layers, which is that between
                the sums of the models' normalised Grams, in which each layer counts alike, and 0
                for models that are equal.

        Raises:
            ValueError: No such summary, "same_layer" of models without layers in common, or
                "network" of another measure.

        Example:
            >>> import torch
            >>> from repsim_fast import compare
            >>> models = {f"net {i}": torch.nn.Linear(9, 4) for i in range(3)}
            >>> result = compare(models, torch.randn(64, 9), batch_size=16)
            >>> result.models_matrix("same_layer").value.shape
            (3, 3)
        """
        return models_matrix(
            self.models,
            self.layers,
            self.value,
            self.replicates,
            summary=summary,
            measure=self.measure,
        )

    def summary(self) -> list[dict[str, Any]]:
        """Key figures for tables: of each grid its means, see :meth:`Grid.figures`, one a row, with
        standard error and, where it is known, chance level of that mean.
        """
        known = self.chance is not None
        return [
            {
                "comparison": grid.title,
                "layers": f"{len(grid.rows)} x {len(grid.columns)}",
                "figure": figure.name,
                "value": figure.value,
                "standard error": figure.standard_error,
                **({"by chance": figure.chance} if known else {}),
            }
            for grid in self.grids()
            for figure in grid.figures()
        ]

    def to_dataframe(self) -> pd.DataFrame:
        """One line for each ordered pair of layers.

        Columns: model_a, layer_a, model_b, layer_b, value, standard_error, chance, and low and
        high, the ends of a 95 % interval (:meth:`interval`).

        Raises:
            ImportError: pandas is missing, which ``to_csv`` does without.
        """
        pandas = extra("pandas", of="tables", purpose="to_dataframe()")
        table: pd.DataFrame = pandas.DataFrame(self._table(*self._all_pairs()))
        return table

    def pairs(self, k: int = 10) -> pd.DataFrame:
        """A table of the ``k`` most similar pairs of layers of different models, the most alike
        first.

        Each pair is there once, of the model before the other; pairs without a value are not there.
        The best of many pairs are larger by chance than they should be: their errors and intervals
        are those of single pairs.

        Args:
            k: Rows at most, at least 1.

        Returns:
            Columns as of :meth:`to_dataframe`: model_a, layer_a, model_b, layer_b, value,
            standard_error, chance, low and high.

        Raises:
            ImportError: pandas is missing.
            TypeError, ValueError: ``k`` is no whole number of at least 1.

        Example:
            >>> import torch
            >>> from repsim_fast import compare
            >>> models = {f"net {i}": torch.nn.Linear(9, 4) for i in range(3)}
            >>> result = compare(models, torch.randn(64, 9), batch_size=16)
            >>> result.pairs(k=2)[["model_a", "layer_a", "model_b", "layer_b"]].shape
            (2, 4)
        """
        check_whole(k=k)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        pandas = extra("pandas", of="tables", purpose="pairs()")
        model = np.repeat(np.arange(len(self.models)), [len(names) for names in self.layers])
        i, j = np.nonzero((model[:, None] < model) & ~np.isnan(self.value))
        values = self.value[i, j]
        order = np.argsort(values if is_distance(self.measure) else -values, kind="stable")[:k]
        table: pd.DataFrame = pandas.DataFrame(self._table(i[order], j[order]))
        return table

    def to_xarray(self) -> xarray.Dataset:
        """Value, standard error and chance level over layers "a" and "b", with the coordinates
        model_a, layer_a, model_b and layer_b; measure and numbers of samples as attributes.

        Raises:
            ImportError: xarray is missing.
        """
        library = extra("xarray", of="xarray", purpose="to_xarray()")
        matrices = {"value": self.value, "standard_error": self.standard_error}
        if self.chance is not None:
            matrices["chance"] = self.chance
        pairs = zip(self.models, self.layers, strict=True)
        labels = [(model, layer) for model, layers in pairs for layer in layers]
        data: xarray.Dataset = library.Dataset(
            {name: (("a", "b"), matrix) for name, matrix in matrices.items()},
            coords={
                f"{what}_{side}": (side, [label[i] for label in labels])
                for side in ("a", "b")
                for i, what in enumerate(("model", "layer"))
            },
            attrs={
                "measure": self.measure,
                "estimator": self.estimator,
                "n_samples": self.n_samples,
                "n_batches": self.n_batches,
            },
        )
        return data

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write the table of ``to_dataframe`` as comma-separated values; an empty field is NaN.

        Names that a spreadsheet would take for a formula begin with an apostrophe.

        Returns:
            The file's path.

        Raises:
            OSError: The file cannot be written.
        """
        every = np.arange(len(self.value))
        layers = list(map(of_names, *self._names(every)))

        def lines() -> Iterator[str]:
            # Thousands of layers have millions of pairs: one layer with all others at a time.
            for number, layer in enumerate(layers):
                numbers = np.column_stack(list(self._numbers(number, every).values())).tolist()
                for other, row in zip(layers, numbers, strict=True):
                    yield f"{layer},{other},{of_numbers(row)}"

        return write_lines(path, list(self._table(every[:0], every[:0])), lines())

    def _all_pairs(self) -> tuple[Indices, Indices]:
        """Of all ordered pairs of layers the number of each one, over all models."""
        numbers = np.arange(len(self.value))
        return np.repeat(numbers, len(numbers)), np.tile(numbers, len(numbers))

    def _table(self, a: Indices, b: Indices) -> dict[str, npt.NDArray[Any]]:
        """One entry for each pair of layers, given by their numbers over all models, by column."""
        of_a, of_b = self._names(a), self._names(b)
        names = {"model_a": of_a[0], "layer_a": of_a[1], "model_b": of_b[0], "layer_b": of_b[1]}
        return {**names, **self._numbers(a, b)}

    def _names(self, numbers: Indices) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Model and name of each layer, given by its number over all models."""
        model = np.repeat(np.array(self.models, dtype=object), [len(ls) for ls in self.layers])
        layer = np.array([name for names in self.layers for name in names], dtype=object)
        return model[numbers], layer[numbers]

    def _numbers(self, a: Indices | int, b: Indices) -> dict[str, npt.NDArray[Any]]:
        """What is known of each pair of layers, by column."""
        value, error = self.value[a, b], self.standard_error[a, b]
        low, high = student_interval(value, error, len(self.group_samples))
        chance = np.full(value.shape, np.nan) if self.chance is None else self.chance[a, b]
        return {"value": value, "standard_error": error, "chance": chance, "low": low, "high": high}

    def plot(
        self,
        a: str | int | None = None,
        b: str | int | None = None,
        *,
        standard_error: bool = False,
        minus_chance: bool = False,
        path: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Figure:
        """Heat map of model ``a`` against model ``b``.

        Without names: one model against itself, two against one another, of three all grids in
        one figure, of more one cell a pair of models.

        Args:
            a: Name or number of the model along the rows.
            b: Name or number of the model along the columns; default ``a``.
            standard_error: Add a panel with the standard errors.
            minus_chance: Draw the values minus their chance levels.
            path: Also write the figure to this file.
            **options: Further options of :func:`repsim_fast.plotting.plot_heat_maps`: ax, vmin,
                vmax, figsize, theme, ...

        Raises:
            ValueError: No such model, no chance levels, or an option out of range.
        """
        if a is not None:
            grids = [self.between(a, a if b is None else b)]
        elif b is not None:
            raise ValueError("a must be given with b, got None")
        elif len(self.models) <= 2:
            grids = [self.between(0, -1)]
        elif len(self.models) <= MODELS_OF_A_SHEET or standard_error or minus_chance:
            grids = self.grids()
        else:
            return plot_overview(self, path=path, **options)
        return plot_grids(
            grids, minus_chance=minus_chance, standard_error=standard_error, path=path, **options
        )

    def report(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write a page to explore the result with; see :func:`repsim_fast.report.write_report`."""
        from repsim_fast.report import write_report

        return write_report(path, self, **options)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to a safetensors file, whole or not at all; ``.npz``-like but without pickle.

        Raises:
            OSError: The place cannot be written to.
        """
        return storage.write(path, {f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SimilarityResult:
        """Read what :meth:`save` wrote; one of format 1 has no replicates, one of formats 1 and 2
        neither chance levels nor notes, and of one before 4 it is not known which samples it is
        over: those were told by a part of their numbers.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no such file, damaged, or of a later version of the format.
        """
        found = storage.read(path)
        try:
            return cls(**found)
        except (TypeError, ValueError) as error:
            raise storage.unreadable(path, error) from error

    def _number(self, argument: str, model: str | int) -> int:
        if isinstance(model, str):
            what = f"{argument} must be a model of {self.models} or its number, got"
            return self.models.index(among(what, model, self.models))
        if isinstance(model, (int, np.integer)) and -len(self.models) <= model < len(self.models):
            return int(model) % len(self.models)
        raise ValueError(
            f"{argument} must be a model of {self.models} or its number, got {model!r}"
        )


def load(path: str | os.PathLike[str]) -> SimilarityResult:
    """The result of a file of ``SimilarityResult.save`` or of a folder of ``repsim-fast compare``.

    Raises:
        FileNotFoundError: There is no such file, or those of several measures in folders inside.
        ValueError: It is no such file, damaged, or of a later version of the format.

    Example:
        >>> import torch
        >>> import repsim_fast
        >>> result = repsim_fast.compare([torch.nn.Linear(5, 3)], torch.randn(64, 5))
        >>> repsim_fast.load(result.save("out/result.safetensors")).models == result.models
        True
    """
    place = Path(path)
    if not place.is_dir():
        return SimilarityResult.load(place)
    storage.check_one(place)
    return SimilarityResult.load(place / storage.FILE_NAME)


def _merged_chance(
    ours: SimilarityResult,
    theirs: SimilarityResult,
    own: Matrix,  # (L,) sums of HSIC of layers with themselves, of both results together
) -> Matrix | None:
    """The chance level (L, L) of two results of minibatch CKA as one; None where one has none."""
    total: Matrix = np.zeros_like(ours.value)
    with np.errstate(invalid="ignore", divide="ignore"):
        for result in (ours, theirs):
            if result.chance is None or result.hsic is None:
                return None
            sizes = np.sqrt(result.hsic.sum(axis=0, dtype=np.float64).diagonal())
            # Layers that are constant in one of the results add nothing to its sums.
            total += np.nan_to_num(result.chance * np.outer(sizes, sizes))
        total /= np.outer(np.sqrt(own), np.sqrt(own))
    return total


def _check_settings(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Raises ValueError where settings that change values differ."""
    for name in _OF_VALUES:
        if name in ours and name in theirs and ours[name] != theirs[name]:
            raise ValueError(f"other: expected {name} {ours[name]!r}, got {theirs[name]!r}")


def _merged_order(ours: str, theirs: str) -> str:
    """The digest of one order after the other; empty where one is not known."""
    if not (ours and theirs):
        return ""
    return hashlib.sha256(f"{ours} {theirs}".encode()).hexdigest()[:16]


def _merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of both; where they differ, both as text, of mappings entry by entry."""

    def joined(value: Any, other: Any) -> Any:
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            return _merged(value, other)
        return value if value == other else f"{value}; {other}"

    both = {**theirs, **ours}
    return {key: joined(value, theirs.get(key, value)) for key, value in both.items()}


def _undefined_in_both(
    ours: Mapping[str, Mapping[str, str]], theirs: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    return {
        model: {name: why for name, why in layers.items() if name in theirs.get(model, {})}
        for model, layers in ours.items()
    }
