from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.datasets.manifest import Manifest
from hilum.datasets.split import SALT, draw_parts, leaks, place
from hilum.errors import Refused, UsageError

SHARES = {"validation": 0.15, "test": 0.15}
numbers = st.lists(st.integers(0, 10**6), min_size=100, max_size=300, unique=True)


def cohort(people: list[int]) -> tuple[list[str], np.ndarray]:
    """One to three films a patient, classes by turns."""
    patient = [f"p{who}" for who in people for _ in range(1 + who % 3)]
    label = np.array([who % 2 for who in people for _ in range(1 + who % 3)], np.int8)
    return patient, label


@settings(max_examples=40)
@given(numbers, numbers)
def test_adding_films_moves_nobody(people, more):
    """What depends on a patient alone cannot move; the salt stays but for tiny sets."""
    patient, label = cohort(people)
    before, salt = draw_parts(patient, label, [""] * len(patient), SHARES)
    both = [*people, *(who for who in more if who not in set(people))]
    patient_after, label_after = cohort(both)
    after, salt_after = draw_parts(patient_after, label_after, [""] * len(patient_after), SHARES)
    if salt == salt_after:
        assert dict(zip(patient, before, strict=True)).items() <= (
            dict(zip(patient_after, after, strict=True)).items()
        )


@settings(max_examples=40)
@given(numbers, st.randoms())
def test_the_order_of_films_does_not_matter(people, random):
    patient, label = cohort(people)
    parts, _ = draw_parts(patient, label, [""] * len(patient), SHARES)
    order = list(range(len(patient)))
    random.shuffle(order)
    again, _ = draw_parts([patient[i] for i in order], label[order], [""] * len(order), SHARES)
    assert again == tuple(parts[i] for i in order)


@settings(max_examples=40)
@given(numbers)
def test_a_patient_stays_whole(people):
    patient, label = cohort(people)
    parts, _ = draw_parts(patient, label, [""] * len(patient), SHARES)
    there: dict[str, set[str]] = {}
    for who, part in zip(patient, parts, strict=True):
        there.setdefault(who, set()).add(part)
    assert all(len(found) == 1 for found in there.values())


@pytest.mark.parametrize(("validation", "test"), [(0.15, 0.15), (0.3, 0.1), (0.0, 0.2), (0.2, 0.0)])
def test_shares_are_met_within_chance(validation, test):
    n = 20_000
    patient = [f"p{i}" for i in range(n)]
    label = np.arange(n, dtype=np.int64).astype(np.int8) % 2
    parts, salt = draw_parts(patient, label, [""] * n, {"validation": validation, "test": test})
    assert salt == SALT
    for part, share in (("validation", validation), ("test", test)):
        bound = 4 * np.sqrt(share * (1 - share) / n)
        assert abs(parts.count(part) / n - share) <= bound


def test_another_validation_share_leaves_the_test_part():
    patient, label = cohort(list(range(500)))
    free = [""] * len(patient)
    a, _ = draw_parts(patient, label, free, {"validation": 0.1, "test": 0.15})
    b, _ = draw_parts(patient, label, free, {"validation": 0.3, "test": 0.15})
    assert [p == "test" for p in a] == [p == "test" for p in b]


def test_places_are_uniform_and_apart():
    values = np.array(
        [[place(f"p{i}", part, SALT) for part in ("test", "validation")] for i in range(4000)]
    )
    assert abs(np.corrcoef(values.T)[0, 1]) < 0.06
    counts, _ = np.histogram(values[:, 0], 10, (0, 1))
    assert ((counts - 400) ** 2 / 400).sum() < 33.7  # chi-squared with 9, at 1e-4


def test_published_parts_stay():
    patient, label = cohort(list(range(300)))
    published = ["test" if i % 5 == 0 else "train" for i in range(len(patient))]
    parts, _ = draw_parts(patient, label, published, {"validation": 0.15})
    assert [p == "test" for p in parts] == [p == "test" for p in published]
    assert "validation" in parts


def test_a_class_that_is_missing_by_chance_takes_the_next_salt():
    for people in range(12, 30):
        patient = [f"child-{i}" for i in range(people)]
        label = np.array([i % 2 for i in range(people)], np.int8)
        parts, _ = draw_parts(patient, label, [""] * people, SHARES)
        have = set(zip(parts, label.tolist(), strict=True))
        assert have == {(p, c) for p in ("train", "validation", "test") for c in (0, 1)}


def test_too_few_patients_are_refused():
    with pytest.raises(Refused, match="too few patients: 2"):
        draw_parts(["a", "b"], np.array([0, 1], np.int8), ["", ""], SHARES)


@pytest.mark.parametrize("shares", [{"validation": 0.6, "test": 0.4}, {"validation": -0.1}])
def test_impossible_shares(shares):
    with pytest.raises(UsageError, match="no room for training"):
        draw_parts(["a"], np.array([0], np.int8), [""], shares)


def test_leaks_are_found_with_their_rows():
    manifest = Manifest(
        Path("/"),
        tuple("abcdef"),
        np.zeros(6, np.int8),
        ("p", "q", "p", "r", "q", "s"),
        ("train", "train", "test", "", "train", ""),
    )
    (leak,) = leaks(manifest)
    assert (leak.patient, leak.parts, leak.rows) == ("p", ("train", "test"), (0, 2))


def test_films_of_no_part_follow_their_patient_into_a_published_part():
    """A row without a part is no way for a patient of the test part into training."""
    patient, label = cohort(list(range(90)))
    part = ["test" if who in ("p1", "p2", "p5") else "" for who in patient]
    part[patient.index("p2")] = part[patient.index("p5")] = ""
    parts, _ = draw_parts(patient, label, part, {"validation": 0.15})
    for who in ("p1", "p2", "p5"):
        assert {p for p, owner in zip(parts, patient, strict=True) if owner == who} == {"test"}
