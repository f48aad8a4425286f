"""The norms of a dense block: whose statistics they take, and where new ones are written."""

from collections.abc import Sequence

from torch import Tensor

from toolkit.models.fast_rows import Measure, Norm


class Norms:
    """The norms of a block: their weights, and the statistics they use.

    `found` are mean and biased variance of the buffer's channels and of the bottlenecks; `running`, where
    there are any, stand in for them.
    """

    def __init__(
        self,
        weights: Sequence[list[Tensor]],
        running: Sequence[list[Tensor]],
        found: Sequence[Tensor],
        eps: float,
    ) -> None:
        self._weight1, self._bias1, self._weight2, self._bias2 = weights
        self._running, self._found, self._eps = running, found, eps
        self._training = not running[0]
        # where they are still to be measured, this is overwritten
        self._rstd, self._rstd2 = ((found[k] + eps).rsqrt_() for k in (1, 3))

    def of_input(self, first: int, channels: int) -> Measure | None:
        """Return where statistics of channels of the buffer go; nowhere in evaluation."""
        if not self._training:
            return None
        some = slice(first, first + channels)
        return Measure(self._found[0][some], self._found[1][some], self._rstd[some], self._eps)

    def of_bottleneck(self, layer: int) -> Measure | None:
        """Return where statistics of the bottleneck of a layer go."""
        if not self._training:
            return None
        return Measure(self._found[2][layer], self._found[3][layer], self._rstd2[layer], self._eps)

    def shared(self, some: slice) -> tuple[Tensor, Tensor]:
        """Return mean and 1 / standard deviation of channels of the buffer."""
        return self._found[0][some], self._rstd[some]

    def before(self, layer: int, channels: int) -> Norm:
        """Return norm1 of a layer, or the norm behind the last."""
        if self._training:
            statistics = self.shared(slice(channels))
        else:
            statistics = self._running[0][layer], (self._running[1][layer] + self._eps).rsqrt_()
        return Norm(*statistics, self._weight1[layer], self._bias1[layer])

    def within(self, layer: int) -> Norm:
        """Return norm2 of a layer."""
        if self._training:
            statistics = self._found[2][layer], self._rstd2[layer]
        else:
            statistics = self._running[2][layer], (self._running[3][layer] + self._eps).rsqrt_()
        return Norm(*statistics, self._weight2[layer], self._bias2[layer])
