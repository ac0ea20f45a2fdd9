"""Activations of any ``nn.Module``, by layer name, without side effects."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from repsim_fast._core.buffers import buffers_kept
from repsim_fast._core.inputs import run
from repsim_fast._core.model_state import check_hookable, eager, evaluating, unwrap
from repsim_fast._core.nested import map_tensors
from repsim_fast._core.randomness import private_rng
from repsim_fast.capture.features import first_tensor
from repsim_fast.capture.forms import Forms, Maps
from repsim_fast.capture.layer_masks import check_masks
from repsim_fast.capture.layers import (
    LayerSpec,
    LayerTable,
    SelectedLayer,
    layer_table,
    left_out_by_default,
    named_layers,
    select_layers,
)
from repsim_fast.capture.layout import ChannelsOf
from repsim_fast.capture.masks import MaskSpec
from repsim_fast.capture.samples import UnfitError

OnActivation = Callable[[str, Tensor], None]


class Capture:
    """Records what layers return while a model runs.

    A context manager: hooks exist inside the ``with`` block only, and are gone afterwards whatever
    happened there. Each forward pass of the model starts afresh, so :attr:`activations` holds
    those of the latest one, in order of execution.

    - A layer called several times in a pass has the names ``relu``, ``relu#2``, ...
    - A layer that returns a tuple, list or mapping counts with the first floating-point tensor in
      it; a layer that returns none is left out.
    - Attention and recurrent layers with ``batch_first=False`` are turned to (N, T, D).
    - ``DataParallel`` on one device, ``DistributedDataParallel`` and ``torch.compile`` are looked
      through; compiled parts run eagerly inside the block, because a graph compiled earlier would
      skip the hooks, and ``nn.TransformerEncoder`` without its fast path of nested tensors.

    Without ``on_activation`` the activations are copies, so that a layer which works in place, as
    torchvision's ``ReLU(inplace=True)`` does on what its batch norm returned, cannot change what
    was recorded before it. They stay attached to the autograd graph if one is being recorded.

    Args:
        model: The model. Its mode is left alone; call ``model.eval()`` as you would without.
        layers: Which layers: names or ``fnmatch`` patterns (``"layer1.*"``; ``*`` crosses dots;
            ``"relu#2"`` is the second call alone), modules of the model, numbers among the layers
            of the default in order of declaration (-1: the last), or a callable
            ``(name, module) -> bool``.
            ``"(model)"`` names the model's own output. Of transformers also roles, which families
            that name their layers differently have in common, blocks numbered from 1:
            ``"hidden_states.3"``, the stream after block 3 (0: before the first), and what is added
            to it in that block, ``"attention.3"`` and ``"mlp.3"``; see :func:`list_layers`.
            Default: every convolution, normalisation, activation, pooling, linear, recurrent and
            attention layer and every residual block, see :func:`layer_kind`; of a layer made of
            others, such as one with a low-rank adapter, the whole and not its parts. A warning
            says what is left out of layers with weights.
        maps: What becomes of activations with more than two dimensions:

            - "flatten": all numbers of a sample are features, (N, ...) to (N, p);
            - "pool": the mean over positions, (N, C, H, W) to (N, C), (N, T, D) to (N, D), of
              half precision in float32; means that rounding alone tells apart, as of an instance
              normalisation, are made equal;
            - "positions": each position is a sample, (N, C, H, W) to (N*H*W, C), (N, T, D) to
              (N*T, D);
            - "tokens": each real token is a sample, (N, T, D) to (n, D);
            - "mean", "cls", "last": the mean over the real tokens of a sample, the first or the
              last of them, (N, T, D) to (N, D);
            - a callable (Tensor) -> (n, p) that is given what the layer returned.

            None leaves activations as they are. A batch with padding and a form that would count
            it are an error.
        mask: Which tokens are real, (N, T), not zero where they are: a key of the model's inputs,
            or a callable that makes it of them (a tensor, or a mapping by the names that the
            model's ``forward`` gives them) or returns None where there is no padding. Or a mapping
            of names and patterns of layers to these, or to None for layers without padding, of
            which the first that matches counts. Default: "attention_mask" where the inputs have
            it, of layers that work on the text; those of an image or a sound beside it have all
            their tokens, those of a decoder have "decoder_attention_mask".
        channels: Where layers have their channels, "first" (N, C, ...) or "last" (N, ..., C): for
            all, or a callable (name, module, tensor) that says it of one, None for the default.
            Default: as the layer that returned the tensor has them, and for what only passes
            tensors on, as the layer before; a warning names layers of which nothing tells.
        calls: Of a layer called several times, "all" calls or only the "first".
        on_activation: Called as ``on_activation(name, features)`` inside the forward pass with
            each activation, which is not copied and is valid during the call only; nothing is
            recorded then.

    Raises:
        ValueError: No layer matched; the message shows what there is. Padding would count, or a
            layer that was asked for has no features of the form.
        TypeError: ``model`` is no module, is scripted, or runs replicas on several devices.

    Example:
        >>> import torch
        >>> from repsim_fast.capture import Capture
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(inplace=True))
        >>> with Capture(model) as capture:
        ...     output = model(torch.randn(2, 4))
        >>> {name: tuple(x.shape) for name, x in capture.activations.items()}
        {'0': (2, 3), '1': (2, 3)}
    """

    def __init__(
        self,
        model: nn.Module,
        layers: LayerSpec = None,
        *,
        maps: Maps | None = "flatten",
        mask: MaskSpec = None,
        channels: ChannelsOf = None,
        calls: Literal["all", "first"] = "all",
        on_activation: OnActivation | None = None,
    ) -> None:
        if calls not in ("all", "first"):
            raise ValueError(f"calls must be 'all' or 'first', got {calls!r}")
        if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
            raise TypeError(
                f"model is a DataParallel over {len(model.device_ids)} devices, whose replicas run "
                "in parallel; capture model.module instead"
            )
        self.model = unwrap(check_hookable(model))
        check_hookable(self.model)
        check_masks(mask, [self.model])
        self.activations: dict[str, Tensor] = {}
        self._selected = select_layers(self.model, layers)
        if layers is None:
            for text in left_out_by_default(self.model):
                warnings.warn(text, stacklevel=2)
        self._forms = (
            None if maps is None else Forms(self.model, maps, mask=mask, channels=channels)
        )
        self._by_default = layers is None
        self._left_out: dict[str, str] = {}  # reasons by layer
        self._first_only = calls == "first"
        self._on_activation = self._record if on_activation is None else on_activation
        self._counts: dict[str, int] = {}
        self._hooks = contextlib.ExitStack()
        self.active = False  # whether its hooks are in place

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the selected layers, in order of declaration."""
        return tuple(self._selected)

    def __enter__(self) -> Capture:
        if self.active:
            raise RuntimeError("this Capture is active already")
        with contextlib.ExitStack() as hooks:
            hooks.enter_context(eager())
            if self._forms is not None:
                hooks.enter_context(self._forms.watching())
            hooks.callback(self.model.register_forward_pre_hook(self._start_pass).remove)
            for name, selected in self._selected.items():
                hooks.callback(_register(selected, self._hook(name, selected)).remove)
            self._hooks = hooks.pop_all()
        self.active = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.active = False
        self._hooks.close()
        if error is None:
            for text in self._notes():
                warnings.warn(text, stacklevel=2)

    def _notes(self) -> list[str]:
        """What the user should know of the passes."""
        notes = [] if self._forms is None else self._forms.notes()
        if self._left_out:
            some = [f"{name!r} ({why})" for name, why in list(self._left_out.items())[:5]]
            some += ["..."] * (len(self._left_out) > 5)
            notes.append(f"{len(self._left_out)} layers left out: {', '.join(some)}")
        return notes

    def _start_pass(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._counts.clear()
        self.activations = {}

    def _hook(
        self, name: str, selected: SelectedLayer
    ) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        counts, on_activation = self._counts, self._on_activation
        time_first = any(map(_is_time_first, (selected.module, selected.block)))
        wanted_calls = frozenset({1}) if self._first_only else selected.calls

        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            call = counts[name] = counts.get(name, 0) + 1
            if wanted_calls is not None and call not in wanted_calls:
                return
            activation = first_tensor(output)
            if activation is None:
                return
            if time_first and activation.ndim == 3:
                activation = activation.transpose(0, 1)
            label = name if call == 1 else f"{name}#{call}"
            features = self._features(label, activation)
            if features is not None:
                on_activation(label, features)

        return hook

    def _features(self, label: str, activation: Tensor) -> Tensor | None:
        """Features in the form that was asked for, None for a layer that has none."""
        if self._forms is None:
            return activation
        try:
            return self._forms.features(label, activation)
        except UnfitError as error:
            if not self._by_default:
                raise ValueError(
                    f"layer {label!r} has no maps={self._forms.maps!r}: {error}"
                ) from None
            self._left_out[label] = str(error)
            return None

    def _record(self, name: str, activation: Tensor) -> None:
        self.activations[name] = activation.clone()


def _register(
    selected: SelectedLayer, hook: Callable[[nn.Module, tuple[Any, ...], Any], None]
) -> RemovableHandle:
    """Have a hook called with what a module returns or, as that, with what it is given."""
    if not selected.given:
        return selected.module.register_forward_hook(hook)

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = next(iter(inspect.signature(module.forward).parameters), None)
        hook(module, args, [*args, kwargs.get(str(first)), *kwargs.values()])

    return selected.module.register_forward_pre_hook(before, with_kwargs=True)


def _is_time_first(module: nn.Module | None) -> bool:
    """Whether a layer of torch's own returns (T, N, D) rather than (N, T, D)."""
    if isinstance(module, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)):
        module = module.self_attn
    return isinstance(module, (nn.MultiheadAttention, nn.RNNBase)) and not module.batch_first


def list_layers(model: nn.Module, example_input: Any = None) -> LayerTable:
    """What there is to capture: name, type, kind, role and, given an example, output shape.

    Layers whose kind is not None are those that :class:`Capture` and ``compare`` take by default,
    without those inside a linear or convolutional layer, which are its parts. A role is another
    name, the same in all families of transformers.

    Args:
        model: The model; comes back as it was, buffers and the global random state too.
        example_input: A batch to run once in eval mode (a tuple or mapping is spread over the
            model's arguments). Layers then come in order of execution, once for each call;
            without it, in order of declaration.

    Returns:
        A list of :class:`LayerInfo` that prints as a table.

    Example:
        >>> import torch
        >>> from repsim_fast.capture import list_layers
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
        >>> print(list_layers(model, torch.zeros(2, 4)))
        0        Linear      linear      2 x 3
        1        ReLU        activation  2 x 3
        (model)  Sequential  -           2 x 3
    """
    inner = unwrap(check_hookable(model))
    declared = layer_table(named_layers(inner))
    if example_input is None:
        return declared
    by_name = {layer.name: layer for layer in declared}
    found = LayerTable()

    def add(call: str, activation: Tensor) -> None:
        layer = by_name[call if call in by_name else call.rpartition("#")[0]]
        found.append(layer._replace(name=call, shape=tuple(activation.shape)))

    capture = Capture(inner, list(by_name), maps=None, on_activation=add)
    with untouched(inner), torch.no_grad(), capture:
        run(inner, map_tensors(torch.clone, example_input))  # which the model may change
    return found


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """The model in eval mode inside; modes, buffers and random states as before afterwards."""
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    with private_rng(devices, seed=0), buffers_kept([model]), evaluating([model]):
        yield
