"""Where in a patch a network sees evidence: Grad-CAM (Selvaraju et al., ICCV 2017) in three dimensions."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from toolkit.errors import Problem, UsageError
from toolkit.models.forward import evaluating

FINE = 4


def grad_cam(
    model: nn.Module,
    image: Tensor,
    measured: Tensor | None = None,
    *,
    evidence: Literal["malignant", "benign"] = "malignant",
    layer: str | None = None,
) -> NDArray[np.float32]:
    """Return where evidence lies, float32 (d, h, w) in [0, 1]: 1 where there is most, all 0 where is none.

    Each channel of a feature map counts with the mean gradient of the logit (for ``benign``, of its negative)
    over that channel; what is below 0 in their sum speaks for the other side and is cut. The map is much
    coarser than the patch and is interpolated trilinearly, voxel centre on voxel centre.

    Parameters
    ----------
    model
        As `toolkit.models.registry.build` returns it. It runs in eval mode and is left as it was.
    image
        One patch, (1, c, d, h, w).
    measured
        Its scaled features, (1, k), where the model fuses some.
    layer
        Name of the module whose output is looked at; by default the last whose map has `FINE` voxels along
        each axis, for a coarser one shows borders rather than places; where none has, the last with more
        than one voxel.

    Raises
    ------
    UsageError
        E-MODEL-006 where no module, or not the one named, gives such a map.
    """
    device = next((each.device for each in model.parameters()), image.device)
    image = image.detach().to(device).requires_grad_()
    features = None if measured is None else measured.to(device)
    with evaluating(model):
        activation, logit = _watch(model, layer or _last_map(model, image, features), image, features)
    (gradient,) = torch.autograd.grad(logit if evidence == "malignant" else -logit, activation)
    weight = gradient.mean((2, 3, 4), keepdim=True)
    coarse = (weight * activation).sum(1, keepdim=True).relu().detach().float()
    fine = F.interpolate(coarse, image.shape[2:], mode="trilinear", align_corners=False)[0, 0]
    largest = fine.max()
    found: NDArray[np.float32] = (fine / largest if largest > 0 else fine).cpu().numpy()
    return found


def _last_map(model: nn.Module, image: Tensor, measured: Tensor | None) -> str:
    """Return the name of the last module whose map is fine enough, else of the last that gives a map."""
    fine, coarse = [""], [""]

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if _is_map(output):
                (fine if min(output.shape[2:]) >= FINE else coarse).append(name)

        return look

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            model(image, measured)
    finally:
        for hook in hooks:
            hook.remove()
    return fine[-1] or coarse[-1]


def _watch(model: nn.Module, layer: str, image: Tensor, measured: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the map that a module gives, and the logit, with the gradient between them alive."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> Any:
        if not _is_map(output):
            return output
        seen.append(output)
        return output.clone()  # what comes next may write into its input

    module = dict(model.named_modules()).get(layer) if layer else None
    if module is not None:
        hook = module.register_forward_hook(keep)
        try:
            with torch.enable_grad():
                logit = model(image, measured).sum()
        finally:
            hook.remove()
    if not seen:
        which = f"module {layer!r:.100}" if layer else "no module"
        expected = "one whose output is (1, c, d, h, w) with more than one voxel"
        what = "the network has no feature map to explain"
        raise UsageError(Problem("E-MODEL-006", what, which, expected, "Nothing explained"))
    return seen[-1], logit


def _is_map(output: Any) -> bool:
    return isinstance(output, Tensor) and output.ndim == 5 and output[0, 0].numel() > 1
