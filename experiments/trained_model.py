"""A trained model to use: the best of a run directory, or an exported file."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments import config_checks, setup_run
from experiments.configs import shared
from reid_jax import checkpoints, exported, features, logs, sharding, types
from reid_jax.data.image_files import ImageFiles
from reid_jax.data.images import ImageSource, StreamedImages
from reid_jax.data.samples import Samples


class TrainedModel(NamedTuple):
    """What is needed to embed images.

    Attributes:
        source: what the user named.
        embed_step: (variables, images [B, height, width, 3] uint8) -> `types.Features`.
        variables: the model's; empty for an exported one.
        mesh: the devices it works on.
        height: of its images in pixels.
        width: likewise.
        digest: of its weights, the same for a run and what was exported of it.
    """

    source: str
    embed_step: features.EmbedStep
    variables: dict[str, Any]
    mesh: Mesh
    height: int
    width: int
    digest: str


def run_config(checkpoint: str | pathlib.Path, *, flag: str = "checkpoint") -> ConfigDict:
    """Reads the config of the run that a checkpoint belongs to; `flag` is the command line's name for it.

    Raises:
        UserError: there is no config.json in or above the folder.
    """
    for folder in (pathlib.Path(checkpoint), *pathlib.Path(checkpoint).absolute().parents[:2]):
        if (folder / "config.json").is_file():
            # Fields that came after the run have the value that changes nothing.
            config = shared.base_config("folder").unlock()
            config.update(logs.read_json(folder / "config.json"))
            own = shared.base_config("folder").data
            for name in ("cache_dir", "cache_gib", "num_workers"):  # of the machine that trained
                config.data[name] = own[name]
            return config
    raise types.UserError(
        f"--{flag}: no run directory at {str(checkpoint)!r}: neither it nor its parents hold config.json"
    )


def load_run(workdir: str | pathlib.Path) -> tuple[nn.Module, dict[str, Any], ConfigDict]:
    """Loads the model of a run: (module, variables, the run's config).

    Args:
        workdir: a run directory (its best model), or its folder checkpoints/best or checkpoints/last.

    Raises:
        UserError: there is none, it cannot be read, or its config breaks a rule.
    """
    config = run_config(workdir, flag="model")
    config_checks.check_config(ConfigDict({"data": config.data, "model": config.model}))
    model = setup_run.build_model(config.model)
    shapes = setup_run.variable_shapes(config, model, (config.data.height, config.data.width, 3))
    return model, checkpoints.restore_variables(workdir, shapes), config


def load(source: str, *, batch_size: int) -> TrainedModel:
    """Loads a model, with a check that batches fit its devices.

    Args:
        source: as `load_run` takes it, or a file that export.py wrote.
        batch_size: images at a time.

    Raises:
        UserError: there is no model, it cannot be read, or the batch size does not fit.
    """
    path = pathlib.Path(source)
    if not path.exists():
        raise types.UserError(f"--model: there is no run directory and no exported model at {source!r}")
    if path.is_dir():
        model, variables, config = load_run(path)
        if (path / "metrics.jsonl").is_file() and not (path / "result.json").is_file():
            print(f"the run in {source} has not finished: this is its best model so far", flush=True)
        mesh = sharding.make_mesh()
        embed_step, digest = features.make_embed_step(model, mesh), checkpoints.digest(variables)
        height, width = config.data.height, config.data.width
    else:
        if not exported.is_model_file(path):
            advice = "; of an exported model it is the .zip that is read back" if path.suffix == ".onnx" else ""
            raise types.UserError(
                f"--model: {source!r} is neither a run directory nor a whole .zip of export.py{advice}"
            )
        model = exported.read_model(path)
        # The program has no shardings, and one device is what it was checked on.
        mesh, variables = sharding.make_mesh(1), {}
        call = jax.jit(model.call)
        height, width, digest = model.info.height, model.info.width, model.info.digest

        def embed_step(_, images):
            return types.Features(call(images))

    sharding.check_batch_size(mesh, batch_size)
    return TrainedModel(source, embed_step, variables, mesh, height, width, digest)


def embed(
    model: TrainedModel, images: ImageSource, samples: Samples, *, batch_size: int, description: str
) -> np.ndarray:
    """Embeds samples: [N, D] float32, L2-normalised; see `features.embed_samples`."""
    # A few images need no whole batch of them.
    fitting = -(-len(samples.frames) // model.mesh.size) * model.mesh.size
    found = features.embed_samples(
        model.embed_step,
        model.variables,
        images,
        samples,
        model.mesh,
        batch_size=min(batch_size, fitting),
        description=description,
    )
    return features.l2_normalized(found.embeddings)


def embed_files(model: TrainedModel, files: ImageFiles, *, batch_size: int, description: str) -> np.ndarray:
    """Embeds image files, each for itself: [N, D] float32, L2-normalised."""
    every, unknown = np.arange(len(files) + 1), np.full(len(files), types.UNKNOWN)
    samples = Samples(every[:-1], every, unknown, unknown, files.paths)
    images = StreamedImages(files, model.height, model.width, num_workers=0)
    return embed(model, images, samples, batch_size=batch_size, description=description)
