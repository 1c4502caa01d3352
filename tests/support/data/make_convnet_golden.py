"""Makes the golden file of the convolutional backbones' tests with torch, which the tests do not need.

  PYTHONPATH=tests/support:TORCHREID/torchreid/reid/models python tests/support/data/make_convnet_golden.py

TORCHREID is the unpacked source archive of torchreid 0.2.5 (pip download --no-deps), of whose modules osnet, osnet_ain
and resnet_ibn_a are used alone. Made with torch 2.14.1 and torchvision 0.29.1. torch computes in float64, so that a
difference is the tested side's own.
"""

import json

import convnet_golden
import numpy as np
import osnet
import osnet_ain
import resnet_ibn_a
import torch
import torchvision


def _mobilenet_v2(last_stride: int):
    model = torchvision.models.mobilenet_v2()
    # The first block of 160 channels.
    model.features[14].conv[1][0].stride = (last_stride, last_stride)
    return model, model.features


def _torchreid(make, last_stride: int, **options):
    model = make(num_classes=10, **options)
    if last_stride == 1:
        model.layer4[0].conv2.stride = model.layer4[0].downsample[0].stride = (1, 1)
    return model, model.featuremaps


MODELS = {
    "mobilenet_v2": _mobilenet_v2,
    "resnet50_ibn_a": lambda last_stride: _torchreid(resnet_ibn_a.resnet50_ibn_a, last_stride),
    "osnet_x1_0": lambda _: _torchreid(osnet.osnet_x1_0, 2, pretrained=False),
    "osnet_x0_25": lambda _: _torchreid(osnet.osnet_x0_25, 2, pretrained=False),
    "osnet_ain_x1_0": lambda _: _torchreid(osnet_ain.osnet_ain_x1_0, 2, pretrained=False),
}


def _filled(architecture: str, last_stride: int):
    """(model, its function from images to the feature map), with random weights, in float64."""
    model, featuremaps = MODELS[architecture](last_stride)
    state = {
        name: torch.tensor(convnet_golden.random_array(name, tuple(value.shape)))
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    model.load_state_dict(state, strict=False)
    return model.double(), featuremaps


def _stored(value) -> np.ndarray:
    """Some channels of a map [B, C, h, w] or of embeddings [B, D], channels last."""
    value = value.movedim(1, -1)
    return value[..., :: convnet_golden.CHANNEL_STEP].numpy().astype(np.float32)


def _golden(architecture: str) -> dict[str, np.ndarray]:
    images = torch.tensor(convnet_golden.random_images(), dtype=torch.float64).permute(0, 3, 1, 2)
    golden = {}
    for last_stride in (2,) if "osnet" in architecture else (1, 2):
        model, featuremaps = _filled(architecture, last_stride)
        model.eval()
        golden[f"eval/{last_stride}"] = _stored(featuremaps(images))
    if "osnet" in architecture:
        golden["embeddings"] = _stored(model(images))
    # At the stride that leaves the batch statistics more places.
    model, featuremaps = _filled(architecture, 1)
    model.train()
    golden["train"] = _stored(featuremaps(images))
    state = model.state_dict()
    for statistic in ("running_mean", "running_var"):
        # Of OSNet the embedding's own were not updated.
        values = [state[name].numpy() for name in sorted(state) if name.endswith(statistic) and "fc." not in name]
        golden[statistic] = np.concatenate(values)[:: convnet_golden.STATISTICS_STEP].astype(np.float32)
    shapes = {name: list(value.shape) for name, value in state.items()}
    golden["shapes"] = np.frombuffer(json.dumps(shapes).encode(), np.uint8)
    return {f"{architecture}/{name}": array for name, array in golden.items()}


def main() -> None:
    """Writes the golden file beside this script."""
    golden = {}
    with torch.no_grad():
        for architecture in MODELS:
            golden |= _golden(architecture)
    np.savez_compressed(convnet_golden.FILE, **golden)


if __name__ == "__main__":
    main()
