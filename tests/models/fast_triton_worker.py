"""The GPU's kernels under Triton's interpreter against plain torch; run by test_fast_triton in a process of
its own, since the interpreter is chosen when Triton is first imported."""

import sys
from typing import Any

import torch
from torch import Tensor

from tests.models.test_densenet import run, unlike
from toolkit.models import fast as twin
from toolkit.models import fast_block, fast_rows, fast_triton
from toolkit.models.fast import FastDenseNet
from toolkit.models.fast_rows import Measure, Norm

EPS, U = 1e-5, 2.0**-24


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.rand(shape) * 2 - 0.7).to(dtype)


def norm(channels: int) -> Norm:
    return Norm(*(random(channels) for _ in range(4)))


def empty(channels: int) -> Measure:
    return Measure(*(torch.full((channels,), torch.nan) for _ in range(3)), EPS)


def near(name: str, mine: Tensor, theirs: Tensor, allowed: float) -> None:
    error = float((mine.float() - theirs.float()).abs().max())
    allowed *= max(1.0, float(theirs.abs().max()))
    assert error <= allowed, f"{name}: {error:.2e}, {allowed:.2e} allowed"
    assert mine.dtype == theirs.dtype, f"{name}: {mine.dtype}"


def pieces(dtype: torch.dtype, shape: tuple[int, ...], channels: int, width: int) -> None:
    """Compare every piece; the buffer holds more channels than are used, and odd sizes."""
    more = channels + 5
    buffer = random(*shape, more, dtype=dtype)
    rows = buffer.view(-1, more)
    count, before, weight = len(rows), norm(channels), random(width, channels, dtype=dtype)
    of_all = norm(more)
    kits = (fast_triton, fast_rows)

    def compare(name: str, call: Any, sums: int, short: int = 2) -> None:
        """Allow for float32 sums of so many numbers in any order, and for roundings of a short type."""
        allowed = 4 * U * sums + (0.0 if dtype == torch.float32 else short * torch.finfo(dtype).eps)
        mine, theirs = (call(kit) for kit in kits)
        for k, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            near(f"{name} {k}", one, other, allowed)

    def append(kit: Any, mask: Tensor | None) -> tuple[Tensor, ...]:
        there, into = buffer.clone(), empty(5)
        kit.append(there, channels, new, mask, into)
        return there, *into[:3]

    new = random(*shape, 5, dtype=dtype)
    for mask in (None, random(shape[0], 5, dtype=dtype)):
        compare("append", lambda kit, mask=mask: append(kit, mask), count)

    def product(kit: Any) -> tuple[Tensor, ...]:
        out, into = torch.empty(count, width, dtype=dtype), empty(width)
        kit.product(rows[:, :channels], before, weight, out, into)
        return out, *into[:3]

    # an activation that is rounded up instead of down is felt in every product
    compare("product", product, 4 * (channels + count), 2 + channels)
    compare("activate", lambda kit: [kit.activate(rows[:, :channels], before)], 4)
    compare("activate cells", lambda kit: [kit.activate_cells(buffer, of_all)], 12)
    smaller = [shape[0], *(size // 2 for size in shape[1:])]
    for cells, given in (
        (True, random(*smaller, more, dtype=dtype)),
        (False, random(*shape, more, dtype=dtype)),
    ):
        compare(
            "activate grad",
            lambda kit, cells=cells, given=given: kit.activate_grad(given, buffer, of_all, cells=cells),
            count,
        )
    grad, total = random(count, width, dtype=dtype), random(count, more, dtype=dtype)
    z, within, taps = random(count, width, dtype=dtype), norm(width), random(5, width, 3, 3, 3, dtype=dtype)
    for training in (True, False):
        compare(
            "convolution grad",
            lambda kit, training=training: kit.convolution_grad(new, z, within, taps, training=training),
            4 * count,
            2 + count,  # weights sum activations, which are rounded in another place
        )
    sums = random(2, more)
    for mask in (None, random(shape[0], channels, dtype=dtype)):
        for known in (None, (before.mean, before.rstd)):
            compare(
                "close",
                lambda kit, mask=mask, known=known: [
                    kit.close(total[:, :channels], rows[:, :channels], known, sums[:, :channels], mask)
                ],
                16,
            )

    def product_grad(kit: Any) -> tuple[Tensor, ...]:
        there = total.clone()
        found = kit.product_grad(grad, rows[:, :channels], before, weight, there[:, :channels])
        return found[0].to(dtype), found[1], there

    if dtype == torch.float32:  # torch rounds short types where the kernel does not
        compare("product grad", product_grad, 4 * count + width)


def network() -> None:
    """A whole network, forward and back, by kernels and by torch."""
    twin._pays = lambda *_: True  # small as it is, and on a CPU
    fast = FastDenseNet(1, (2, 1), growth=6, init_features=10, bn_size=3, dropout=0.3)
    unlike(fast)
    state = {name: value.clone() for name, value in fast.state_dict().items()}
    image = torch.rand(3, 1, 17, 18, 15)
    exact = FastDenseNet(1, (2, 1), growth=6, init_features=10, bn_size=3, dropout=0.3).double()
    exact.load_state_dict(state)
    found = []
    for call, given in ((exact, image.double()), (fast, image), (fast, image)):
        call.load_state_dict(state)
        if len(found) == 2:
            fast_block._kit = lambda *_: fast_triton  # type: ignore[assignment]
        torch.manual_seed(1)
        found.append(run(call.train(), given))
    for name, right in found[0].items():
        if not right.is_floating_point():
            continue
        plain, mine = ((each[name].double() - right).norm() for each in found[1:])
        assert mine <= 4 * plain + 64 * U * right.norm(), f"{name}: {mine:.2e}, by torch {plain:.2e}"


def main() -> None:
    torch.manual_seed(0)
    pieces(torch.float32, (2, 3, 5, 4), 11, 6)
    pieces(torch.float32, (1, 9, 8, 5), 40, 20)  # several tiles of rows and of channels
    pieces(torch.float16, (2, 2, 3, 3), 7, 5)  # the interpreter has no products of bfloat16
    nan = random(20, 3)
    nan[3, 1] = torch.nan
    assert fast_triton.activate(nan, norm(3)).isnan().sum() == 1
    network()
    sys.stdout.write("equal")


if __name__ == "__main__":
    main()
