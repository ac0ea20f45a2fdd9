"""Networks are trained once, kept along the way, and resumed to the same weights."""

import contextlib
import dataclasses
import json

import pytest
import torch

from experiments.lab import networks, presets, record
from experiments.lab.networks import OutOfTime
from python_tests.support import toy_experiment as toy
from repsim_fast import models, pruning
from repsim_fast._core.locks import locked
from repsim_fast.training import trainer


@pytest.fixture
def lab(tmp_path):
    def build(name="work", **options):
        return toy.ToyLab(toy.PRESET, tmp_path / name, progress=False, **options)

    return build


def same(a, b):
    pairs = zip(a.state_dict().items(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for (_, x), y in pairs)


class Clock:
    """Time that stands still but for what a test adds."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(networks.time, "monotonic", lambda: self.now)


def test_a_network_is_trained_once_and_kept_along_the_way(lab):
    first = lab().networks
    recipe = lab().recipe(epochs=2, keep=(0, 1))
    trained = first.load(recipe)
    assert first.trained == 1
    again = lab().networks
    assert same(again.load(recipe), trained)
    assert again.trained == 0
    assert again.used == first.used
    card = again.used[recipe.name]
    assert card.commit == record.commit(record.LAB.parent) != ""
    assert card.machine == record.machine(None)
    assert card.recipe == json.loads(json.dumps(dataclasses.asdict(recipe)))
    assert card.seconds > 0
    begin = models.build("wrn-10-1", num_classes=10, in_channels=1, seed=recipe.seed)
    assert same(again.load(recipe, 0), begin)
    assert same(again.load(recipe, 2), trained)
    one, _ = models.load_checkpoint(again.folder / recipe.name / "epoch001.safetensors")
    assert same(again.load(recipe, 1), one)
    assert not same(one, trained)


def test_the_history_has_what_the_recipe_watches_and_the_experiment_adds(lab):
    networks = lab().networks
    lines = networks.history(lab().recipe(epochs=3, watch=2))
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert [line["robust_accuracy"] is not None for line in lines] == [False, True, True]
    assert all(line["twice"] == pytest.approx(2 * line["loss"], rel=1e-5) for line in lines)
    assert networks.history(lab().recipe())[0]["clean_accuracy"] is None


def test_what_is_measured_is_kept_beside_the_network(lab):
    networks, recipe = lab().networks, lab().recipe(epochs=1)
    asked = []

    def measure():
        asked.append(len(asked))
        return {"share": 1 / 3, "unknown": float("nan")}

    first = networks.measured(recipe, "figures", [3], measure)
    assert first == {"share": pytest.approx(1 / 3, rel=1e-5), "unknown": None}
    assert networks.trained == 1
    again = lab().networks
    assert again.measured(recipe, "figures", [3], measure) == first
    assert again.trained == 0
    assert recipe.name in again.used  # noted as used all the same
    assert asked == [0]
    for name, settings in (("figures", [4]), ("others", [3])):
        again.measured(recipe, name, settings, measure)
    assert asked == [0, 1, 2]
    measured = again.train(recipe).measured
    assert [entry["settings"] for entry in measured.values()] == [[3], [4], [3]]
    assert [name.partition("-")[0] for name in measured] == ["figures", "figures", "others"]


def test_with_cards_another_machine_goes_on_without_weights(lab, tmp_path):
    """What is known is not asked again; a network that is looked at is trained anew."""
    cards = tmp_path / "cards"
    first, recipe = lab(cards=cards).networks, lab().recipe(epochs=2, watch=1)
    accuracy = lab(cards=cards).accuracy(recipe)
    known = first.measured(recipe, "figures", [3], lambda: 1.0)
    assert [path.name for path in cards.iterdir()] == [f"{recipe.name}.json"]
    elsewhere = lab("elsewhere", cards=cards)
    other = elsewhere.networks
    assert other.measured(recipe, "figures", [3], lambda: 2.0) == known
    assert elsewhere.accuracy(recipe) == accuracy
    assert other.history(recipe) == first.history(recipe)
    other.share([recipe])
    assert other.trained == 0
    assert not list(other.folder.rglob("*.*"))
    other.load(recipe)
    assert other.trained == 1
    # Of other weights: it counts no more.
    assert other.measured(recipe, "figures", [3], lambda: 2.0) == 2.0


def test_a_card_is_kept_until_the_new_training_ends(lab, tmp_path, monkeypatch):
    """Also where that is stopped; half a network is not taken for one."""
    clock, cards = Clock(monkeypatch), tmp_path / "cards"
    recipe = lab().recipe(epochs=3)
    first = lab(cards=cards).networks
    first.measured(recipe, "figures", [3], lambda: 1.0)
    stopped = lab("elsewhere", cards=cards, deadline=10.0).networks
    monkeypatch.setattr(stopped, "plan", slow(stopped.plan, clock, 6.0))
    with pytest.raises(OutOfTime, match="stopped after 1 of 3 epochs"):
        stopped.load(recipe)
    resumed = lab("elsewhere", cards=cards).networks
    assert resumed.measured(recipe, "figures", [3], lambda: 2.0) == 1.0
    assert resumed.trained == 0
    assert same(resumed.load(recipe), first.load(recipe))
    assert resumed.trained == 1
    assert resumed.measured(recipe, "figures", [3], lambda: 2.0) == 2.0


def test_a_measurement_that_trains_anew_counts_for_the_new_network(lab, tmp_path):
    cards = tmp_path / "cards"
    recipe = lab().recipe()
    lab(cards=cards).networks.measured(recipe, "figures", [3], lambda: 1.0)
    other = lab("elsewhere", cards=cards).networks

    def measure():
        other.load(recipe)
        return 2.0

    assert other.measured(recipe, "figures", [4], measure) == 2.0
    measured = other.train(recipe).measured.values()
    assert [entry["settings"] for entry in measured] == [[4]]


def test_a_stopped_training_goes_on_to_the_same_network(lab, monkeypatch):
    clock = Clock(monkeypatch)
    recipe = lab().recipe(epochs=3, keep=(1,))
    whole = lab("whole").networks
    whole.train(recipe)
    stopped = lab("parts", deadline=10.0).networks
    monkeypatch.setattr(stopped, "plan", slow(stopped.plan, clock, 6.0))
    with pytest.raises(OutOfTime, match="stopped after 1 of 3 epochs of wrn-10-1-standard-seed0"):
        stopped.train(recipe)  # a second epoch would end at 12
    stopped.deadline = 7.0
    with pytest.raises(OutOfTime, match="stopped after 1 of 3 epochs"):
        stopped.train(recipe)
    resumed = lab("parts").networks
    for epoch in (None, 1):
        assert same(resumed.load(recipe, epoch), whole.load(recipe, epoch))
    assert not (resumed.folder / recipe.name / "resume.safetensors").exists()


def slow(plan, clock, seconds):
    """Epochs that take so long."""

    def planned(recipe):
        asked = plan(recipe)

        def on_epoch(model, record):
            clock.now += seconds
            return asked.on_epoch(model, record)

        return dataclasses.replace(asked, on_epoch=on_epoch)

    return planned


def test_time_that_is_over_after_the_last_epoch_stops_nothing(lab, monkeypatch):
    clock = Clock(monkeypatch)
    late = lab(deadline=5.0).networks
    monkeypatch.setattr(late, "plan", slow(late.plan, clock, 6.0))
    recipe = lab().recipe(epochs=1)
    late.train(recipe)
    assert late.trained == 1
    other = dataclasses.replace(recipe, seed=1)
    with pytest.raises(OutOfTime, match="stopped before wrn-10-1-standard-seed1"):
        late.train(other)
    assert not (late.folder / other.name).exists()


def test_a_network_that_is_stopped_for_another_reason_is_done(lab, monkeypatch):
    enough = lab().networks

    def stop(model, record):
        raise networks.training.StopTraining("collapsed", {"twice": 1.0})

    plan = enough.plan
    monkeypatch.setattr(
        enough, "plan", lambda recipe: dataclasses.replace(plan(recipe), on_epoch=stop)
    )
    recipe = lab().recipe(epochs=3)
    assert [line["twice"] for line in enough.history(recipe)] == [1.0]
    assert (enough.folder / recipe.name / "card.json").exists()


@pytest.mark.parametrize("text", ["", "{}", '{"seconds": -1}'])
def test_a_card_that_was_damaged_is_made_anew(lab, text):
    first = lab().networks
    recipe = lab().recipe(epochs=2)
    card = first.train(recipe)
    (first.folder / recipe.name / "card.json").write_text(text)
    again = lab().networks
    # Which commit trained it, and where, is not known any more.
    assert again.train(recipe) == dataclasses.replace(card, commit="", machine="")
    assert again.trained == 0


def test_processes_share_the_networks_of_a_folder(lab):
    """A network that another process trains is left to it; the rest is done in order."""
    recipes = [lab().recipe(seed=seed) for seed in range(3)]
    one, other = lab().networks, lab().networks
    taken = one.folder / recipes[1].name
    taken.mkdir(parents=True)
    with locked(taken / ".training.lock"):
        other.share(recipes)
    assert list(other.used) == [recipes[0].name, recipes[2].name]
    one.share(recipes)
    assert one.trained == 1
    assert set(one.used) == {recipe.name for recipe in recipes}
    assert not list(one.folder.rglob(".*"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pruned(toy.Recipe):
    begins: toy.Recipe

    @property
    def after(self):
        return (self.begins,)


def pruning_networks(lab, masks, **options):
    """Networks whose pruned recipes begin with another network and train it under masks."""
    networks = lab(**options).networks
    plan = networks.plan

    def planned(recipe):
        asked = plan(recipe)
        if not isinstance(recipe, Pruned):
            return asked
        begin = networks.load(recipe.begins)
        return dataclasses.replace(asked, model=begin, masks=masks)

    networks.plan = planned
    return networks


def half(model):
    """Masks that the training keeps."""
    pruning.prune(model, 0.5)
    return contextlib.nullcontext()


@pytest.mark.parametrize("masks", [half, lambda model: pruning.learned_scores(model, 0.5)])
def test_a_masked_network_is_kept_as_an_ordinary_one_and_resumed(lab, monkeypatch, masks):
    clock = Clock(monkeypatch)
    recipe = Pruned(**vars(lab().recipe(epochs=3)), begins=lab().recipe(epochs=1))
    whole = pruning_networks(lab, masks, name="whole")
    trained = whole.load(recipe)
    left = pruning.report(trained)
    assert all(layer.sparsity == pytest.approx(0.5, abs=0.02) for layer in left.layers)
    assert not any("parametrizations" in name for name in trained.state_dict())
    assert not same(trained, whole.load(recipe.begins))
    stopped = pruning_networks(lab, masks, name="parts", deadline=16.0)
    monkeypatch.setattr(stopped, "plan", slow(stopped.plan, clock, 6.0))
    with pytest.raises(OutOfTime, match="stopped after 1 of 3 epochs"):
        stopped.train(recipe)  # the network it begins with ends at 6, a second epoch would at 18
    resumed = pruning_networks(lab, masks, name="parts")
    assert same(resumed.load(recipe), trained)


def test_processes_wait_for_the_networks_that_a_training_begins_with(lab, monkeypatch):
    recipe = Pruned(**vars(lab().recipe(epochs=1)), begins=lab().recipe(epochs=1))
    one, other = (pruning_networks(lab, half) for _ in range(2))
    taken = one.folder / recipe.begins.name
    taken.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(taken / ".training.lock"))
        naps = []

        def nap(seconds):
            naps.append(seconds)
            if len(naps) == 2:  # the other process ends without having trained it
                stack.close()

        monkeypatch.setattr(networks.time, "sleep", nap)
        other.share([recipe])
    assert len(naps) == 2
    assert list(other.used) == [recipe.begins.name, recipe.name]
    one.share([recipe])
    assert one.trained == 0


def test_time_that_is_over_stops_before_the_next_network(lab, monkeypatch):
    clock = Clock(monkeypatch)
    late = lab(deadline=5.0).networks
    monkeypatch.setattr(late, "plan", slow(late.plan, clock, 6.0))
    recipes = [lab().recipe(epochs=1, seed=seed) for seed in range(2)]
    with pytest.raises(OutOfTime, match="stopped before wrn-10-1-standard-seed1"):
        late.share(recipes)
    late.share(recipes[:1])  # done is done


@pytest.mark.parametrize("native", [None, torch.bfloat16])
def test_precision_is_what_the_machine_multiplies(lab, monkeypatch, tmp_path, native):
    """Emulated bfloat16 would take many times as long as float32."""
    for module in (presets, trainer):
        monkeypatch.setattr(module, "native_half", lambda device: native)
    auto = dataclasses.replace(toy.PRESET, autocast="auto")
    assert auto.half is native
    machine = record.Record(tmp_path / "run.json", auto, tmp_path).machine
    assert machine.endswith("bfloat16" if native else "float32")
    asked = toy.ToyLab(auto, tmp_path, progress=False)
    seen = []

    def watched(module, inputs, output):
        seen.append(output.dtype)

    plan = asked.networks.plan(asked.recipe())
    plan.model.conv1.register_forward_hook(watched)
    monkeypatch.setattr(asked.networks, "plan", lambda recipe: plan)
    asked.networks.train(asked.recipe())
    assert (native or torch.float32) in seen
    assert (torch.bfloat16 in seen) == (native is not None)


def test_recipes_differ_in_name_where_they_differ_at_all(lab):
    recipe = lab().recipe()
    others = [
        dataclasses.replace(recipe, **change)
        for change in ({"lr": 0.1}, {"keep": (0,)}, {"images": 30}, {"method": "fgsm"})
    ]
    assert len({r.name for r in (recipe, *others)}) == 5
    assert lab().recipe().name == recipe.name
    assert json.loads(json.dumps(dataclasses.asdict(recipe)))["dataset"] == "digits 60"
