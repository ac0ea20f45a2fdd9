"""Several evaluation sets and attacks an epoch, each by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from repsim_fast.attacks import FGSM, PGD
from repsim_fast.training import Evaluation, History, Saving, StopTraining, evaluate, methods, train

Build = Callable[..., nn.Module]
Pair = tuple[Tensor, Tensor]


def run(net: nn.Module, data: Pair, **options: Any) -> History:
    return train(net, data, batch_size=64, seed=3, progress=False, **options)


def dark(data: Pair) -> Pair:
    return data[0] * 0.3, data[1]


def both(few: Pair, **options: Any) -> Evaluation:
    attacks = {"pgd": PGD(0.1, steps=2, seed=1), "fgsm": FGSM(0.1)}
    return Evaluation({"clean": few, "dark": dark(few)}, attacks, **options)


def test_figures_are_those_of_each_set_and_attack_alone(
    small_net: Build, few: Pair, tmp_path: Path
) -> None:
    net, log = small_net(), tmp_path / "log.jsonl"
    history = run(net, few, epochs=1, evaluation=both(few), saving=Saving(tmp_path, log=log))
    want = {}
    for name, data in (("clean", few), ("dark", dark(few))):
        for attack, made in (("pgd", PGD(0.1, steps=2, seed=1)), ("fgsm", FGSM(0.1))):
            scores = evaluate(net, data, made)
            want |= {name: scores.clean, f"{name}/{attack}": scores.robust}
    assert history.last.accuracies == want
    assert history.last.clean_accuracy == want["clean"]
    assert history.last.robust_accuracy == want["clean/pgd"]
    assert len(set(want.values())) > 3
    assert want.items() <= json.loads(log.read_text()).items()
    again = run(
        small_net(), few, epochs=1, evaluation=both(few), saving=Saving(tmp_path, resume=True)
    )
    assert again.epochs == history.epochs


def test_the_named_accuracy_chooses_the_best_epoch(
    small_net: Build, few: Pair, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"epochs": 4, "lr": 0.5, "schedule": "constant"}
    evaluation = both(few, attacked=["dark"], best="dark/fgsm")

    def stop(model: nn.Module, record: object) -> None:
        if len(history_so_far) == 1:
            raise StopTraining("later")
        history_so_far.append(record)

    history_so_far: list[object] = []
    whole = run(small_net(), few, evaluation=evaluation, **options)
    run(small_net(), few, evaluation=evaluation, on_epoch=stop, saving=Saving(tmp_path), **options)
    resumed = run(
        small_net(), few, evaluation=evaluation, saving=Saving(tmp_path, resume=True), **options
    )
    assert [e.accuracies for e in resumed.epochs] == [e.accuracies for e in whole.epochs]
    assert list(whole.last.accuracies) == ["clean", "dark", "dark/pgd", "dark/fgsm"]
    assert whole.last.robust_accuracy is None
    for history in (whole, resumed):
        assert history.best.accuracies["dark/fgsm"] == max(
            epoch.accuracies["dark/fgsm"] for epoch in history.epochs
        )


def test_names_of_one_alone(small_net: Build, few: Pair) -> None:
    attack = PGD(0.1, steps=1, seed=0)
    history = run(small_net(), few, epochs=1, evaluation=Evaluation(few, {"pgd": attack}))
    assert history.last.accuracies == {"pgd": history.last.robust_accuracy}
    history = run(small_net(), few, epochs=1, evaluation=Evaluation({"all": few}, attack))
    assert history.last.accuracies == {
        "all": history.last.clean_accuracy,
        "all/attacked": history.last.robust_accuracy,
    }
    plain = run(small_net(), few, epochs=1, evaluation=Evaluation(few, attack))
    assert plain.last.accuracies == {}
    assert plain.last.robust_accuracy == history.last.robust_accuracy


def test_images_held_out_come_first(small_net: Build, few: Pair) -> None:
    evaluation = Evaluation({"dark": dark(few)}, validation=0.1)
    history = run(small_net(), few, epochs=1, evaluation=evaluation)
    assert list(history.last.accuracies) == ["validation", "dark"]
    assert history.last.clean_accuracy == history.last.accuracies["validation"]


def test_a_figure_of_the_caller_has_another_name(small_net: Build, few: Pair) -> None:
    with pytest.raises(RuntimeError, match="the record has a figure 'dark' already"):
        run(small_net(), few, epochs=1, evaluation=both(few), on_epoch=lambda *_: {"dark": 1.0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": {}}, "data: expected a set at least"),
        ({"data": 1, "attack": {}}, "attack: expected an attack at least"),
        ({"data": {"loss": 1}}, "data: names must not be empty"),
        ({"data": {"a/b": 1}}, "data: names must not be empty"),
        ({"data": {"a": 1}, "attack": {"": FGSM(0.1)}}, "attack: names must not be empty"),
        ({"data": {"a": 1}, "best": "b"}, r"best must be one of \['a'\], got 'b'"),
        ({"data": {"a": 1}, "attacked": ["a"]}, "attacked needs an attack"),
        ({"attack": PGD(0.1)}, "attack: needs images to attack, got neither data nor validation"),
        ({"data": {"a": 1}, "attack": FGSM(0.1), "attacked": ["b"]}, "attacked must name sets"),
        ({"data": {"validation": 1}, "validation": 0.1}, "'validation' is the name of the images"),
        ({"data": 1, "validation": 0.1}, "validation takes the place of data without names"),
    ],
)
def test_bad_names(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Evaluation(**options)


def test_bad_data_is_told_before_training(small_net: Build, few: Pair) -> None:
    wrong = (few[0], few[1] + 5)
    called: list[int] = []
    with pytest.raises(ValueError, match="the model's classes, got labels in"):
        run(
            small_net(), few, epochs=1, evaluation=Evaluation({"clean": few, "far": wrong}),
            on_epoch=lambda *_: called.append(1),
        )  # fmt: skip
    assert called == []
    with pytest.raises(TypeError, match=r"evaluation data 'clean' must have \.images"):
        run(small_net(), few, epochs=1, evaluation=Evaluation({"clean": 7}))


def test_evaluate_takes_one_callback_for_one_attack(small_net: Build, few: Pair) -> None:
    attacks = {"a": FGSM(0.1), "b": FGSM(0.2)}
    scores = evaluate(small_net(), few, attacks)
    assert scores.under == {
        name: evaluate(small_net(), few, one).robust for name, one in attacks.items()
    }
    assert scores.robust == scores.under["a"]
    with pytest.raises(ValueError, match="on_batch wants the images of one attack"):
        evaluate(small_net(), few, attacks, on_batch=lambda *_: None)


NO_IMAGES = {
    "one for all": (lambda x: x[:1], ValueError, r"of shape \(.*\) on cpu, got \(1, "),
    "too few": (lambda x: x[1:], ValueError, r"of shape \(.*\) on cpu, got"),
    "elsewhere": (lambda x: x.to("meta"), ValueError, "on meta"),
    "integers": (lambda x: (x * 255).byte(), TypeError, "floating-point tensor.*uint8"),
    "an array": (lambda x: x.numpy(), TypeError, "floating-point tensor.*ndarray"),
    "nothing": (lambda x: None, TypeError, "floating-point tensor.*NoneType"),
}


@pytest.mark.parametrize("what", NO_IMAGES)
def test_an_attack_must_give_an_image_for_each(what: str, small_net: Build, few: Pair) -> None:
    make, error, message = NO_IMAGES[what]

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Any:
        return make(x)

    with pytest.raises(error, match=f"^attack must return .*{message}"):
        evaluate(small_net(), few, attack)
    with pytest.raises(error, match=f"^attack 'mine' must return .*{message}"):
        evaluate(small_net(), few, {"fgsm": FGSM(0.1), "mine": attack})
    with pytest.raises(error, match=f"the attack of method 'adversarial' must return .*{message}"):
        run(small_net(), few, epochs=1, method=methods.adversarial(attack))
