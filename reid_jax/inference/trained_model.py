"""A trained model to use: the best of a run directory, a model folder, or an exported file."""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from reid_jax import errors, features, sharding
from reid_jax.data.image_files import ImageFiles
from reid_jax.data.images import CachedImages, ImageSource, StreamedImages, resize_images
from reid_jax.data.samples import Samples
from reid_jax.embeddings import Features, l2_normalize
from reid_jax.inference import exported, model_folder
from reid_jax.runs import base_config, checkpoints, config_rules, logs, models

_BATCH_SIZE = 64
_RESIZED_AT_A_TIME = 1024  # images of another size: what is resized is held


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """What is needed to embed images.

    Attributes:
        source: what the user named.
        embed_step: (variables, images [B, height, width, 3] uint8) -> `Features`.
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

    def embed(self, images: np.ndarray, *, batch_size: int = _BATCH_SIZE) -> np.ndarray:
        """Embeds images.

        Args:
            images: [N, H, W, 3] uint8 RGB, of any size; resized as in training.
            batch_size: images at a time.

        Returns:
            [N, D] float32, L2-normalised: a dot product is the cosine similarity.

        Raises:
            UserError: images of another shape or dtype, or none.
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not len(images):
            raise errors.UserError(
                f"images must be [N, H, W, 3] uint8 with N >= 1, got shape {images.shape} of {images.dtype}"
            )
        parts = []
        for start in range(0, len(images), _RESIZED_AT_A_TIME):
            block = resize_images(images[start : start + _RESIZED_AT_A_TIME], self.height, self.width)
            source, samples = CachedImages(block), Samples.of_images(len(block))
            parts.append(self.embed_samples(source, samples, batch_size=batch_size))
        return np.concatenate(parts)

    def embed_samples(
        self, images: ImageSource, samples: Samples, *, batch_size: int = _BATCH_SIZE, description: str = "embedding"
    ) -> np.ndarray:
        """Embeds samples: [N, D] float32, L2-normalised; see `features.embed_samples`."""
        # A few images need no whole batch of them, and a batch splits evenly over the devices.
        most = -(-min(batch_size, len(samples.frames)) // self.mesh.size) * self.mesh.size
        embedded = features.embed_samples(
            self.embed_step,
            self.variables,
            images,
            samples,
            self.mesh,
            batch_size=most,
            description=description,
        )
        return l2_normalize(embedded.embeddings)

    def embed_files(
        self, files: ImageFiles, *, batch_size: int = _BATCH_SIZE, description: str = "embedding"
    ) -> np.ndarray:
        """Embeds image files, each for itself: [N, D] float32, L2-normalised."""
        samples = dataclasses.replace(Samples.of_images(len(files)), names=files.paths)
        images = StreamedImages(files, self.height, self.width, num_workers=0)
        return self.embed_samples(images, samples, batch_size=batch_size, description=description)


def run_config(checkpoint: str | pathlib.Path) -> ConfigDict:
    """Reads the config of the run that a checkpoint belongs to.

    Raises:
        UserError: there is no config.json in or above the folder.
    """
    for folder in (pathlib.Path(checkpoint), *pathlib.Path(checkpoint).absolute().parents[:2]):
        if (folder / "config.json").is_file():
            # Fields that came after the run have the value that changes nothing.
            config = base_config.base_config("folder").unlock()
            config.update(logs.read_json(folder / "config.json"))
            own = base_config.base_config("folder").data
            for name in ("cache_dir", "cache_gib", "num_workers"):  # of the machine that trained
                config.data[name] = own[name]
            return config
    raise errors.UserError(
        f"no model at {str(checkpoint)!r}: a run directory holds config.json, a model folder model.json"
    )


def load_run(workdir: str | pathlib.Path) -> tuple[nn.Module, dict[str, Any], ConfigDict]:
    """Loads the model of a run: (module, variables, the run's config).

    Args:
        workdir: a run directory (its best model), or its folder checkpoints/best or checkpoints/last.

    Raises:
        UserError: there is none, it cannot be read, or its config breaks a rule.
    """
    config = run_config(workdir)
    config_rules.check_config(ConfigDict({"data": config.data, "model": config.model}))
    model = models.build_model(config.model)
    shapes = models.variable_shapes(config, model, (config.data.height, config.data.width, 3))
    return model, checkpoints.restore_variables(workdir, shapes), config


def load_network(source: str | pathlib.Path) -> tuple[nn.Module, dict[str, Any], ConfigDict]:
    """Loads the network of a run directory, as `load_run`, or of a model folder, with a config of the same form.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    source = find_model(source)
    if not model_folder.is_model_folder(source):
        return load_run(source)
    model, variables, info, config = model_folder.read_model(source)
    config.unlock().update({"method": info.method})
    config.data.dataset = info.trained_on
    return model, variables, config


def load(source: str | pathlib.Path, *, batch_size: int) -> TrainedModel:
    """Loads a model, with a check that batches fit its devices.

    Args:
        source: as `load_model` takes it.
        batch_size: images at a time.

    Raises:
        UserError: there is no model, it cannot be read, or the batch size does not fit.
    """
    model, path = load_model(source), find_model(source)
    if (path / "metrics.jsonl").is_file() and not (path / "result.json").is_file():
        print(f"the run in {source} has not finished: this is its best model so far", flush=True)
    sharding.check_batch_size(model.mesh, batch_size)
    return model


def find_model(source: str | pathlib.Path) -> pathlib.Path:
    """Returns the path of a model, or of the run of that name in the folder runs.

    Raises:
        UserError: there is neither.
    """
    path = pathlib.Path(source).expanduser()
    if path.exists():
        return path
    run = pathlib.Path("runs", path)
    if not run.is_dir():
        raise errors.UserError(f"there is no run directory, no model folder and no exported model at {str(source)!r}")
    return run


def load_model(source: str | pathlib.Path) -> TrainedModel:
    """Loads a model to embed images with.

    Args:
        source: a run directory (its best model) or its folder checkpoints/best or checkpoints/last, a model folder
            (model.json and weights), or a .zip that export wrote; or the name of a run in the folder runs.

    Raises:
        UserError: there is no model, or it cannot be read.
    """
    path = find_model(source)
    if not path.is_dir():
        return _load_exported(path, str(source))
    mesh = sharding.make_mesh()
    module, variables, config = load_network(path)
    return TrainedModel(
        str(source),
        features.make_embed_step(module, mesh),
        variables,
        mesh,
        config.data.height,
        config.data.width,
        checkpoints.digest(variables),
    )


def _load_exported(path: pathlib.Path, source: str) -> TrainedModel:
    if not exported.is_model_file(path):
        advice = "; of an exported model it is the .zip that is read back" if path.suffix == ".onnx" else ""
        raise errors.UserError(
            f"{source!r} is neither a run directory, a model folder nor a whole .zip of export{advice}"
        )
    model = exported.read_model(path)
    # The program has no shardings, and one device is what it was checked on.
    mesh, call, info = sharding.make_mesh(1), jax.jit(model.call), model.info

    def embed_step(_, images):
        return Features(call(images))

    return TrainedModel(source, embed_step, {}, mesh, info.height, info.width, info.digest)
