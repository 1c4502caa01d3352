"""What torch calls the weights of a network whose Flax modules are named like torch's."""

from collections.abc import Mapping

import numpy as np

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def dotted(path: str, *, underscores: bool = False) -> str:
    """Returns a leaf's path with dots, and torch's name of the leaf: "neck/bn/mean" is "neck.bn.running_mean".

    Args:
        path: of a leaf, its modules' names and its own separated by slashes.
        underscores: whether those in the modules' names are dots, too: "features_1/conv_0_0/kernel" is
            "features.1.conv.0.0.weight".
    """
    modules, _, leaf = path.rpartition("/")
    modules = modules.replace("/", ".")
    if underscores:
        modules = modules.replace("_", ".")
    return ".".join(filter(None, (modules, _LEAVES.get(leaf, leaf))))


def without_heads(state: Mapping[str, np.ndarray], *prefixes: str) -> dict[str, np.ndarray]:
    """Returns a torch state without what a backbone has no use for.

    Args:
        state: arrays by torch's names.
        *prefixes: what the names of classifiers and other heads begin with, such as "fc.".

    Returns:
        The state without them and without the batch counters that torch's batch norms keep.
    """
    return {
        name: array
        for name, array in state.items()
        if not name.startswith(prefixes) and not name.endswith("num_batches_tracked")
    }
