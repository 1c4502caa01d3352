"""Depthwise convolutions as the platform computes them fast, against XLA's grouped convolution everywhere.

    python benchmarks/depthwise.py
    python benchmarks/depthwise.py --height=256 --width=128 --batch_size=32

Single layers of MobileNetV2 first, then the whole network: forward, as in evaluation, and a training step, which also
computes the gradients. On a GPU or TPU both are the grouped convolution.
"""

import argparse
import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np

from reid_jax.models import convolutions, mobilenet

# Of a layer's input: (part of the image's height and width, channels, stride).
LAYERS = ((2, 96, 2), (4, 144, 1), (8, 192, 1), (16, 384, 1), (32, 960, 1))
WAYS = ("grouped", "by platform")


def compiled(function: Callable, *args: Any) -> tuple[Callable, float]:
    """Returns a function of no arguments that runs the compiled program, and the seconds to trace and compile it."""
    start = time.perf_counter()
    # A function of its own: of one that it has seen JAX keeps the trace, and with it the way.
    program = jax.jit(lambda *args: function(*args)).lower(*args).compile()
    return functools.partial(program, *args), time.perf_counter() - start


def compare_layer(rng: np.random.Generator, shape: tuple[int, ...], stride: int, repeats: int) -> None:
    """Measures and prints one layer on inputs of a shape."""
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 1, shape[-1])), jnp.float32)
    convolve = dict(zip(WAYS, (convolutions.grouped_depthwise, convolutions.depthwise)))

    def step(convolve, x, kernel):
        return jax.value_and_grad(lambda x, kernel: jnp.sum(convolve(x, kernel, stride) ** 2), (0, 1))(x, kernel)

    forward = {way: compiled(lambda x, kernel: convolve[way](x, kernel, stride), x, kernel)[0] for way in WAYS}
    training = {way: compiled(functools.partial(step, convolve[way]), x, kernel)[0] for way in WAYS}
    for kind, calls in (("forward", forward), ("step", training)):
        seconds = measure.take_turns(calls, repeats=repeats)
        own, other = seconds["by platform"], seconds["grouped"]
        print(
            f"  {'x'.join(map(str, shape)):16} stride {stride} {kind:8} {1e3 * own:8.1f} ms   "
            f"grouped {1e3 * other:8.1f} ms   {other / own:.1f} x as fast",
            flush=True,
        )


def compare_network(rng: np.random.Generator, shape: tuple[int, ...], repeats: int) -> None:
    """Measures and prints MobileNetV2 on images of a shape."""
    model = mobilenet.mobilenet_v2()
    images = jnp.asarray(rng.normal(size=shape), jnp.float32)
    variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), images[:1])

    def step(variables, images):
        def loss(params):
            result, updated = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
            return jnp.mean(result**2), updated

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    for kind, function in (("forward", functools.partial(model.apply, train=False)), ("step", step)):
        calls, compile_seconds = {}, {}
        for way in WAYS:
            with convolutions.single_operations() if way == "grouped" else contextlib.nullcontext():
                calls[way], compile_seconds[way] = compiled(function, variables, images)
        seconds = measure.take_turns(calls, repeats=repeats)
        print(f"MobileNetV2, {'x'.join(map(str, shape))}, {kind}", flush=True)
        for way in WAYS:
            print(
                f"  {way:12} {seconds[way]:7.2f} s {len(images) / seconds[way]:8.1f} images/s   "
                f"compiled in {compile_seconds[way]:.1f} s"
            )
        print(f"  by platform {seconds['grouped'] / seconds['by platform']:.1f} x as fast", flush=True)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=64, help="images")
    parser.add_argument("--height", type=int, default=128, help="of the images, a multiple of 32")
    parser.add_argument("--width", type=int, default=128, help="of the images, a multiple of 32")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the best counts")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"one depthwise convolution, {jax.devices()[0].device_kind}")
    for part, channels, stride in LAYERS:
        shape = (args.batch_size, args.height // part, args.width // part, channels)
        compare_layer(rng, shape, stride, args.repeats)
    compare_network(rng, (args.batch_size, args.height, args.width, 3), args.repeats)


if __name__ == "__main__":
    main()
