"""Data sets by name, and threat models at several strengths."""

import pytest

from experiments.lab import datasets
from experiments.lab.threats import Threat, pgd
from repsim_fast import attacks


def test_a_data_set_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("REPSIM_DATA", str(tmp_path))
    assert datasets.find("digits") == datasets.DataSet("digits", "digits", None)
    (tmp_path / "cifar10").mkdir()
    found = datasets.find("cifar10", size=16)
    assert (found.spec, found.augment, found.size) == (str(tmp_path / "cifar10"), "crop+flip", 16)
    with pytest.raises(ValueError, match=r"tiny-imagenette is not at .*: set REPSIM_DATA"):
        datasets.find("tiny-imagenette")


@pytest.mark.parametrize(
    ("source", "name"),
    [("folder:/data/birds/", "birds"), ("/data/dogs", "dogs"), ("cifar10:data", "data")],
)
def test_another_source_is_named_after_its_last_part(source, name):
    assert datasets.find(source).name == name
    assert datasets.find(source).spec == source


def test_a_strength_multiplies_what_is_in_units_of_the_radius():
    threat = pgd("l2", 1.0, steps=(4, 10), step_sizes=(0.4, 0.25))
    half = threat.build(strength=0.5)
    assert isinstance(half, attacks.PGD)
    assert repr(half) == repr(
        attacks.PGD(0.5, norm="l2", steps=10, step_size=0.125, execution="fast", seed=0)
    )
    assert threat.build(training=True).steps == 4
    moved = Threat(
        "RotationTranslation", ("max_translation", "max_rotation"),
        {"max_translation": 2.0, "max_rotation": 10.0}, {"n_random": 3}, {"grid": 3},
    ).build(strength=2)  # fmt: skip
    assert (moved.max_translation, moved.max_rotation) == (4.0, 20.0)
