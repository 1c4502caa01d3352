"""The made-up data set: rendered into the scratch folder, then read like Market-1501."""

import contextlib
import inspect

from data_prep import synthetic
from data_prep.readers import listing, market1501
from reid_jax.progress import ProgressBar

OPTIONS = tuple(
    name for name in inspect.signature(synthetic.write_synthetic).parameters if name not in ("root", "progress")
)


def read(source: listing.Source, **options: int) -> list[listing.Record]:
    """Renders the synthetic data set.

    Args:
        source: only its scratch folder is used.
        **options: keyword arguments of `data_prep.synthetic.write_synthetic`, by the names in OPTIONS.

    Returns:
        One record per image.

    Raises:
        UserError: an option breaks its rule.
    """
    with contextlib.ExitStack() as stack:
        bars: list[ProgressBar] = []

        def show(done: int, total: int) -> None:
            del done
            if not bars:
                bars.append(stack.enter_context(ProgressBar(total, "rendering", unit="images")))
            bars[0].update()

        synthetic.write_synthetic(source.scratch, **options, progress=show if source.progress else None)
    return market1501.read(source._replace(folder=source.scratch))
