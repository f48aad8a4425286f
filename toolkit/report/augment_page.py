"""The same nodules under many draws, made twice: by the fused kernel and by DALI: see both."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kernels.augment import augment
from toolkit.errors import UsageError
from toolkit.loading.augment import AugmentConfig, Probability
from toolkit.loading.draw import CropGeometry, draw
from toolkit.loading.table import AugmentTable
from toolkit.report.page import Section, render
from toolkit.store.reader import Store

PIXELS = 128
SHOWN = 4


@dataclass(frozen=True, eq=False)
class Draws:
    """One nodule under some draws.

    Attributes
    ----------
    index
        Its number in the store.
    table
        The rows.
    fused, dali
        float32 (n, d, h, w, c); None where DALI cannot do it.
    apart
        Largest difference of the two.
    """

    index: int
    table: AugmentTable
    fused: NDArray[np.float32]
    dali: NDArray[np.float32] | None
    apart: float | None


def chosen(store: Store, count: int = SHOWN) -> list[int]:
    """Return nodules of all sizes, evenly by diameter; an unknown diameter counts as the smallest."""
    order = sorted(range(len(store)), key=lambda i: (store.nodules[i].diameter_mm or 0.0, i))
    count = min(count, len(order))
    return [order[k * (len(order) - 1) // max(1, count - 1)] for k in range(count)]


def make_draws(
    store: Store, config: AugmentConfig, index: int, count: int, seed: int, *, with_dali: bool
) -> Draws:
    """Return one nodule under `count` draws; raises `UsageError` E-LOAD-021 where DALI is not installed."""
    geometry = CropGeometry(store.size + 2 * store.margin, store.size, store.spacing_mm)
    which = np.full(count, index, np.int64)
    table = draw(config, geometry, which, seed, 0, np.arange(count) + index * count)
    images, masks = [store.image(index)] * count, [store.mask(index)] * count
    fused = augment(images, None if config.mask_mode == "none" else masks, table)
    if not with_dali:
        return Draws(index, table, fused, None, None)
    from toolkit.loading.dali import warp_rows

    dali = warp_rows(table, images, masks)
    return Draws(index, table, fused, dali, float(np.abs(fused - dali).max()))


def why_no_dali(config: AugmentConfig, size: int) -> str:
    """Return why DALI cannot do what is set, or an empty text."""
    from toolkit.loading.dali_graph import chain_for, load_dali

    try:
        chain_for(config, size)
        load_dali()
    except UsageError as error:
        return error.problem.public
    return ""


def make_page(store: Store, config: AugmentConfig, name: str, count: int = 8, seed: int = 0) -> bytes:
    """Return the page; `name` is that of the settings. Raises `UsageError` as `draw` does."""
    if config.mask_mode != "none" and any(n.mask_source == "none" for n in store.nodules):
        config = replace(config, mask_mode="none")
    reason = why_no_dali(config, store.size)
    found = [make_draws(store, config, index, count, seed, with_dali=not reason) for index in chosen(store)]
    apart = [each.apart for each in found if each.apart is not None]
    if apart:
        agree = (
            f"<p>Fused and DALI differ by at most <b>{max(apart):.1e}</b> of the window, over "
            f"{len(found) * count} patches of {store.size}<sup>3</sup> voxels.</p>"
        )
    else:
        agree = f"<p>DALI is left out: {escape(reason)}</p>"
    parts = [Section("settings", "Settings", f"{agree}<pre>{escape(_told(config))}</pre>")]
    parts += [_section(store, each) for each in found]
    lead = (
        f"The middle slice of the same nodules under {count} draws of <b>{escape(name)}</b>; "
        "the first column is the crop as it is stored."
    )
    return render("Augmentation", lead, parts)


def _told(config: AugmentConfig) -> str:
    """Return the settings that do something, a line each."""
    lines = [f"{key} = {value}" for key, value in _changed(config, AugmentConfig()) if key != "probability"]
    lines += [f"probability.{key} = {value}" for key, value in _changed(config.probability, Probability())]
    return "\n".join(lines) or "nothing but the window"


def _changed(given: object, plain: object) -> list[tuple[str, object]]:
    return [(key, value) for key, value in vars(given).items() if value != getattr(plain, key)]


def _section(store: Store, draws: Draws) -> Section:
    nodule = store.nodules[draws.index]
    size = "" if nodule.diameter_mm is None else f", {nodule.diameter_mm:.1f} mm"
    margin, middle = store.margin, store.size // 2
    low, width = float(draws.table.low_hu[0]), float(draws.table.width_hu[0]) or 1400.0
    inner = np.asarray(store.image(draws.index))[margin:, margin:, margin:][
        : store.size, : store.size, : store.size
    ]
    stored = (inner[middle].astype(np.float32) - low) / width
    rows = [_row("fused", [stored, *draws.fused[:, middle, :, :, 0]])]
    if draws.dali is not None:
        rows.append(_row("DALI", [None, *draws.dali[:, middle, :, :, 0]]))
    body = f'<div class="wide"><table class="draws">{"".join(rows)}</table></div>'
    return Section(f"n{draws.index}", f"{nodule.nodule_id[:8]}{size}", body)


def _row(name: str, slices: Sequence[NDArray[np.float32] | None]) -> str:
    cells = "".join("<td></td>" if one is None else f"<td>{_image(one)}</td>" for one in slices)
    return f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'


def _image(slice_yx: NDArray[np.float32]) -> str:
    """Return a slice in [0, 1] as an image element; outside that range it is held at its ends."""
    grey = np.clip(np.rint(slice_yx * 255), 0, 255).astype(np.uint8)
    picture = Image.fromarray(grey).resize((PIXELS, PIXELS), Image.Resampling.BILINEAR)
    file = BytesIO()
    picture.save(file, "WEBP", quality=80)
    data = b64encode(file.getvalue()).decode()
    return f'<img alt="" width="{PIXELS}" height="{PIXELS}" src="data:image/webp;base64,{data}">'
