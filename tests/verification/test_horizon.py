"""How many steps of training are compared where rounding grows."""

from __future__ import annotations

from archspec.verification.checks.training import CAP
from archspec.verification.inputs import horizon


def test_all_steps_are_compared_where_rounding_does_not_grow() -> None:
    """CIFAR ResNet-20 with a batch of 2: 1e-15 after 20 steps."""
    assert horizon([1e-16] * 10 + [1e-15] * 10, 20, CAP) == (found := horizon([1e-15] * 20, 20, CAP))
    assert (found.float64, found.float32) == (20, 20)


def test_fewer_steps_are_compared_where_the_bound_would_be_above_1e_4() -> None:
    """MobileNetV2 with a batch of 2: a rounding grows by 3 orders of magnitude every 4 steps."""
    apart = [1e-16 * 10 ** (0.75 * i) for i in range(20)]  # 100 times it is 1e-4 at 1e-6: before 10^(0.75 i) = 1e10
    found = horizon(apart, 20, CAP)

    assert found.float64 == 14  # 1e-16 x 10^(0.75 x 13) = 5.6e-7
    assert found.growth == apart[13]
    assert found.float32 == 8  # 2^29 x 10 x 1e-16 = 5.4e-7 at first: 0.1 is passed where 10^(0.75 i) is above 1.9e5


def test_a_growth_that_comes_back_does_not_hide_an_earlier_one() -> None:
    """The largest so far counts."""
    assert horizon([1e-16, 1e-5, 1e-16], 3, CAP).float64 == 1
