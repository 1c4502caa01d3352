"""DukeMTMC-reID: Market-1501's folders with its own file names."""

import re

from reid_jax.data_prep.readers import listing, market1501

NAME = re.compile(r"(?P<pid>\d+)_c(?P<camid>\d+)_f\d+\.(jpg|jpeg|png)", re.IGNORECASE)
EXAMPLE = "0001_c2_f0046182.jpg"


def read(source: listing.Source) -> list[listing.Record]:
    """Reads DukeMTMC-reID.

    Args:
        source: its folder holds bounding_box_train, query and bounding_box_test, itself or inside a top folder.

    Returns:
        One record per image.

    Raises:
        UserError: the layout or a file name is another one.
    """
    root = listing.find_root(source.folder, market1501.is_market_layout, market1501.EXPECTED)
    return market1501.read_market_layout(root, NAME, EXAMPLE)
