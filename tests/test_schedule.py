import math

import pytest

from utils.schedule import learning_rate


def rates(shape: str, steps: int = 100, **settings: float) -> list[float]:
    return [learning_rate(step, steps=steps, peak=2.0, shape=shape, **settings) for step in range(steps)]


def test_constant_is_the_option_s_own_value() -> None:
    assert rates("constant") == [2.0] * 100


def test_cosine_and_polynomial_fall_from_peak_towards_zero() -> None:
    for shape in ("cosine", "polynomial"):
        found = rates(shape)
        assert found[0] == 2.0
        assert found == sorted(found, reverse=True)
        assert 0 < found[-1] < 0.04
    assert math.isclose(rates("cosine")[50], 1.0)
    assert math.isclose(rates("polynomial", power=2)[50], 0.5)


@pytest.mark.parametrize("shape", ["constant", "cosine", "polynomial"])
def test_warm_up_climbs_to_the_peak(shape: str) -> None:
    found = rates(shape, warmup=9)
    assert found[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
