"""The made-up data sets: rendered into the scratch folder, then read like the public ones they resemble."""

import contextlib
import inspect
import types as python_types
from collections.abc import Callable

from reid_jax.data_prep import synthetic
from reid_jax.data_prep.readers import dukemtmc_videoreid, listing, market1501
from reid_jax.progress import ProgressBar


def _options(write: Callable[..., None]) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(write).parameters if name not in ("root", "progress"))


OPTIONS = _options(synthetic.write_synthetic)
VIDEO_OPTIONS = _options(synthetic.write_synthetic_video)
# Of the data set to learn from with labels, for transfer to the others: other people, places, colours and light.
SOURCE_DEFAULTS = python_types.MappingProxyType({"seed": 1, "palette": 1})


def read(source: listing.Source, **options: int) -> list[listing.Record]:
    """Renders the synthetic data set of single images.

    Args:
        source: only its scratch folder is used.
        **options: keyword arguments of `data_prep.synthetic.write_synthetic`, by the names in OPTIONS.

    Returns:
        One record per image.

    Raises:
        UserError: an option breaks its rule.
    """
    _render(synthetic.write_synthetic, source, options)
    return market1501.read(source._replace(folder=source.scratch))


def read_video(source: listing.Source, **options: int) -> list[listing.Record]:
    """Renders the synthetic data set of tracklets.

    Args:
        source: only its scratch folder is used.
        **options: keyword arguments of `data_prep.synthetic.write_synthetic_video`, by the names in VIDEO_OPTIONS.

    Returns:
        One record per frame.

    Raises:
        UserError: an option breaks its rule.
    """
    _render(synthetic.write_synthetic_video, source, options)
    return dukemtmc_videoreid.read(source._replace(folder=source.scratch))


def _render(write: Callable[..., None], source: listing.Source, options: dict[str, int]) -> None:
    with contextlib.ExitStack() as stack:
        bars: list[ProgressBar] = []

        def show(done: int, total: int) -> None:
            del done
            if not bars:
                bars.append(stack.enter_context(ProgressBar(total, "rendering", unit="images")))
            bars[0].update()

        write(source.scratch, **options, progress=show if source.progress else None)
