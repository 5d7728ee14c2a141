"""What crosses between a program and its tests as data: unchanged, and nothing that runs code."""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.sandbox.exchange.wire import PLAIN, Foreign

DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.frozensets(st.integers() | st.text())
        | st.sets(st.tuples(st.integers(), st.text()))
    ),
    max_leaves=20,
)


@settings(deadline=None, derandomize=True)
@given(DATA)
def test_plain_data_crosses_as_it_is(value: Any) -> None:
    found = PLAIN.loads(PLAIN.dumps(value))
    assert found == value
    assert repr(found) == repr(value) or isinstance(value, set | frozenset | dict | list | tuple)
    assert type(found) is type(value)
    assert PLAIN.dumps(value).count(b"\n") == 1


Point = namedtuple("Point", "x y")


def test_data_of_the_standard_library_crosses_as_it_is_and_objects_do_not() -> None:
    views = ({1: 2}.keys(), {1: 2}.items())
    times = (date(2024, 2, 29), datetime(2024, 2, 29, 1, 2, 3, 4), time(1, 2), timedelta(1, 2, 3))
    numbers = (Fraction(1, 3), Decimal("0.1"), 10**6000, -(2**40000))
    for known in (range(1, 9, 2), deque([1], 3), bytearray(b"a"), Counter("aab"), OrderedDict(b=1), *numbers, *times, *views):
        found = PLAIN.loads(PLAIN.dumps(known))
        assert found == known
        assert type(found) is type(known)
    assert list(PLAIN.loads(PLAIN.dumps({1: [2]}.values()))) == [[2]]
    lists = PLAIN.loads(PLAIN.dumps(defaultdict(list, a=[1])))
    assert (lists["a"], lists["b"]) == ([1], [])
    point = PLAIN.loads(PLAIN.dumps(Point(1, [2])))
    assert (point.x, point.y, point) == (1, [2], (1, [2]))
    for value in (object(), len, type, [object()], {"a": object()}, (i for i in "a"), np.array([object()]), [1, {2: object()}]):
        with pytest.raises(Foreign):
            PLAIN.dumps(value)


@pytest.mark.parametrize("kind", ["int64", "float32", "bool", "complex128", "<U3", "S2", "datetime64[D]"])
def test_arrays_cross_with_their_shape_and_type(kind: str) -> None:
    array = np.arange(6).astype(kind).reshape(2, 3)
    found = PLAIN.loads(PLAIN.dumps(array))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    found[0, 0] = found[1, 1]  # it can be written to, like the original


def test_numbers_of_numpy_keep_their_type_where_numpy_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (np.int64(3), np.float32(0.5), np.bool_(True), np.str_("a"), np.datetime64("2024-01-02")):
        found = PLAIN.loads(PLAIN.dumps(value))
        assert found == value
        assert type(found) is type(value)
    line = PLAIN.dumps([np.int64(3), np.float64(0.5), np.bool_(True)])
    monkeypatch.delitem(sys.modules, "numpy")
    assert [type(number) for number in PLAIN.loads(line)] == [int, float, bool]


@pytest.mark.parametrize(
    "line",
    [b'{"object": 1}', b'{"ndarray": ["O", [1], "00"]}', b'{"namedtuple": ["x", ["__import__(1)"], [1]]}', b'{"int": 3}', b"{}",
     b'{"a": 1, "b": 2}', b'{"defaultdict": ["eval", []]}', b"["],
)  # fmt: skip
def test_what_no_program_could_have_packed_is_refused(line: bytes) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        PLAIN.loads(line)
