"""What each balance does to the prior that a logit carries, by training to convergence."""

import math

import numpy as np
import pytest
import torch

from toolkit.errors import UsageError
from toolkit.evaluation.calibration import log_odds
from toolkit.training.balance import Balancing, balancing
from toolkit.training.config import from_table
from toolkit.training.loss import objective

PLAIN = 0.1


def config(**settings: object):
    return from_table(settings)


def converged(balance: Balancing, share: float) -> float:
    """Return the logit that minimises the expected objective where a share of the nodules is malignant."""
    logit = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    target = torch.zeros(1000, dtype=torch.float64)
    target[: round(1000 * share)] = 1
    optimizer = torch.optim.LBFGS([logit], max_iter=200, tolerance_grad=1e-14, tolerance_change=0)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = objective(logit.expand(1000), target, balance, 0.0)
        loss.backward()
        return loss

    optimizer.step(closure)
    return logit.item()


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"balance": "none"}, PLAIN),
        ({"balance": "sampler", "positives": 8, "batch": 32}, 0.25),
        ({"balance": "weight"}, PLAIN),
        ({"balance": "weight", "loss": {"pos_weight": 3.0}}, PLAIN),
        ({"balance": "logit-adjust"}, PLAIN),
        ({"balance": "logit-adjust", "loss": {"adjust_tau": 0.5}}, PLAIN),
        (
            {"balance": "sampler", "batch": 32, "loss": {"pos_weight": 9.0}, "force_double_balance": True},
            0.5,
        ),
    ],
    ids=lambda value: str(value),
)
def test_the_stored_prior_is_where_training_converges(settings: dict, shown: float) -> None:
    # a model that knows nothing of a nodule converges to the prior that its logit carries
    balance = balancing(config(**settings), positives=100, negatives=900)
    assert balance.plain_prior == PLAIN
    assert converged(balance, shown) == pytest.approx(log_odds(balance.prior), abs=1e-6)


def test_balancing_twice_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(UsageError, match="E-CONF-003") as caught:
        balancing(config(balance="sampler", loss={"pos_weight": 9.0}), 100, 900)
    # 50 % instead of 10 % adds log 9, and a weight of 9 log 9 again: 10 % reads 50 %, then 90 %
    assert str(caught.value).count(f"{math.log(9):+.2f}") == 2
    assert "reads 50%, then 90%" in str(caught.value)
    assert "force_double_balance" in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"balance": "none", "loss": {"pos_weight": 2.0}},
        {"balance": "focal", "loss": {"pos_weight": 2.0}},
        {"balance": "weight", "positives": 4},
        {"balance": "none", "positives": 4},
    ],
    ids=str,
)
def test_settings_that_would_be_ignored_are_refused(settings: dict) -> None:
    with pytest.raises(UsageError, match="E-CONF-002"):
        balancing(config(**settings), 100, 900)


def test_a_weight_of_one_beside_the_sampler_is_no_second_balance() -> None:
    assert balancing(config(balance="sampler", loss={"pos_weight": 1.0}), 100, 900).pos_weight == 1


def test_focal_loss_is_that_of_its_paper() -> None:
    logit = torch.linspace(-4, 4, 9, dtype=torch.float64)
    target = (torch.arange(9) % 2).double()
    balance = balancing(config(balance="focal", loss={"focal_gamma": 2.0}), 100, 900)
    p = 1 / (1 + np.exp(-logit.numpy()))
    p_t = np.where(target == 1, p, 1 - p)
    assert objective(logit, target, balance, 0.0).item() == pytest.approx(
        np.mean(-((1 - p_t) ** 2) * np.log(p_t)), rel=1e-12
    )


def test_smoothing_moves_targets_towards_a_half() -> None:
    logit, target = torch.tensor([0.3, -0.7]).double(), torch.tensor([1.0, 0.0]).double()
    plain = Balancing("none", 0.5, 0.5)
    soft = objective(logit, torch.tensor([0.95, 0.05], dtype=torch.float64), plain, 0.0)
    torch.testing.assert_close(objective(logit, target, plain, 0.1), soft, rtol=1e-12, atol=0)


def test_mean_over_ranks_is_the_loss_of_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    logit = torch.randn(16, generator=generator, dtype=torch.float64)
    target = (torch.arange(16) < 3).double()
    balance = balancing(config(balance="weight"), 3, 13)
    whole = objective(logit, target, balance, 0.0)
    halves = [objective(logit[k::2], target[k::2], balance, 0.0) for k in range(2)]
    torch.testing.assert_close(torch.stack(halves).mean(), whole, rtol=1e-12, atol=0)
