"""Ports published weights of a ResNet, or another backbone, to the variables that --config.model.weights reads.

  python data_prep/port_resnet.py --source=resnet50-0676ba61.pth --architecture=resnet50 --output=weights/resnet50.npz

Needs no torch, and runs nothing that the source says. A transformer's variables fit images of 224 x 224 pixels alone:
for other sizes give the state itself to --config.model.weights, which interpolates its position embeddings.
"""

import functools
import hashlib
import pathlib

import jax
import jax.numpy as jnp
from absl import flags

from reid_jax import errors
from reid_jax.cli import program
from reid_jax.models import backbones, pretrained
from reid_jax.models.reid import ReidModel


def port_resnet(source: str, architecture: str, output: str) -> None:
    """Writes the weights of a torch state as a model's variables and prints what was written.

    Args:
        source: the state, as `pretrained.load_state` reads it.
        architecture: a name of `backbones.ARCHITECTURES` that has weights.
        output: the .npz to write.

    Raises:
        UserError: an argument breaks a rule, or the source is not that architecture's.
        OSError: a file cannot be read or written.
    """
    if architecture not in _architectures():
        raise errors.UserError(f"--architecture must be one of {', '.join(_architectures())}, got {architecture!r}")
    # Before the work: both would be found only after it.
    if pathlib.Path(output).suffix != ".npz":
        raise errors.UserError(f"--output must end in .npz, got {output!r}")
    if pathlib.Path(output).is_dir():
        raise errors.UserError(f"--output must be a file, {output!r} is a folder")
    state = pretrained.load_state(source)
    model = ReidModel(backbone=backbones.make(architecture))
    height, width = backbones.natural_size(architecture)
    sample = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), sample)
    try:
        variables = pretrained.to_variables(state, shapes, model.backbone)
    except errors.UserError as error:
        raise errors.UserError(f"{source} is not a {architecture}: {error}") from error
    pretrained.save_variables(output, variables)

    num_tensors = len(jax.tree.leaves(variables))
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    with open(source, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    print(f"source:  {source}\n  sha256: {digest}")
    print(f"written: {output}\n  {architecture}, {num_tensors} tensors, {num_parameters:,} parameters")


def _architectures() -> list[str]:
    return [name for name, known in backbones.ARCHITECTURES.items() if known.has_weights]


def _define_flags() -> None:
    flags.DEFINE_string("source", None, "The state: .safetensors, .npz, .pth, .pt or .bin.")
    flags.DEFINE_string("architecture", None, f"Which network: {', '.join(_architectures())}.")
    flags.DEFINE_string("output", None, "The .npz to write, such as weights/resnet50.npz.")


def _main() -> None:
    args = flags.FLAGS
    for required in ("source", "architecture", "output"):
        if not args[required].value:
            raise errors.UserError(f"--{required}: it must be given")
    port_resnet(args.source, args.architecture, args.output)


if __name__ == "__main__":
    program.run(_main, _define_flags)
