from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.datasets.columns import Lookup, Paths, Texts, paths, texts

# Few letters, so that texts come again: none, a control character, a zero, halves of surrogates.
some = st.text("ab/\0\n\u00e9\u4e2d\ud83d\ude00\U0001f600", max_size=4)
column = st.lists(some | st.text(st.characters()), max_size=40)


@given(column, st.sampled_from([Texts, Paths]), st.data())
def test_read_as_a_tuple_of_the_same_texts(rows, kind, data):
    kept, plain = kind(rows), tuple(rows)
    assert kept == plain and plain == kept and tuple(kept) == plain
    assert kept == Texts(rows) and pickle.loads(pickle.dumps(kept)) == plain
    assert kept != (*plain, "") and (not rows or kept != (*plain[:-1], plain[-1] + "x"))
    assert [kept[i] for i in range(-len(rows), len(rows))] == [*plain, *plain]
    assert kept[1:7:2] == plain[1:7:2] and kept[::-1] == plain[::-1]
    assert np.array(kept, object).tolist() == rows
    text = data.draw(st.sampled_from(["", "a", *rows]))
    assert (kept.count(text), text in kept) == (plain.count(text), text in plain)
    drawn = st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))
    mask = np.array(data.draw(drawn), bool)
    chosen = kept.select(mask)
    assert chosen == tuple(text for text, here in zip(plain, mask, strict=True) if here)
    assert chosen.select(np.arange(len(chosen))[::-1]) == tuple(chosen)[::-1]
    for row in (len(rows), -len(rows) - 1):
        with pytest.raises(IndexError):
            kept[row]


@given(column, some)
def test_tells_which_rows_have_the_same_text(rows, text):
    kept = Texts(rows)
    assert kept.equal(text).tolist() == [other == text for other in rows]
    assert kept.first_rows().tolist() == [rows.index(text) for text in rows]
    assert kept.distinct() == len(set(rows))


@given(column, column, some)
def test_finds_a_text_as_a_dictionary_does(rows, others, text):
    found = Lookup(rows)
    for wanted in (text, *rows):
        assert found.rows(wanted) == [row for row, other in enumerate(rows) if other == wanted]
        assert (wanted in found) == (wanted in rows)
    absent = found.absent(Lookup(others))
    assert sorted(absent) == [rows.index(one) for one in dict.fromkeys(rows) if one not in others]


@given(column, st.lists(st.tuples(st.integers(0, 39), some)))
def test_grows_and_changes_as_a_list(rows, changes):
    grown, plain = Texts(), []
    for text in rows:
        grown.append(text)
        plain.append(text)
    for row, text in changes:
        if row < len(plain):
            grown[row] = plain[row] = text
    assert grown == plain


@pytest.mark.parametrize("distinct", [1, 256, 257, 70_000])
def test_many_texts_take_wider_places(distinct):
    rows = [f"patient {row % distinct}" for row in range(70_001)]
    kept = texts(rows)
    assert kept == rows and texts(kept) is kept
    assert kept.distinct() == distinct and kept[-1] == rows[-1]
    assert kept.first_rows().tolist() == [row % distinct for row in range(70_001)]


def test_a_selection_stays_as_it_is_when_its_column_grows():
    grown = Texts(["a", "b", "a"])
    chosen = grown.select(np.array([2, 1]))
    grown.append("c")
    grown[2] = "d"
    assert (grown, chosen) == (["a", "b", "d", "c"], ("a", "b"))


@pytest.mark.parametrize("folder", ["/films", "/films/", "/"])
def test_paths_are_made_relative(folder):
    base = folder.rstrip("/")
    inside = ["a.png", "train/NORMAL/b.png", "train/NORMAL/b.png", "train/c/"]
    whole = paths([f"{base}/{path}" for path in inside])
    assert paths(whole) is whole and whole.below(folder) == inside


def test_columns_that_share_letters_grow_apart():
    whole = Texts(map(str, range(200)))
    chosen, other = whole.select(np.arange(3)), whole.select(np.arange(3))
    for number in range(70_000):  # a row needs four bytes from here on, from one
        whole.append(f"text {number}")
    chosen.append("one more")
    other[0] = "another"
    assert (chosen, other) == (("0", "1", "2", "one more"), ("another", "1", "2"))
