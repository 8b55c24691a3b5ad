import numpy as np
import pytest

from analysis.audit import equations


def score_matching_loss(s_x: np.ndarray, s_y: np.ndarray, sigma2: float) -> float:
    """One term of eq 13."""
    residual = s_x - ((s_y - s_x) / sigma2 + s_x * sigma2)
    return float(0.5 * residual @ residual)


def released_loss(g: np.ndarray, x: np.ndarray, y: np.ndarray, sigma2: float) -> float:
    """One term of the released code's loss."""
    residual = g - ((y - x) + g * sigma2)
    return float(residual @ residual)


def released_minimiser(x: np.ndarray, y: np.ndarray, sigma2: float) -> np.ndarray:
    """The gradient at which the released loss is zero, for sigma2 != 1."""
    return (y - x) / (1 - sigma2)


@pytest.mark.parametrize("sigma2", [1e-4, 0.1, 0.5, 0.99, 1.0, 3.0])
def test_flat_energy_is_a_global_minimum_of_equation_13(sigma2):
    zero, rng = np.zeros(8), np.random.default_rng(0)
    assert score_matching_loss(zero, zero, sigma2) == 0
    assert all(score_matching_loss(*rng.normal(size=(2, 8)), sigma2) >= 0 for _ in range(50))


@pytest.mark.parametrize("sigma2", [0.05, 0.5, 0.95])
def test_released_minimum_points_at_the_target_and_the_correction_away(sigma2):
    x, y = np.random.default_rng(1).normal(size=(2, 8))
    g = released_minimiser(x, y, sigma2)
    assert released_loss(g, x, y, sigma2) == pytest.approx(0)
    assert g @ (y - x) > 0
    before, after = np.linalg.norm(x - y), np.linalg.norm(x - equations.RELEASED_STEP * g - y)
    assert after == pytest.approx(before * (1 + equations.RELEASED_STEP / (1 - sigma2)))


def test_the_sign_of_the_released_minimum_needs_sigma_below_1():
    x, y = np.random.default_rng(1).normal(size=(2, 8))
    assert released_minimiser(x, y, sigma2=2.0) @ (y - x) < 0


def test_schedule_of_equation_5():
    beta_T = equations.beta_schedule(32)
    assert beta_T[0] == pytest.approx(0.125)
    assert beta_T[24] == pytest.approx(0.725)  # t = 25, the last below tau = 25.6
    assert beta_T[25] == pytest.approx(0.09)
