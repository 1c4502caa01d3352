"""What the golden file of the convolutional backbones holds, and the weights and images that it was made of.

Weights are not stored: torch in data/make_convnet_golden.py and the tests draw them by name from the same generators.
"""

import functools
import json
import pathlib
import zlib

import numpy as np

FILE = pathlib.Path(__file__).parent / "data/convnet_golden.npz"
CHANNEL_STEP = 32  # every n-th channel of an output is stored
STATISTICS_STEP = 48  # every n-th running statistic is stored, names sorted
IMAGES_SHAPE = (4, 64, 32, 3)
# The last norms of residual branches, which change their input a little, as in trained networks. With larger values
# the batch statistics of many blocks enlarge float32's rounding, in torch itself against its own float64.
_BRANCH_ENDS = ("bn3.weight", "conv.3.weight", "conv3.bn.weight", ".IN.weight")


def random_images() -> np.ndarray:
    """Returns the input, IMAGES_SHAPE float32."""
    return np.random.default_rng(0).normal(size=IMAGES_SHAPE).astype(np.float32)


def random_array(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns float32 values for the parameter or statistic of that torch name, with which activations stay near 1."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) > 1:
        return (rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
    if name.endswith(_BRANCH_ENDS) and "bn1" not in name:
        return rng.uniform(0.1, 0.3, shape).astype(np.float32)
    if name.endswith(("running_var", "weight")):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (0.1 * rng.normal(size=shape)).astype(np.float32)


def load(architecture: str) -> dict[str, np.ndarray]:
    """Returns an architecture's golden arrays, by name; "shapes" are the reference's shapes by torch's names."""
    with np.load(FILE) as arrays:
        golden = {name.partition("/")[2]: arrays[name] for name in arrays.files if name.startswith(f"{architecture}/")}
    return golden | {"shapes": json.loads(golden["shapes"].tobytes())}


def random_variables(model):
    """Returns a backbone's variables, filled with the random arrays of its torch names."""
    # Not at the top: the script that makes the file runs where there is no JAX.
    import jax

    from reid_jax.models import pretrained

    shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), random_images())
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    drawn = {name: random_array(name, array.shape) for name, array in pretrained.to_state(zeros, model).items()}
    return pretrained.to_variables(drawn, shapes, model)


def assert_close(ours, golden: np.ndarray, tolerance: float = 1e-5) -> None:
    """Checks that a result is within the tolerance of the golden values, which is a share of the greatest."""
    assert ours.shape == golden.shape
    assert np.abs(np.asarray(ours) - golden).max() <= tolerance * np.abs(golden).max()


def assert_statistics_close(variables, model, golden: dict[str, np.ndarray]) -> None:
    """Checks a backbone's running statistics, but for those of an embedding layer, against the golden ones."""
    from reid_jax.models import pretrained

    state = pretrained.to_state(variables, model)
    for statistic in ("running_mean", "running_var"):
        values = [state[name] for name in sorted(state) if name.endswith(statistic) and "fc." not in name]
        assert_close(np.concatenate(values)[::STATISTICS_STEP], golden[statistic])
