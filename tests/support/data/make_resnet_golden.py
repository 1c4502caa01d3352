"""Makes the golden files of the ResNet and torch-file tests with torch and torchvision, which the tests do not need.

  python tests/support/data/make_resnet_golden.py

Weights are not stored: torch here and the tests draw them by name from the same numpy generators. torch computes in
float64, so that a difference is the tested side's own.
"""

import pathlib
import zlib
from collections import OrderedDict

import numpy as np

FOLDER = pathlib.Path(__file__).parent
CHANNEL_STEP = {"resnet18": 8, "resnet50": 32}  # every n-th channel of an output is stored
STATISTICS_STEP = 16  # every n-th running statistic is stored, names sorted
IMAGES_SHAPE = (4, 64, 32, 3)


def random_images() -> np.ndarray:
    """Returns the input, IMAGES_SHAPE float32."""
    return np.random.default_rng(0).normal(size=IMAGES_SHAPE).astype(np.float32)


def random_array(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns float32 values for the parameter or statistic of that torch name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) == 4:
        return (rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
    if name.endswith(("bn2.weight", "bn3.weight")):
        # As in trained networks, a block changes its input a little. With larger values 16 blocks of batch statistics
        # enlarge float32's rounding to 7e-5 of the output, in torch itself against its own float64.
        return rng.uniform(0.1, 0.3, shape).astype(np.float32)
    if name.endswith(("running_var", "weight")):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (0.1 * rng.normal(size=shape)).astype(np.float32)


def tiny_arrays() -> dict[str, np.ndarray]:
    """Returns what the tiny torch files hold, by name; the second to fourth are views of the first."""
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    return {
        "base": base,
        "transposed": base.T,
        "row": base[1],
        "column": base[:, 2],
        "parameter": np.array([1.5, -2.5], np.float32),
        "half": np.array([0.5, 65504.0], np.float16),
        "bfloat16": np.array([1.0, -3.140625], np.float32),
        "double": np.array([np.pi]),
        "counter": np.array(7),
        "flag": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float32),
    }


def _torchvision_resnet(architecture: str, last_stride: int):
    import torch

    # torchvision's compiled operators need the very torch they were built for; a ResNet needs none of them.
    torch.library.register_fake = lambda *args, **kwargs: lambda function: function
    from torchvision.models import resnet

    model = getattr(resnet, architecture)()
    block = model.layer4[0]
    strided = block.conv1 if architecture == "resnet18" else block.conv2
    strided.stride = block.downsample[0].stride = (last_stride, last_stride)
    state = {
        name: torch.tensor(random_array(name, tuple(value.shape)))
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    model.load_state_dict(state, strict=False)
    return model.double()


def _feature_map(model, images: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        x = torch.tensor(images, dtype=torch.float64).permute(0, 3, 1, 2)
        x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            x = stage(x)
        return x.permute(0, 2, 3, 1).numpy().astype(np.float32)


def _resnet_golden() -> dict[str, np.ndarray]:
    golden, images = {}, random_images()
    for architecture, step in CHANNEL_STEP.items():
        for last_stride in (1, 2):
            model = _torchvision_resnet(architecture, last_stride).eval()
            golden[f"{architecture}/eval/{last_stride}"] = _feature_map(model, images)[..., ::step]
        model = _torchvision_resnet(architecture, 1).train()
        golden[f"{architecture}/train/1"] = _feature_map(model, images)[..., ::step]
        state = model.state_dict()
        for statistic in ("running_mean", "running_var"):
            values = [state[name].numpy() for name in sorted(state) if name.endswith(statistic)]
            golden[f"{architecture}/{statistic}"] = np.concatenate(values)[::STATISTICS_STEP].astype(np.float32)
    return golden


def _tiny_state():
    import torch

    state = OrderedDict((name, torch.tensor(array)) for name, array in tiny_arrays().items())
    base = state["base"]
    state |= {"transposed": base.T, "row": base[1], "column": base[:, 2]}
    state["parameter"] = torch.nn.Parameter(state["parameter"])
    state["bfloat16"] = state["bfloat16"].to(torch.bfloat16)
    # As Module.state_dict leaves it: an attribute of the dict itself.
    state._metadata = OrderedDict([("", {"version": 1})])
    return state


def main() -> None:
    """Writes the golden files beside this script."""
    import torch

    np.savez(FOLDER / "resnet_golden.npz", **_resnet_golden())
    state = _tiny_state()
    torch.save(state, FOLDER / "tiny_state.pth")
    nested = {"epoch": 3, "state_dict": OrderedDict((f"module.{name}", tensor) for name, tensor in state.items())}
    torch.save(nested, FOLDER / "tiny_checkpoint_legacy.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
