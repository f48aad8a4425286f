"""Balance is one choice: what it does to the batches, to the loss, and to the prior that the logit carries.

The raw logit of a model carries the share of positives that training effectively showed it (Menon et al.,
ICLR 2021; Godau et al., MICCAI 2023). Each choice moves it in one way that is known:

``none``          nothing is changed; the prior is that of the training side
``sampler``       k malignant nodules in a batch of B; the prior is k / B
``weight``        a malignant nodule counts w times; the prior is w p / (w p + 1 - p)
``logit-adjust``  tau log(p / (1 - p)) is added to the logit in the loss alone; at tau = 1 it carries 1/2
``focal``         easy nodules count less (Lin et al., ICCV 2017); no shift, but calibration is needed
"""

import math
from dataclasses import dataclass

from toolkit.errors import Problem, UsageError
from toolkit.evaluation.calibration import log_odds
from toolkit.training.config import Balance, TrainConfig

ACTION = "Nothing trained; keep one of them (force_double_balance = true runs it as an experiment)"


@dataclass(frozen=True)
class Balancing:
    """A choice of balance with its numbers.

    Attributes
    ----------
    mode
        As configured.
    plain_prior
        Share of malignant among the scored nodules of the training side.
    prior
        The one that the raw logit carries.
    positives
        Places of a batch for malignant nodules; 0 where the sampler is plain.
    pos_weight
        Of a malignant nodule in the loss.
    logit_offset
        Added to logits in the loss alone.
    gamma
        Of the focal loss; 0 for none.
    """

    mode: Balance
    plain_prior: float
    prior: float
    positives: int = 0
    pos_weight: float = 1.0
    logit_offset: float = 0.0
    gamma: float = 0.0

    @property
    def words(self) -> str:
        """What it does, in a sentence."""
        plain = f"{100 * self.plain_prior:.1f} % of the training nodules are malignant"
        return {
            "none": f"nothing is balanced: {plain}, and the logit carries that",
            "sampler": f"{plain}; each batch has {self.positives}, so the logit carries {self.prior:.0%}",
            "weight": f"{plain} and count {self.pos_weight:.3g} times; the logit carries {self.prior:.0%}",
            "logit-adjust": f"{plain}; {self.logit_offset:+.2f} is added to logits in the loss, so that they "
            f"carry {self.prior:.0%}",
            "focal": f"{plain}; easy nodules count less (gamma {self.gamma:g})",
        }[self.mode]


def balancing(config: TrainConfig, positives: int, negatives: int) -> Balancing:
    """Return what a configuration does to a training side with so many malignant and benign nodules.

    Raises `UsageError` E-CONF-003 where classes are balanced twice, E-CONF-002 where a setting contradicts
    the choice.
    """
    plain = positives / (positives + negatives)
    in_batch = config.positives or max(1, min(config.batch // 2, positives))
    weight = config.loss.pos_weight
    if config.balance == "sampler":
        prior = in_batch / config.batch
        if weight is not None and weight != 1:
            if not config.force_double_balance:
                raise UsageError(_twice(prior, plain, weight))
            return Balancing("sampler", plain, _weighted(prior, weight), in_batch, weight)
        return Balancing("sampler", plain, prior, in_batch)
    if config.positives:
        raise _contradiction("positives", config.positives, 'balance = "sampler"')
    if config.balance == "weight":
        weight = negatives / positives if weight is None else weight
        return Balancing("weight", plain, _weighted(plain, weight), pos_weight=weight)
    if weight is not None:
        raise _contradiction("loss.pos_weight", weight, 'balance = "weight"')
    if config.balance == "logit-adjust":
        offset = config.loss.adjust_tau * log_odds(plain)
        prior = 1 / (1 + math.exp(offset - log_odds(plain)))
        return Balancing("logit-adjust", plain, prior, logit_offset=offset)
    if config.balance == "focal":
        return Balancing("focal", plain, plain, gamma=config.loss.focal_gamma)
    return Balancing("none", plain, plain)


def _weighted(prior: float, weight: float) -> float:
    return weight * prior / (weight * prior + 1 - prior)


def _twice(prior: float, plain: float, weight: float) -> Problem:
    """Say what balancing twice does to a nodule, in numbers."""
    sampled = log_odds(prior) - log_odds(plain)
    once = 1 / (1 + math.exp(-log_odds(plain) - sampled))
    twice = 1 / (1 + math.exp(-log_odds(plain) - sampled - math.log(weight)))
    measured = (
        f"the sampler shows {prior:.0%} malignant instead of {plain:.1%}, which adds {sampled:+.2f} to every "
        f"logit; loss.pos_weight {weight:g} adds {math.log(weight):+.2f} once more: a nodule whose chance is "
        f"{plain:.1%} reads {once:.0%}, then {twice:.0%}"
    )
    return Problem("E-CONF-003", "classes are balanced twice", measured, "", ACTION)


def _contradiction(name: str, value: float, needs: str) -> UsageError:
    what = f"{name} means nothing without {needs}"
    return UsageError(
        Problem("E-CONF-002", what, f"{name} = {value:g}", "", "Nothing trained; set both or neither")
    )
