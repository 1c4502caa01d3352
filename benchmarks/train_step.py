"""Train step (forward, batch-hard triplet loss, backward, SGD): this library against torch, images per second.

    python benchmarks/train_step.py                                      # a CPU-sized network
    python benchmarks/train_step.py --backbone=resnet50 --width=64 --height=256 --img_width=128 --last_stride=2

torch is used where it is installed and left out where it is not. Both train the same architecture on the same
batch at the same precision; the two alternate, so that a drift of the machine's speed cancels.
"""

import functools
import time

import jax
import numpy as np
from absl import app, flags

from reid_jax import augment, losses, sharding
from reid_jax.runs import base_config, models
from reid_jax.training import optimizers, train_step

_BACKBONE = flags.DEFINE_enum("backbone", "resnet18", ["resnet18", "resnet50"], "Architecture.")
_WIDTH = flags.DEFINE_integer("width", 16, "Channels of the first stage.")
_HEIGHT = flags.DEFINE_integer("height", 128, "Image height.")
_IMG_WIDTH = flags.DEFINE_integer("img_width", 64, "Image width.")
_LAST_STRIDE = flags.DEFINE_integer("last_stride", 1, "1 or 2.")
_BATCH = flags.DEFINE_integer("batch_size", 64, "Images per step; a multiple of 4.")
_STEPS = flags.DEFINE_integer("steps", 10, "Timed steps per round.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Activations; torch is run in float32 only.")

_BLOCKS = {"resnet18": ("basic", (2, 2, 2, 2)), "resnet50": ("bottleneck", (3, 4, 6, 3))}


def jax_round(images: np.ndarray, labels: np.ndarray):
    """Returns a function that runs a round of steps of this library and waits for the last."""
    fields = {"backbone": _BACKBONE.value, "width": _WIDTH.value, "last_stride": _LAST_STRIDE.value}
    config = base_config.base_config("synthetic").model
    config.update(fields | {"dtype": _DTYPE.value})
    model = models.build_model(config)
    mesh = sharding.make_mesh()
    variables = model.init(jax.random.key(0), np.zeros((1, *images.shape[1:]), np.float32), train=False)
    optimizer = optimizers.make_optimizer("sgd", 1e-4, weight_decay=5e-4)
    step = train_step.make_train_step(
        model,
        lambda features, labels, memory: losses.batch_hard_triplet(features.embeddings, labels),
        optimizer,
        functools.partial(augment.augment, flip_probability=0.0),
        mesh,
    )
    state = train_step.init_train_state(variables, optimizer, mesh)
    key = sharding.put_replicated(mesh, jax.random.key(1))

    def run() -> None:
        nonlocal state
        for _ in range(_STEPS.value):
            state, loss = step(state, key, sharding.put_batch(mesh, images), sharding.put_batch(mesh, labels))
        loss.block_until_ready()

    return run


def torch_round(images: np.ndarray, labels: np.ndarray):
    """Returns the same for torch, or None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, channels, features, stride, kind):
            super().__init__()
            expansion = 1 if kind == "basic" else 4
            sizes = [(3, stride), (3, 1)] if kind == "basic" else [(1, 1), (3, stride), (1, 1)]
            outputs = [features] * (len(sizes) - 1) + [features * expansion]
            inputs = [channels, *outputs[:-1]]
            self.convolutions = nn.ModuleList(
                nn.Conv2d(i, o, k, s, k // 2, bias=False) for i, o, (k, s) in zip(inputs, outputs, sizes)
            )
            self.norms = nn.ModuleList(nn.BatchNorm2d(o) for o in outputs)
            self.shortcut = None
            if stride != 1 or channels != outputs[-1]:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(channels, outputs[-1], 1, stride, bias=False), nn.BatchNorm2d(outputs[-1])
                )

        def forward(self, x):
            y = x
            for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms)):
                y = norm(convolution(y))
                if i + 1 < len(self.norms):
                    y = functional.relu(y, inplace=True)
            return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)), inplace=True)

    kind, stages = _BLOCKS[_BACKBONE.value]
    width, expansion = _WIDTH.value, 1 if kind == "basic" else 4
    layers = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)]
    channels = width
    for stage, blocks in enumerate(stages):
        for block in range(blocks):
            stride = (1, 2, 2, _LAST_STRIDE.value)[stage] if block == 0 else 1
            layers.append(Block(channels, width * 2**stage, stride, kind))
            channels = width * 2**stage * expansion
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
    pixels, targets = torch.from_numpy(images.transpose(0, 3, 1, 2)), torch.from_numpy(labels).to(device)
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (augment.IMAGENET_MEAN, augment.IMAGENET_STD))

    def run() -> None:
        for _ in range(_STEPS.value):
            inputs = (pixels.to(device).float() / 255 - mean) / std
            embeddings = model(inputs.contiguous(memory_format=torch.channels_last))
            distances = torch.cdist(embeddings, embeddings).clamp(min=1e-6)
            same = targets[:, None] == targets
            positive = (distances * same).amax(1)
            negative = distances.masked_fill(same, float("inf")).amin(1)
            loss = functional.relu(positive - negative + 0.5).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def main(argv: list[str]) -> None:
    """Times both and prints images per second and their ratio."""
    del argv
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (_BATCH.value, _HEIGHT.value, _IMG_WIDTH.value, 3), dtype=np.uint8)
    labels = np.repeat(np.arange(_BATCH.value // 4, dtype=np.int32), 4)
    rounds = {"reid_jax": jax_round(images, labels), "torch": torch_round(images, labels)}
    rounds = {name: run for name, run in rounds.items() if run is not None}
    for run in rounds.values():
        run()  # compiles
    seconds = {name: [] for name in rounds}
    for _ in range(_ROUNDS.value):
        for name, run in rounds.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    rates = {name: _STEPS.value * _BATCH.value / np.median(values) for name, values in seconds.items()}
    print(
        f"{_BACKBONE.value} width {_WIDTH.value}, {_HEIGHT.value}x{_IMG_WIDTH.value}, batch {_BATCH.value}, "
        f"last stride {_LAST_STRIDE.value}, {_DTYPE.value}, {jax.devices()[0].device_kind}"
    )
    for name, rate in rates.items():
        print(f"  {name:10}{rate:10.1f} images/s (median of {_ROUNDS.value} rounds)")
    if "torch" in rates:
        print(f"  reid_jax / torch: {rates['reid_jax'] / rates['torch']:.2f}")
    else:
        print("  torch is not installed: nothing to compare with")


if __name__ == "__main__":
    app.run(main)
