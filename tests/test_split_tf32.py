"""The model of split TF32 products: roundings, sums, and the record behind docs/cuda.md."""

import json

import numpy as np
import pytest
from benchmarks.split_tf32 import CASES, RECORD, WAYS, coefficients, cut_off, error, tf32


def test_factors_keep_ten_bits_and_ties_leave_zero() -> None:
    steps = np.array([0.49, 0.5, 1.0, 1.49, 1.5], np.float32) * np.float32(2.0**-10)
    assert np.array_equal(tf32(1 + steps), 1 + np.array([0, 1, 1, 1, 2], np.float32) / 1024)
    assert np.array_equal(tf32(-1 - steps), -tf32(1 + steps))


def test_two_parts_hold_a_factor_to_22_bits() -> None:
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    rest = x - tf32(x) - tf32(x - tf32(x))
    assert (np.abs(rest) <= np.abs(x) * 2.0**-22).all()


def test_sums_are_cut_off_towards_zero() -> None:
    exact = np.array([1 + 2.0**-24 + 2.0**-30, -1 - 2.0**-23 * 1.9, 3.0])
    assert np.array_equal(cut_off(exact), np.array([1, -1 - 2.0**-23, 3], np.float32))


@pytest.mark.parametrize("way", WAYS)
def test_products_are_those_of_matrices(way: str) -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 3, 17, 17)).astype(np.float32)
    scale = np.abs(x) @ np.abs(y)
    assert (np.abs(WAYS[way](x, y) - x.astype(np.float64) @ y) <= 17 * 2.0**-23 * scale).all()


def test_coefficients_are_the_kernels() -> None:
    c, s, theta = coefficients()
    assert (len(c), len(s), theta) == (7, 7, 3.72)
    assert c[:2] == pytest.approx([1, 1 / 2])
    assert s[:2] == pytest.approx([1, 1 / 6])


def test_the_record_is_of_this_program() -> None:
    rows = json.loads(RECORD.read_text(encoding="utf-8"))["rows"]
    assert [(row["n"], row["norm"]) for row in rows] == CASES
    n, norm = CASES[0]
    for way, product in WAYS.items():
        assert error(n, norm, product) == pytest.approx(rows[0][way], rel=0.05)
