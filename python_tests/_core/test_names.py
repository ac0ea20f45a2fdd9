"""Lists of names that the command line reads, against the registers of what they stand for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from repsim_fast._core import names
from repsim_fast.similarity import get_measure, measure_info
from repsim_fast.similarity.base.measure import register


def test_measures_are_those_registered_in_the_order_of_listings() -> None:
    infos = [measure_info(name) for name in names.MEASURES]
    assert [info.name for info in infos] == list(names.MEASURES)
    assert infos == sorted(infos, key=lambda info: (info.kind == "distance", info.name))


def test_a_measure_that_is_not_listed_is_not_registered() -> None:
    cka = type(get_measure("cka"))
    unlisted = type("Unlisted", (cka,), {"info": replace(cka.info, name="unlisted")})
    with pytest.raises(RuntimeError, match="unlisted: expected among MEASURES of _core/names"):
        register(unlisted)
    with pytest.raises(ValueError, match="expected one of"):
        get_measure("unlisted")


@pytest.mark.parametrize("register", [["a"], ["a", "b", "c"], ["b", "a"]])
def test_a_register_of_other_names_is_refused(register: list[str]) -> None:
    names.check_same(("a", "b"), dict.fromkeys(["a", "b"]))
    with pytest.raises(RuntimeError, match="expected those of _core/names"):
        names.check_same(("a", "b"), register)
