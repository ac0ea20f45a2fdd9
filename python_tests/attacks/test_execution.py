"""Speed-ups of the model: the same function, shown; what cannot be done is left out and said."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from python_tests.support.replayed_graph import ReplayedGraph
from repsim_fast import models
from repsim_fast.attacks import APGD, PGD, AutoAttack, Execution
from repsim_fast.attacks.execution import compiled_form, graphed_steps

FOLD = Execution(fold_batchnorm=True)
SETTINGS: dict[str, Any] = {
    "fold": FOLD,
    "channels_last": Execution(channels_last=True),
    "fast": "fast",
    "compile": Execution(compile="aot_eager"),
    "all": Execution(fold_batchnorm=True, channels_last=True, compile="aot_eager"),
}


def calibrated(model: nn.Module, shape: tuple[int, ...] = (3, 16, 16)) -> nn.Module:
    """With BatchNorm statistics and scales unlike those of a fresh network, in eval mode."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    model.train()
    with torch.no_grad():
        for _ in range(5):
            model(torch.rand(16, *shape))
    return model.eval()


@pytest.fixture
def network() -> nn.Module:
    return calibrated(models.build("resnet-8", num_classes=5, seed=0))


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(6, 3, 16, 16), torch.arange(6) % 5


def attacked(model: nn.Module, batch: tuple[Tensor, Tensor], **options: Any) -> Tensor:
    return PGD(8 / 255, norm="l2", steps=5, seed=0, **options)(model, *batch)


@pytest.mark.parametrize("name", SETTINGS)
def test_same_iterates(name: str, network: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    """In float64 up to its rounding; in float32 as near as rounding lets gradients be."""
    got = attacked(network, batch, execution=SETTINGS[name])
    assert torch.allclose(got, attacked(network, batch), rtol=0, atol=1e-5)
    network.double()
    batch = batch[0].double(), batch[1]
    got = attacked(network, batch, execution=SETTINGS[name])
    assert torch.allclose(got, attacked(network, batch), rtol=0, atol=1e-12)
    linf = [
        PGD(8 / 255, seed=0, execution=execution)(network, *batch)
        for execution in ("exact", SETTINGS[name])
    ]
    assert torch.allclose(*linf, rtol=0, atol=1e-12)  # not one sign differs


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_apgd_finds_the_same(norm: str, network: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    network.double()
    x, y = batch[0].double(), batch[1]
    attacks = [
        APGD(0.1, norm=norm, steps=6, seed=0, execution=execution)
        for execution in ("exact", FOLD, "fast")
    ]
    want, *others = (attack(network, x, y) for attack in attacks)
    for got in others:
        assert torch.allclose(got, want, rtol=0, atol=1e-9)
    assert len(attacks[1].report.folded) == len(attacks[2].report.folded) == 7


def test_every_norm_after_a_convolution_is_folded(
    network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    attack = PGD(0.1, steps=1, execution="fast")
    attack(network, *batch)
    norms = [n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert list(attack.report.folded) == norms
    assert attack.report.channels_last
    assert attack.report.not_done == ""


def test_pre_activation_folds_only_what_follows_a_convolution(
    batch: tuple[Tensor, Tensor],
) -> None:
    network = calibrated(models.build("wrn-10-1", num_classes=5, seed=0))
    attack = PGD(8 / 255, norm="l2", steps=3, seed=0, execution=FOLD)
    got = attack(network, *batch)
    # Within a block bn2 follows conv1; bn1, and the last one, follow a sum.
    assert all(name.endswith("bn2") for name in attack.report.folded)
    assert len(attack.report.folded) == 3
    want = PGD(8 / 255, norm="l2", steps=3, seed=0)(network, *batch)
    assert torch.allclose(got, want, rtol=0, atol=1e-5)

    class PreActivation(nn.Sequential):
        pass

    only = PreActivation(
        nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    attack(only, *batch)
    assert attack.report.folded == ()
    assert "no BatchNorm directly follows" in attack.report.not_done


class Varied(nn.Module):
    """Places where a norm follows a linear map, some of which must not be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(3, 6, 3, groups=3, bias=True)
        self.plain_norm = nn.BatchNorm2d(6, affine=False)
        self.shared = nn.Conv2d(6, 6, 3, padding=1)
        self.norm_a, self.norm_b = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.read_twice = nn.Conv2d(6, 6, 1)
        self.norm_c = nn.BatchNorm2d(6)
        self.no_statistics = nn.BatchNorm2d(6, track_running_stats=False)
        self.conv = nn.Conv2d(6, 6, 1)
        self.tokens = nn.Linear(14 * 14, 6)
        self.norm_tokens = nn.BatchNorm1d(6)  # over dimension 1, not over the linear's outputs
        self.fc = nn.Linear(36, 5)
        self.norm_fc = nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.plain_norm(self.grouped(x)).relu()
        x = self.norm_b(self.shared(self.norm_a(self.shared(x)))).relu()
        read = self.read_twice(x)
        x = self.no_statistics(self.conv(self.norm_c(read) + read))
        x = self.norm_tokens(self.tokens(x.flatten(2)))
        logits: Tensor = self.norm_fc(self.fc(x.flatten(1)))
        return logits


def test_only_sound_places_are_folded(batch: tuple[Tensor, Tensor]) -> None:
    network = calibrated(Varied())
    attack = PGD(8 / 255, norm="l2", steps=3, seed=0, execution="fast")
    got = attack(network, *batch)
    assert attack.report.not_done == ""
    assert attack.report.folded == ("plain_norm", "norm_fc")
    want = PGD(8 / 255, norm="l2", steps=3, seed=0)(network, *batch)
    assert torch.allclose(got, want, rtol=0, atol=1e-5)


def test_follows_the_weights_through_training(
    network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    attack = PGD(8 / 255, norm="l2", steps=3, random_start=False, execution="fast")
    before = attack(network, *batch)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    network.train()
    nn.functional.cross_entropy(network(batch[0]), batch[1]).backward()
    optimizer.step()
    after = attack(network, *batch)
    assert len(attack.report.folded) == 7
    want = PGD(8 / 255, norm="l2", steps=3, random_start=False)(network, *batch)
    assert torch.allclose(after, want, rtol=0, atol=1e-5)
    assert not torch.allclose(after, before, rtol=0, atol=1e-4)


class Changing(nn.Module):
    """Code that depends on what is no registered weight of a layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.flip, self.depth = False, 1
        self.mean, self.scales = torch.tensor(0.0), [1.0]
        self.w = nn.Parameter(torch.randn(3, 3, 1, 1))
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.fc = nn.Linear(3 * 16 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = (1 - x if self.flip else x) - self.mean
        x = nn.functional.conv2d(x, self.w) * self.scales[0]
        for _ in range(self.depth):
            x = torch.relu(self.norm(self.conv(x)))
        logits: Tensor = self.fc(x.flatten(1))
        return logits


CHANGES: dict[str, Callable[[Changing], Any]] = {
    "flag": lambda m: setattr(m, "flip", True),
    "number": lambda m: setattr(m, "depth", 2),
    "numbers of a layer": lambda m: vars(m.conv).update(dilation=(2, 2), padding=(2, 2)),
    "tensor": lambda m: setattr(m, "mean", torch.tensor(0.5)),
    "list": lambda m: m.scales.__setitem__(0, -1.0),
    "parameter": lambda m: setattr(m, "w", nn.Parameter(-m.w.detach())),
}


@pytest.mark.parametrize("settings", ["fast", SETTINGS["channels_last"], SETTINGS["all"]])
@pytest.mark.parametrize("anew", [False, True], ids=["same attack", "new attack"])
@pytest.mark.parametrize("name", CHANGES)
def test_follows_whatever_changes_in_the_model(
    name: str, anew: bool, settings: Any, batch: tuple[Tensor, Tensor]
) -> None:
    model = calibrated(Changing()).double()
    model.mean = model.mean.double()
    batch = batch[0].double(), batch[1]
    options: dict[str, Any] = {"norm": "l2", "steps": 2, "random_start": False}
    attack = PGD(0.5, execution=settings, **options)
    before = attack(model, *batch)
    CHANGES[name](model)
    if anew:
        attack = PGD(0.5, execution=settings, **options)
    after, want = attack(model, *batch), PGD(0.5, **options)(model, *batch)
    assert torch.allclose(after, want, rtol=0, atol=1e-12)
    assert not torch.allclose(after, before, rtol=0, atol=1e-4)
    # A norm that runs twice is not folded, all else is done again.
    assert attack.report.not_done == "" or name == "number"


def test_is_built_once_for_a_model_that_stays(
    network: nn.Module, batch: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Any] = []
    rewrite = compiled_form._rewrite
    monkeypatch.setattr(compiled_form, "_rewrite", lambda *of: built.append(of) or rewrite(*of))
    for n in (6, 1, 4):
        attacked(network, (batch[0][:n], batch[1][:n]), execution="fast")
    assert len(built) == 1


def test_a_model_that_draws_is_attacked_as_it_is(batch: tuple[Tensor, Tensor]) -> None:
    class Random(Changing):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = super().forward(1 - x if torch.rand(()) < 0.5 else x)
            return out

    model = calibrated(Random())
    options: dict[str, Any] = {"steps": 3, "random_start": False, "seed": 0}
    for _ in range(4):  # also where the branch happens to be that of the trace
        attack = PGD(0.1, execution="fast", **options)
        attack(model, *batch)
        assert "random" in attack.report.not_done


def test_the_model_stays_as_it_was(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    twin = copy.deepcopy(model)
    layout = {name: t.stride() for name, t in model.state_dict().items()}
    attributes = {name: set(vars(m)) for name, m in model.named_modules()}
    attack = PGD(8 / 255, steps=2, execution="fast")
    attack(model, images, labels)
    assert attack.report.folded == ("1", "4")
    for name, value in twin.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
        assert model.state_dict()[name].stride() == layout[name]
    assert [m.training for m in model.modules()] == [m.training for m in twin.modules()]
    assert {name: set(vars(m)) for name, m in model.named_modules()} == attributes
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    copy.deepcopy((model, attack))


def test_nothing_keeps_the_model_alive(batch: tuple[Tensor, Tensor]) -> None:
    network = calibrated(models.build("resnet-8", num_classes=5, seed=0))
    PGD(0.1, steps=1, execution="fast")(network, *batch)
    seen = weakref.ref(network)
    del network
    gc.collect()
    assert seen() is None


class Branching(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = x * 1.0
        out: Tensor = self.inner(x)
        return out


@pytest.mark.parametrize("case", ["branching", "hooks", "train", "function"])
def test_what_cannot_be_done_is_left_out_and_said(
    case: str, network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    fired = []
    model: Any = network
    options: dict[str, Any] = {"norm": "l2", "steps": 2, "random_start": False}
    if case == "branching":
        model, reason = Branching(network), "traced"
    elif case == "hooks":
        network.conv1.register_forward_hook(lambda *_: fired.append(1))
        reason = "hooks"
    elif case == "train":
        options["model_mode"], reason = "train", "eval mode"
    else:
        model, reason = lambda x: network(x), "nn.Module"
    attack = PGD(0.1, execution=FOLD, **options)
    got = attack(model, *batch)
    assert attack.report.folded == ()
    assert reason in attack.report.not_done
    assert torch.equal(got, PGD(0.1, **options)(model, *batch))
    assert bool(fired) == (case == "hooks")


def test_a_rewrite_that_changes_logits_is_refused(
    network: nn.Module, batch: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    from repsim_fast.attacks.execution import folding as _folding

    monkeypatch.setattr(_folding._Pair, "refresh", lambda self: self.private.weight.zero_())
    attack = PGD(0.1, steps=1, random_start=False, execution=FOLD)
    got = attack(network, *batch)
    assert "logits differ" in attack.report.not_done
    assert torch.equal(got, PGD(0.1, steps=1, random_start=False)(network, *batch))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_models_of_half_precision(
    dtype: torch.dtype, network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    network.to(dtype)
    attack = PGD(8 / 255, steps=2, execution="fast")
    got = attack(network, *batch)
    assert got.dtype == torch.float32
    assert len(attack.report.folded) == 7


def test_no_grad_inference_mode_and_autocast(
    network: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    want = attacked(network, batch)
    with torch.no_grad():
        assert torch.allclose(attacked(network, batch, execution="fast"), want, rtol=0, atol=1e-5)
    with torch.inference_mode():
        inside = attacked(network, batch, execution="fast")
    assert torch.allclose(inside, want, rtol=0, atol=1e-5)
    options = {"execution": "fast", "autocast": torch.bfloat16}
    half = attacked(network, batch, **options)
    # bfloat16 turns gradients by some percent: the mean step still points the same way.
    assert (
        torch.cosine_similarity((half - batch[0]).flatten(), (want - batch[0]).flatten(), 0) > 0.9
    )


class TestSettings:
    def test_unknown(self) -> None:
        with pytest.raises(ValueError, match="execution must be 'exact', 'fast'"):
            PGD(0.1, execution="quick")  # type: ignore[arg-type]

    def test_graph_needs_static_shapes(self) -> None:
        graph = Execution(cuda_graph=True)
        for options in ({"early_stop": True}, {"select": "best"}, {"norm": "l1"}):
            with pytest.raises(ValueError, match="static shapes"):
                PGD(0.1, execution=graph, **options)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="static shapes"):
            APGD(0.1, execution=graph)
        with pytest.raises(ValueError, match="exclude each other"):
            Execution(cuda_graph=True, compile=True)

    def test_graph_needs_a_gpu(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
        with pytest.raises(RuntimeError, match="cuda_graph needs images on a GPU"):
            PGD(0.1, execution=Execution(cuda_graph=True))(network, *batch)

    def test_autoattack_hands_it_on(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
        x, y = batch[0], network(batch[0]).argmax(1)
        attack = AutoAttack(0.02, stages=("apgd-ce",), steps=3, seed=0, execution="fast")
        assert attack(network, x, y).shape == x.shape


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PGD]:
    """PGD whose loop goes the way of CUDA graphs, on the CPU."""
    monkeypatch.setattr(graphed_steps, "GraphedLoop", ReplayedGraph)
    monkeypatch.setattr("repsim_fast.attacks.execution.compiled_form._on_gpu", lambda x: True)
    ReplayedGraph.captured = 0
    return lambda **options: PGD(
        0.1, seed=3, execution=Execution(cuda_graph=True), **{"steps": 3, **options}
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "l2", "momentum": 0.9, "targeted": True},
        {"restarts": 3, "step_size": torch.linspace(0.01, 0.1, 6)},
        {"bounds": (torch.zeros(3), torch.tensor([1.0, 1.1, 1.2]))},
    ],
    ids=["linf", "l2 momentum targeted", "restarts, sizes", "bounds"],
)
def test_the_captured_loop_takes_everything_from_its_inputs(
    options: dict[str, Any],
    network: nn.Module,
    batch: tuple[Tensor, Tensor],
    graphs: Callable[..., PGD],
) -> None:
    attack, plain = graphs(**options), PGD(0.1, seed=3, **{"steps": 3, **options})
    x, y = batch
    for images, labels in ((x, y), (x.flip(0), y.flip(0)), (x[:4], y[:4]), (x, y)):
        if len(images) < 6 and "step_size" in options:
            continue
        assert torch.equal(attack(network, images, labels), plain(network, images, labels))
    assert ReplayedGraph.captured == (1 if "step_size" in options else 2)
    assert attack.report.graphed
    assert not attack.report.not_done


def test_a_tensor_replaced_in_the_model_is_captured_anew(
    batch: tuple[Tensor, Tensor], graphs: Callable[..., PGD]
) -> None:
    model, attack = calibrated(Changing()), graphs()
    for count, change in enumerate((None, None, "tensor", "flag"), start=1):
        if change is not None:
            CHANGES[change](model)
        attack(model, *batch)
        assert ReplayedGraph.captured == max(1, count - 1)


def test_graphs_are_kept_for_few_shapes_and_checked(
    network: nn.Module, batch: tuple[Tensor, Tensor], graphs: Callable[..., PGD]
) -> None:
    x, y = batch
    attack = graphs()
    for n in (1, 2, 3, 4, 5, 5, 4, 1):
        attack(network, x[:n], y[:n])
    assert ReplayedGraph.captured == 6  # 1 was the oldest of four
    with pytest.raises(ValueError, match="y must lie in"):
        attack(network, x, y + 7)
    with pytest.raises(ValueError, match="y must lie in"):
        attack(network, x[:1], y[:1] + 7)
    network.fc.bias.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        attack(network, x[:1], y[:1])


def test_graphs_of_a_model_share_their_memory(
    network: nn.Module,
    batch: tuple[Tensor, Tensor],
    graphs: Callable[..., PGD],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pools = []

    class Seen(ReplayedGraph):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            pools.append(self.pool)

    monkeypatch.setattr(graphed_steps, "GraphedLoop", Seen)
    x, y = batch
    folded = Execution(fold_batchnorm=True, cuda_graph=True)
    for n in range(1, 7):  # more than are kept
        graphs()(network, x[:n], y[:n])
    PGD(0.1, norm="l2", steps=2, seed=0, execution=folded)(network, x, y)
    network.eval()
    want = PGD(0.1, steps=3, seed=3, execution=Execution(fold_batchnorm=True))(network, x, y)
    got = PGD(0.1, steps=3, seed=3, execution=folded)(network, x, y)
    assert torch.equal(got, want), "not the graph of the model as it is"
    assert len(pools) == 8
    assert len(set(map(id, pools))) == 1
    other = copy.deepcopy(network)
    graphs()(other, x, y)
    assert pools[-1] is not pools[0]


@pytest.mark.cuda
def test_graphs_in_shared_memory_do_not_disturb_each_other(network: nn.Module) -> None:
    network.cuda()
    attack = PGD(8 / 255, steps=3, seed=0, execution=Execution(cuda_graph=True))
    plain = PGD(8 / 255, steps=3, seed=0)
    batches = [
        (torch.rand(n, 3, 16, 16, device="cuda"), torch.arange(n, device="cuda") % 5)
        for n in (6, 2, 6, 4, 2)
    ]
    streams = [torch.cuda.Stream(), torch.cuda.current_stream()]
    torch.cuda.synchronize()
    for i, (x, y) in enumerate(batches):
        with torch.cuda.stream(streams[i % 2]):
            got = attack(network, x, y)
        torch.cuda.synchronize()
        assert (got - plain(network, x, y)).abs().gt(1e-5).float().mean() < 0.01


@pytest.mark.cuda
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("fold", [False, True])
def test_cuda_graph(norm: str, fold: bool, network: nn.Module) -> None:
    network.cuda()
    graphed, eager = (
        PGD(
            8 / 255,
            norm=norm,
            steps=4,
            seed=0,
            execution=Execution(fold_batchnorm=fold, cuda_graph=graph),
        )
        for graph in (True, False)
    )
    for _ in range(3):
        x, y = torch.rand(6, 3, 16, 16, device="cuda"), torch.arange(6, device="cuda") % 5
        got, want = graphed(network, x, y), eager(network, x, y)
        # Convolutions may choose another algorithm in a graph, so not bit for bit.
        assert (got - want).abs().gt(1e-5).float().mean() < 0.01
        with torch.no_grad():
            network.conv1.weight.mul_(1.1)  # in place, as optimizers do
    assert graphed.report.graphed
