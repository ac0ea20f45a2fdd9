"""The experiment end to end, tiny; its recipes, refusals and README."""

import dataclasses

import pytest
import torch

from experiments.compact_robust import presets
from experiments.compact_robust.compact_lab import CompactLab, check
from experiments.compact_robust.experiment import EXPERIMENT
from experiments.compact_robust.presets import Network
from experiments.compact_robust.questions import QUESTIONS
from experiments.lab import command
from python_tests.support import experiment_runs
from python_tests.support.op_tester import devices
from repsim_fast import pruning
from repsim_fast.training.methods import Progress, TrainingBatch
from repsim_fast.verification import certify, margin_bounds

TINY = dataclasses.replace(
    presets.PRESETS["smoke"],
    architecture="cnn-small-w4",
    others=(Network("vgg-16-w2", "smoothing", 0.05),),
    other_seeds=1,
    train_images=60,
    test_images=40,
    epochs=1,
    batch_size=30,
    compare_batch=20,
    sparsities=(0.5, 0.75),
    focus=0.5,
    filter_sparsities=(0.5,),
    rounds=2,
    score_epochs=1,
    fine_epochs=2,
    training_steps=1,
    attack_steps=2,
    proven=10,
    draws=50,
    carried=20,
)


@pytest.fixture
def lab(tmp_path):
    return CompactLab(TINY, tmp_path / "work", progress=False)


def run(monkeypatch, tmp_path, *arguments, preset=TINY):
    return experiment_runs.run(EXPERIMENT, preset, monkeypatch, tmp_path, *arguments)


@pytest.mark.parametrize("device", devices())
def test_every_question_gives_results_claims_and_provenance(monkeypatch, tmp_path, device):
    """In mixed precision, as the larger presets train; the smoke preset goes without."""
    preset = dataclasses.replace(TINY, device=device, autocast="bfloat16", mixed=("smoothing",))
    assert run(monkeypatch, tmp_path, preset=preset) == 0
    results = tmp_path / "results" / "smoke"
    experiment_runs.answered(EXPERIMENT, results)
    table = EXPERIMENT.blocks["accuracies"]([results]).splitlines()[2:]
    names = ("cnn-small-w4, pgd", "vgg-16-w2, smoothing")
    assert [line.split("|")[1].strip() for line in table] == [n for n in names for _ in range(6)]
    # A second run trains and measures nothing.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.json")}
    assert run(monkeypatch, tmp_path, "--only", "Q1,Q6", "--again", preset=preset) == 0
    assert experiment_runs.trained_again(results, "Q1") == 0
    assert experiment_runs.trained_again(results, "Q6") == 0
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_the_networks_named_before_are_those_that_a_question_trains(monkeypatch, lab, tmp_path):
    asking = experiment_runs.asked_of_each_question(EXPERIMENT, lab, monkeypatch, tmp_path)
    for number, asked, recipes in asking:
        named = {recipe.name for recipe in recipes}
        # Also asked for when a network that begins with them is trained.
        earlier = {r.name for recipe in recipes for r in recipe.after}
        assert asked <= named | earlier, number
        assert named <= asked | earlier, number


def test_stages_begin_with_each_other(lab):
    dense = lab.dense(lab.network, 0)
    assert dense.after == ()
    plain = lab.pruned(dense, 0.75)
    assert (plain.after, plain.stage, plain.sparsity) == ((dense,), "finetune", 0.75)
    assert plain.lr == pytest.approx(TINY.lr * TINY.fine_share)
    learned = lab.pruned(dense, 0.75, "learned")
    (scores,) = learned.after
    assert (scores.after, scores.stage, scores.lr) == ((dense,), "scores", TINY.score_lr)
    assert dataclasses.replace(learned, begins=dense) == plain
    last = lab.pruned(dense, 0.75, "iterative")
    (first,) = last.after
    assert (first.after, first.sparsity, last.sparsity) == ((dense,), 0.5, 0.75)
    assert first.epochs + last.epochs == plain.epochs
    other = lab.pruned(dense, 0.75, objective="standard")
    assert other.objective == "standard"
    assert lab.training(other).options["method"].name == "standard"
    assert lab.training(plain).options["method"].name == "pgd"
    assert len({r.name for r in (dense, plain, learned, scores, last, first, other)}) == 7


def test_the_radius_grows_while_a_network_is_pretrained_and_only_then(tmp_path):
    plain = Network("cnn-small-w4", "pgd", 0.05, ramp=0.5)
    lab = CompactLab(dataclasses.replace(TINY, others=(plain,)), tmp_path, progress=False)
    dense = lab.dense(plain, 0)
    assert (dense.ramp, lab.dense(lab.network, 0).ramp) == (0.5, 0.0)

    def reached(recipe, fraction):
        asked = lab.training(recipe)
        batch = TrainingBatch(
            torch.full((4, 1, 8, 8), 0.5), torch.arange(4), torch.Generator().manual_seed(0),
            Progress(fraction=fraction),
        )  # fmt: skip
        perturbed = asked.options["method"].perturb(asked.model.train(), batch)
        return float((perturbed - batch.x).abs().max())

    assert reached(dense, 0.25) == pytest.approx(TINY.eps / 2)
    assert reached(dense, 0.75) == pytest.approx(TINY.eps)
    for way in ("magnitude", "learned", "iterative"):
        assert lab.pruned(dense, 0.75, way).ramp == 0.0
    scores = lab.pruned(dense, 0.75, "learned").begins
    assert scores.ramp == 0.0
    assert reached(scores, 0.0) == pytest.approx(TINY.eps)


def zeros(model):
    return {name: m.weight == 0 for name, m in model.named_modules() if hasattr(m, "weight")}


@pytest.mark.parametrize("way", ["magnitude", "learned", "iterative"])
def test_pruned_networks_have_the_masks_of_their_stages(lab, way):
    dense = lab.dense(lab.network, 0)
    recipe = lab.pruned(dense, 0.75, way)
    pruned = lab.model_of(recipe)
    report = pruning.report(pruned)
    assert all(layer.kept == layer.weights - int(0.75 * layer.weights) for layer in report.layers)
    (begins,) = recipe.after
    before, after = zeros(lab.model_of(begins)), zeros(pruned)
    if way == "magnitude":
        expected = lab.model_of(dense)
        pruning.prune(expected, 0.75)
        assert all(torch.equal(after[n], m.weight == 0) for n, m in expected.named_modules()
                   if n in after)  # fmt: skip
    else:  # what the stage before pruned stays pruned
        assert all(bool(after[name][gone].all()) for name, gone in before.items())
    same = all(torch.equal(after[name], gone) for name, gone in before.items())
    assert same == (way == "learned")
    sizes = lab.compact(recipe)
    assert sizes["weights left"] == pytest.approx(report.kept / report.weights, rel=1e-5)
    assert sizes["bytes left"] < 1


def test_filters_are_pruned_whole(lab):
    model = lab.model_of(lab.pruned(lab.dense(lab.network, 0), 0.5, "filters"))
    for layer in (model.conv1, model.conv2):
        gone = (layer.weight == 0).flatten(1).all(1)
        assert int(gone.sum()) == len(gone) // 2
        assert not bool((layer.weight[~gone] == 0).any())
    assert not bool((model.fc1.weight == 0).any())


def test_figures_are_those_of_the_network(lab):
    recipe = lab.dense(lab.network, 0)
    found, model, (x, y) = lab.accuracies(recipe), lab.model_of(recipe), lab.images()
    with torch.no_grad():
        right = model(x).argmax(1) == y
        margins = margin_bounds(model, x[:10], y[:10], lab.radius, method="crown-ibp")
    assert found["benign"].value == pytest.approx(float(right.float().mean()), abs=1e-6)
    assert found["era"].value <= found["benign"].value
    proven = (margins.scatter(1, y[:10, None], torch.inf) > 0).all(1)
    assert found["vra"].value == pytest.approx(float(proven.float().mean()))
    smooth = lab.dense(Network("cnn-small-w4", "smoothing", 0.05), 0)
    certified = lab.accuracies(smooth)["vra"].value
    found = certify(lab.model_of(smooth), x[:10], sigma=TINY.sigma, n0=100, n=50, seed=0)
    wanted = (found.prediction == y[:10]) & (found.radius >= lab.l2_radius)
    assert certified == pytest.approx(float(wanted.float().mean()))
    assert lab.l2_radius == pytest.approx(TINY.proof * TINY.eps * 8)


def test_a_preset_that_cannot_run_says_so_first(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(monkeypatch, tmp_path, "--preset", "gpu") == command.UNABLE
    assert "needs a CUDA device" in capsys.readouterr().err
    monkeypatch.setenv("REPSIM_DATA", str(tmp_path))
    assert run(monkeypatch, tmp_path, "--preset", "cpu") == command.UNABLE
    assert "REPSIM_DATA" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sparsities": (0.75, 0.5)}, "sparsities must rise"),
        ({"focus": 0.8}, r"focus: \[0.8\] must be among"),
        ({"filter_sparsities": (0.1,)}, r"filter_sparsities: \[0.1\] must be among"),
        ({"rounds": 3}, "rounds: expected a divisor of 2 epochs, got 3"),
        ({"objective": "standard"}, "objective must be a robust one"),
        ({"objective": "unheard"}, "method must be one of"),
        ({"others": (Network("unheard", "pgd", 0.1),)}, "unknown model 'unheard'"),
    ],
)
def test_settings_that_do_not_go_together_are_said_first(tmp_path, change, message):
    preset = dataclasses.replace(TINY, **change)
    lab = CompactLab(preset, tmp_path / "work", progress=False)
    with pytest.raises(ValueError, match=message):
        check(lab)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_can_be_trained(name, tmp_path):
    """Their settings, on digits, which are there."""
    small = {"dataset": "digits", "device": "cpu", "train_images": 10, "test_images": 10}
    preset = dataclasses.replace(presets.PRESETS[name], **small)
    check(CompactLab(preset, tmp_path / "work", progress=False))


def test_questions_are_those_of_the_claims():
    assert {claim.question for claim in EXPERIMENT.claims} == set(QUESTIONS)


def test_the_readme_has_the_figures_of_the_results():
    experiment_runs.assert_readme_is_up_to_date(
        EXPERIMENT, "accuracies smoke", "| magnitude | 0.9 |"
    )
