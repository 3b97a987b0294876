"""The store: what is made once, what is evicted, and what a key does and does not depend on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuclust.config import CleanConfig, Config, DataConfig, ScaleConfig
from gpuclust.runtime.cache import ResultCache, key, matrix_key, nbytes, table_key


def test_a_thing_is_made_once() -> None:
    store = ResultCache()
    for _ in range(3):
        assert store.get_or_create("table-1", lambda: "made") == "made"
    assert store.n_created["table"] == 1


def test_the_least_recently_used_goes_first_and_the_newest_stays() -> None:
    store = ResultCache(limit=200)
    block = np.zeros(100, dtype=np.uint8)
    store.get_or_create("a-1", lambda: block)
    store.get_or_create("b-1", lambda: block)
    store.get_or_create("a-1", lambda: block)
    store.get_or_create("c-1", lambda: np.zeros(150, dtype=np.uint8))
    store.get_or_create("a-1", lambda: block)
    assert store.n_created == {"a": 2, "b": 1, "c": 1}


def test_one_thing_larger_than_the_limit_is_kept_while_it_is_the_newest() -> None:
    store = ResultCache(limit=10)
    store.get_or_create("a-1", lambda: np.zeros(100))
    store.get_or_create("a-1", lambda: pytest.fail("it was made again"))


def test_keys_chain() -> None:
    one, other = Config(), Config(scale=ScaleConfig(method="minmax"))
    table = table_key(one, "f")
    assert table == table_key(other, "f") != table_key(one, "g")
    assert matrix_key(one, table) != matrix_key(other, table)


def test_the_path_does_not_matter_but_cleaning_and_columns_do() -> None:
    def of(**data: object) -> str:
        return table_key(Config(data=DataConfig(**data)), "f")  # type: ignore[arg-type]

    assert of(path="a.csv") == of(path="b/c.csv")
    assert of(features=["x"]) != of(features=["y"])
    assert table_key(Config(clean=CleanConfig(duplicates="id")), "f") != table_key(Config(), "f")


@given(st.dictionaries(st.text(max_size=5), st.integers(), max_size=4))
def test_a_key_ignores_the_order_of_a_mapping(values: dict[str, int]) -> None:
    assert key("k", values) == key("k", dict(reversed(values.items())))


def test_bytes_of_nested_dataclasses() -> None:
    from gpuclust.model.preparation import Scaling

    assert nbytes(Scaling("standard", np.zeros(4), np.zeros(4))) == 64


def test_who_claims_a_cost_first_pays_it() -> None:
    store = ResultCache()
    store.get_or_create("table-1", lambda: sum(range(100_000)))
    first, second = store.pop_seconds("table-1"), store.pop_seconds("table-1")
    assert first > 0
    assert second == 0
