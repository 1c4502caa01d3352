"""Embedded images, however the user names them: a folder, one image, or an .npz of `reid embed`; and their pictures."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from reid_jax import errors, identities, postprocess
from reid_jax.data import image_folder, verification
from reid_jax.data import records as records_lib
from reid_jax.data.image_files import inside
from reid_jax.data.images import decode_small
from reid_jax.inference.trained_model import TrainedModel
from reid_jax.postprocess import Postprocess
from reid_jax.retrieval import embedding_files
from reid_jax.retrieval.embedding_files import EmbeddingFile, Origin

_MOST_BYTES = 200_000_000  # of an image file


@dataclasses.dataclass(frozen=True)
class Collection:
    """Embedded images; N items.

    Attributes:
        source: what the user named.
        shape: (N, D) of the embeddings.
        paths: [N] str.
        pids: [N] int64; -1 where not known.
        camids: [N] int64; -1 where not known.
        origin: the model that embedded them, and where they lie.
        fitted: post-processing of the embeddings, or None.
    """

    source: str
    shape: tuple[int, int]
    paths: np.ndarray
    pids: np.ndarray
    camids: np.ndarray
    origin: Origin
    _embeddings: np.ndarray | EmbeddingFile
    fitted: Postprocess | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields the embeddings in order, [B, D] float32 at a time; those of a file are never all in memory."""
        is_file = isinstance(self._embeddings, EmbeddingFile)
        blocks = embedding_files.read_blocks(self._embeddings) if is_file else iter((self._embeddings,))
        if self.fitted is None:
            yield from blocks
            return
        start = 0
        for block in blocks:
            yield postprocess.apply(self.fitted, block, self.camids[start : start + len(block)])
            start += len(block)

    def embeddings(self) -> np.ndarray:
        """Returns all embeddings [N, D] float32."""
        if self.fitted is None and isinstance(self._embeddings, EmbeddingFile):
            return embedding_files.read_embeddings(self._embeddings)
        return np.concatenate(list(self.blocks()))

    def postprocessed(self, fitted: Postprocess) -> "Collection":
        """Returns the same images with embeddings that are post-processed when they are read.

        Raises:
            UserError: the post-processing is of embeddings of another size, or there is some already.
        """
        if self.fitted is not None:
            raise errors.UserError(
                f"the embeddings of {self.source!r} have post-processing already, {self.fitted.kind}"
            )
        if self.shape[1] != len(fitted.mean):
            raise errors.UserError(
                f"post-processing of {len(fitted.mean)} numbers does not fit the {self.shape[1]} of {self.source!r}"
            )
        origin = self.origin._replace(model=postprocess.digest(self.origin.model, fitted) if self.origin.model else "")
        return dataclasses.replace(self, shape=(self.shape[0], fitted.dim), origin=origin, fitted=fitted)

    def place(self, index: int) -> tuple[str, ...] | None:
        """A key that identifies an image: its file's path, or its data set and path in it; None: not known."""
        path = str(self.paths[index])
        if self.origin.dataset:
            return (*self.origin.dataset, path)
        return (os.path.join(self.origin.folder, path),) if self.origin.folder else None

    def knows_people_of(self, other: "Collection") -> bool:
        """Whether both sides' pids number the same people: they are of one data set, or one folder."""
        if self.origin.dataset:
            return self.origin.dataset[:2] == other.origin.dataset[:2]
        return self.origin.folder != "" and self.origin.folder == other.origin.folder

    def encoded(self, index: int) -> bytes | None:
        """Returns the bytes of an image file; None where it is no longer there, or no image.

        Raises:
            UserError: its path leads out of the folder.
        """
        try:
            if self.origin.dataset:
                records, positions = self._records
                data = records.encoded(positions[str(self.paths[index])])
            else:
                # An untrusted .npz can name any path; reading a pipe would hang.
                file = inside(self.origin.folder, self.paths[index]) if self.origin.folder else None
                if file is None or not file.is_file() or file.stat().st_size > _MOST_BYTES:
                    return None
                data = file.read_bytes()
        except (OSError, KeyError):
            return None
        with verification.quiet_pillow():
            return data if verification.image_problem(data) is None else None

    def thumbnail(self, index: int, *, size: int = 256) -> np.ndarray | None:
        """Returns an image [h, w, 3] uint8, no side longer than `size` pixels; None where it is no longer there."""
        data = self.encoded(index)
        return None if data is None else decode_small(data, size)

    @functools.cached_property
    def _records(self) -> tuple[records_lib.Records, dict[str, int]]:
        data_dir, dataset, split = self.origin.dataset
        try:
            parts = [records_lib.load_records(data_dir, name)[split] for name in dataset.split("+")]
        except errors.UserError as error:
            raise KeyError(str(error)) from error
        records = records_lib.join(parts) if parts[1:] else parts[0]
        return records, {str(path): place for place, path in enumerate(records.paths)}


def embedded_size(source: str, *, flag: str) -> tuple[int, int]:
    """Returns the size of the images that an .npz was embedded from: (height, width) in pixels; 0 where not known.

    Args:
        source: what the user named.
        flag: the command line's name for it, for messages.

    Raises:
        UserError: it is no file of embeddings.
    """
    with errors.prefixed(f"--{flag}: "):
        return embedding_files.open_embeddings(source).origin[1:3]


def open_collection(
    source: str,
    *,
    flag: str,
    model: TrainedModel | None,
    batch_size: int,
    on_bad_image: str = "fail",
    people_in_folders: bool = False,
) -> Collection:
    """Opens an .npz, or embeds a folder's images or a single one.

    Args:
        source: what the user named.
        flag: the command line's name for it, for messages.
        model: to embed with; an .npz must be of the same weights. None: only an .npz will do.
        batch_size: images embedded at a time.
        on_bad_image: "fail" or "skip", as in `image_folder.find_images`.
        people_in_folders: whether the sub-folders of a folder are people. They may be days or cameras as well.

    Raises:
        UserError: it is not there, holds no images, a damaged one, or embeddings of another model.
    """
    if pathlib.Path(source).suffix == ".npz":
        with errors.prefixed(f"--{flag}: "):
            opened = embedding_files.open_embeddings(source)
        if len(opened.origin.dataset) not in (0, 3):
            raise errors.UserError(f"--{flag}: the origin in {source!r} must name a data set by folder, name and split")
        _, shape, paths, pids, camids, origin = opened
        collection = Collection(source, shape, paths, pids, camids, origin, opened)
        if model is not None and origin.model not in ("", model.digest):
            raise errors.UserError(
                f"--{flag}: {source!r} is of a model with the weights {origin.model}, {model.source!r} has the weights "
                f"{model.digest}; embed its images with that model"
            )
        return collection
    if model is None:
        raise errors.UserError(f"--model is needed to embed --{flag}={source}")
    files = image_folder.find_images(source, flag=flag, on_bad_image=on_bad_image)
    embeddings = model.embed_files(files, batch_size=batch_size, description=f"embedding {files.name}")
    origin = Origin(model.digest, model.height, model.width, str(files.folder.resolve()), about=model.about)
    unknown = np.full(len(files), identities.UNKNOWN)
    pids = image_folder.person_numbers(files.paths) if people_in_folders else unknown
    return Collection(source, embeddings.shape, files.paths, pids, unknown, origin, embeddings)


def check_comparable(collections: Iterable[tuple[str, Collection]]) -> None:
    """Checks that embeddings, each with its flag, can be compared with each other.

    Raises:
        UserError: two are of different sizes, or of different weights.
    """
    opened = list(collections)
    for place, (flag, each) in enumerate(opened):
        for other_flag, other in opened[:place]:
            if each.shape[1] != other.shape[1]:
                raise errors.UserError(
                    f"--{flag}: the embeddings of {each.source!r} have {each.shape[1]} numbers, those of --{other_flag} "
                    f"({other.source!r}) {other.shape[1]}; both must be of one model"
                )
            sizes = {side.origin[1:3] for side in (each, other)} - {(0, 0)}
            if len(sizes) > 1:
                raise errors.UserError(
                    f"--{flag}: {each.source!r} was embedded from images of {each.origin.height} x {each.origin.width} "
                    f"pixels (height x width), --{other_flag} ({other.source!r}) of {other.origin.height} x "
                    f"{other.origin.width}; both must be of one size"
                )
            if each.origin.model != other.origin.model and "" not in (each.origin.model, other.origin.model):
                raise errors.UserError(
                    f"--{flag}: {each.source!r} is of a model with the weights {each.origin.model}, --{other_flag} "
                    f"({other.source!r}) of {other.origin.model}; both must be of one model"
                )
