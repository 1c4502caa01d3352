"""A model to use: the best of a run directory, a model folder, an exported file, or published weights."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from reid_jax import errors, features, postprocess, sharding
from reid_jax.data.image_files import ImageFiles
from reid_jax.data.images import CachedImages, ImageSource, StreamedImages, resize_images
from reid_jax.data.samples import Samples, select
from reid_jax.embeddings import Features
from reid_jax.inference import exported, networks
from reid_jax.postprocess import Postprocess

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
        digest: of its weights and what was fitted, the same for a run and what was exported of it.
        about: what it learned from, and whether labels of people were used, in a line.
        fitted: post-processing of its embeddings, or None.
        takes_cameras: whether `embed_step` has the cameras [B] int32 as a third argument.
    """

    source: str
    embed_step: features.EmbedStep
    variables: dict[str, Any] = dataclasses.field(repr=False)
    mesh: Mesh
    height: int
    width: int
    digest: str
    about: str = ""
    fitted: Postprocess | None = dataclasses.field(default=None, repr=False)
    takes_cameras: bool = False

    def embed(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        *,
        camids: np.ndarray | None = None,
        batch_size: int = _BATCH_SIZE,
    ) -> np.ndarray:
        """Embeds images.

        Args:
            images: [N, H, W, 3] uint8 RGB, of any size, or N arrays [h, w, 3], each of its own; resized as in training.
            camids: [N] int, the images' cameras, which count where the post-processing has a mean for each; None, or
                negative: not known.
            batch_size: images at a time.

        Returns:
            [N, D] float32, L2-normalised: a dot product is the cosine similarity.

        Raises:
            UserError: images of another shape or dtype, or none, or not as many cameras.
        """
        images = self._check_images(images)
        if camids is not None and np.shape(camids) != (len(images),):
            raise errors.UserError(f"camids must be [{len(images)}], one for each image, got shape {np.shape(camids)}")
        parts = []
        for start in range(0, len(images), _RESIZED_AT_A_TIME):
            block = images[start : start + _RESIZED_AT_A_TIME]
            if isinstance(block, np.ndarray):
                block = resize_images(block, self.height, self.width)
            else:
                block = np.concatenate([resize_images(each[None], self.height, self.width) for each in block])
            source, samples = CachedImages(block), Samples.of_images(len(block))
            if camids is not None:
                samples = dataclasses.replace(samples, camids=np.asarray(camids)[start : start + len(block)])
            parts.append(self.embed_samples(source, samples, batch_size=batch_size))
        return np.concatenate(parts)

    def _check_images(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray | Sequence[np.ndarray]:
        """Returns the images, as one array where all have one size."""
        is_one = hasattr(images, "shape") or len({np.shape(each) for each in images}) <= 1
        images = np.asarray(images) if is_one else images
        for each in (images,) if is_one else (np.asarray(image)[None] for image in images):
            if each.ndim != 4 or each.shape[-1] != 3 or each.dtype != np.uint8 or not len(each):
                raise errors.UserError(
                    f"images must be [N, H, W, 3] uint8 with N >= 1, or N arrays [h, w, 3] uint8, got shape {each.shape} "
                    f"of {each.dtype}"
                )
        return images

    def embed_samples(
        self, images: ImageSource, samples: Samples, *, batch_size: int = _BATCH_SIZE, description: str = "embedding"
    ) -> np.ndarray:
        """Embeds samples, with the post-processing: [N, D] float32, L2-normalised; see `features.embed_samples`."""
        # A few images need no whole batch of them, and a batch splits evenly over the devices.
        most = -(-min(batch_size, len(samples.frames)) // self.mesh.size) * self.mesh.size

        def embed(step: features.EmbedStep, chosen: Samples) -> np.ndarray:
            return features.embed_samples(
                step, self.variables, images, chosen, self.mesh, batch_size=most, description=description
            ).embeddings

        if not self.takes_cameras:
            return postprocess.apply(self.fitted, embed(self.embed_step, samples), samples.camids)
        parts = {}
        for camera in np.unique(samples.camids).tolist():  # one camera's samples at a time: a step knows none of them

            def step(variables: dict[str, Any], batch: Any, camera: int = camera) -> Features:
                return self.embed_step(variables, batch, np.full(len(batch), camera, np.int32))

            places = np.flatnonzero(samples.camids == camera)
            parts |= dict(zip(places.tolist(), embed(step, select(samples, places))))
        return postprocess.apply(None, np.stack([parts[place] for place in range(len(samples))]))

    def embed_files(
        self, files: ImageFiles, *, batch_size: int = _BATCH_SIZE, description: str = "embedding"
    ) -> np.ndarray:
        """Embeds image files, each for itself: [N, D] float32, L2-normalised."""
        samples = dataclasses.replace(Samples.of_images(len(files)), names=files.paths)
        images = StreamedImages(files, self.height, self.width, num_workers=0)
        return self.embed_samples(images, samples, batch_size=batch_size, description=description)


def load(source: str | pathlib.Path, *, batch_size: int, height: int = 0, width: int = 0) -> TrainedModel:
    """Loads a model, with a check that batches fit its devices.

    Args:
        source: as `load_model` takes it.
        batch_size: images at a time.
        height: as `load_model` takes it.
        width: likewise.

    Raises:
        UserError: there is no model, it cannot be read, or the batch size does not fit.
    """
    model, path = load_model(source, height=height, width=width), networks.find_model(source)
    if path and (path / "metrics.jsonl").is_file() and not (path / "result.json").is_file():
        print(f"the run in {source} has not finished: this is its best model so far", flush=True)
    sharding.check_batch_size(model.mesh, batch_size)
    return model


def load_model(source: str | pathlib.Path, *, height: int = 0, width: int = 0) -> TrainedModel:
    """Loads a model to embed images with.

    Args:
        source: a run directory (its best model) or its folder checkpoints/best or checkpoints/last, a model folder
            (model.json and weights), or a .zip that export wrote; the name of a run in the folder runs; or the name of
            published weights that `reid weights get` has got, such as "mobilenet_v2", or "color_histogram".
        height: that published weights see images at, in pixels; 0: 256, or near it. Of other models it is theirs.
        width: likewise; 128, or near it.

    Raises:
        UserError: there is no model, or it cannot be read.
    """
    path = networks.find_model(source)
    if path is not None and not path.is_dir():
        return _load_exported(path, str(source))
    mesh = sharding.make_mesh()
    network = networks.load_network(source, height=height, width=width)
    return TrainedModel(
        str(source),
        features.make_embed_step(network.module, mesh),
        network.variables,
        mesh,
        network.config.data.height,
        network.config.data.width,
        networks.digest(network),
        network.about,
        network.fitted,
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

    def embed_step(_, *arguments):
        return Features(call(*arguments))

    return TrainedModel(
        source,
        embed_step,
        {},
        mesh,
        info.height,
        info.width,
        info.digest,
        info.description,
        takes_cameras=info.takes_cameras,
    )
