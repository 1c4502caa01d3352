"""A trained model as one file that serves without this code: StableHLO with its weights, by `jax.export`.

The file is a zip archive that is not compressed: `model.stablehlo`, the function that `jax.export.deserialize` loads,
`model.json`, what it is, and `README.txt`, how to call it. The function takes images as they are decoded, of any number
and size, and returns embeddings; nothing of this library is needed to run it.
"""

import json
import pathlib
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import export

from reid_jax import atomic, augment, types

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_PROGRAM, _INFO, _README = "model.stablehlo", "model.json", "README.txt"
_MAX_INFO_BYTES = 2**20
_FORMAT = "reid_jax embedding model 1"
_USAGE = """A person re-identification model: images of people -> embeddings. Written by reid_jax.

    import json, zipfile
    import numpy as np
    from jax import export                      # pip install jax flatbuffers
    from PIL import Image

    with zipfile.ZipFile("{name}") as file:
        embed = export.deserialize(bytearray(file.read("model.stablehlo"))).call
    image = np.asarray(Image.open("person.jpg").convert("RGB"))     # [h, w, 3] uint8
    embeddings = embed(image[None])                                 # [B, {dim}] float32 of length 1

Images are [B, h, w, 3] uint8, RGB; B, h and w are free, and every new combination of them is compiled once, so
resize to {height} x {width} (height x width) yourself where sizes vary, by antialiased bilinear interpolation. The
smaller 1 - dot(a, b) of two embeddings, the likelier they show the same person. model.json says what it was made of.
"""


class Info(NamedTuple):
    """What an exported model is.

    Attributes:
        digest: of the weights, as `checkpoints.digest` makes it.
        height: that images are resized to, in pixels.
        width: likewise.
        dim: length of an embedding, D.
        dtype: that activations are computed in.
        description: of the run, for people.
    """

    digest: str
    height: int
    width: int
    dim: int
    dtype: str
    description: str


class ExportedModel(NamedTuple):
    """A model read from a file.

    Attributes:
        call: (images [B, h, w, 3] uint8) -> embeddings [B, D] float32, L2-normalised.
        info: what it is.
    """

    call: Callable[[jax.Array], jax.Array]
    info: Info


def embedding_function(
    model: nn.Module, variables: dict[str, Any], *, height: int, width: int
) -> Callable[[jax.Array], jax.Array]:
    """Makes the function that is exported: resizing, normalisation, the model, and L2 normalisation.

    Args:
        model: returns `types.Features`.
        variables: the model's.
        height: of the images that the model was trained on, in pixels.
        width: likewise.

    Returns:
        (images [B, h, w, 3] uint8, of any size) -> embeddings [B, D] float32.
    """

    def embed(images: jax.Array) -> jax.Array:
        resized = resize(images, height=height, width=width)
        embeddings = model.apply(variables, augment.normalize(resized), train=False).embeddings
        return embeddings / jnp.maximum(jnp.linalg.norm(embeddings, axis=-1, keepdims=True), 1e-12)

    return embed


def resize(images: jax.Array, *, height: int, width: int) -> jax.Array:
    """Resizes by Pillow's antialiased bilinear filter, to within one grey level of it; exactly where nothing changes.

    Args:
        images: [B, h, w, 3] uint8.
        height: of the result in pixels. Static.
        width: likewise. Static.

    Returns:
        [B, height, width, 3] float32 whole numbers 0..255.
    """
    pixels = images.astype(jnp.float32)
    for axes, size, wanted in (("oh,bhwc->bowc", images.shape[1], height), ("ow,bhwc->bhoc", images.shape[2], width)):
        # At the default precision a GPU would keep three digits.
        pixels = jnp.einsum(axes, _filter(size, wanted), pixels, precision=jax.lax.Precision.HIGHEST)
        # Pillow keeps bytes between the two directions. Which comes first depends on its version and the sizes.
        pixels = jnp.clip(jnp.floor(pixels + 0.5), 0, 255)
    return pixels


def _filter(size: Any, wanted: int) -> jax.Array:
    """The triangle filter [wanted, size] with which each resized pixel is a mean; `size` may be symbolic."""
    scale = jnp.asarray(size, jnp.float32) / wanted
    places = (jnp.arange(size) + 0.5)[None] - ((jnp.arange(wanted) + 0.5) * scale)[:, None]
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(places) / jnp.maximum(scale, 1.0))
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def write_model(
    file: str | pathlib.Path, function: Callable[[jax.Array], jax.Array], info: Info, *, name: str | None = None
) -> None:
    """Exports a function for all platforms and writes it, whole or not at all.

    Args:
        file: to make or replace.
        function: from `embedding_function`.
        info: what it is; `dim` must be right.
        name: what the file will be called, for its README.txt; None: as it is.
    """
    sizes = export.symbolic_shape("b, h, w")
    images = jax.ShapeDtypeStruct((*sizes, 3), jnp.uint8)
    program = export.export(jax.jit(function), platforms=PLATFORMS)(images).serialize()
    usage = _USAGE.format(name=name or pathlib.Path(file).name, dim=info.dim, height=info.height, width=info.width)
    facts = {"format": _FORMAT, **info._asdict(), "platforms": PLATFORMS, "jax": jax.__version__}
    with atomic.atomic_path(file) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for entry, content in ((_README, usage), (_INFO, json.dumps(facts, indent=2) + "\n"), (_PROGRAM, program)):
            # A date of its own would make two files of the same model differ.
            archive.writestr(zipfile.ZipInfo(entry), bytes(content, "utf-8") if isinstance(content, str) else content)


def is_model_file(file: str | pathlib.Path) -> bool:
    """Whether a file looks like one that `write_model` wrote; nothing of it is run."""
    try:
        with zipfile.ZipFile(file) as archive:
            return {_PROGRAM, _INFO} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def read_model(file: str | pathlib.Path) -> ExportedModel:
    """Loads an exported model. What it holds is a program of array operations, checked for what it takes and returns.

    Raises:
        UserError: it is no such file, damaged, or not made for this platform.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if archive.getinfo(_INFO).file_size > _MAX_INFO_BYTES:
                raise ValueError(f"{_INFO} in it has more than {_MAX_INFO_BYTES} bytes")
            # Compressed, a small file could unpack to any size.
            if archive.getinfo(_PROGRAM).compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{_PROGRAM} in it must be stored, not compressed")
            info = _parse_info(json.loads(archive.read(_INFO)))
            program = export.deserialize(bytearray(archive.read(_PROGRAM)))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise types.UserError(f"{str(file)!r} is no exported model as export.py writes it: {error}") from error
    _check_program(file, program, info)
    return ExportedModel(program.call, info)


def _parse_info(facts: Any) -> Info:
    if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
        raise ValueError(f"{_INFO} in it must say the format {_FORMAT!r}")
    info = Info(*(facts[name] for name in Info._fields))
    for name, value in info._asdict().items():
        kind = int if name in ("height", "width", "dim") else str
        if not isinstance(value, kind) or (kind is int and value < 1):
            raise ValueError(f"{name} in its {_INFO} must be a {kind.__name__}, got {value!r}")
    return info


def _check_program(file: str | pathlib.Path, program: export.Exported, info: Info) -> None:
    platform = export.default_export_platform()
    if platform not in program.platforms:
        raise types.UserError(
            f"{str(file)!r} was exported for {', '.join(program.platforms)}, this machine computes on {platform}"
        )
    takes, gives = program.in_avals, program.out_avals
    takes_images = len(takes) == 1 and takes[0].dtype == jnp.uint8 and takes[0].ndim == 4 and takes[0].shape[3] == 3
    gives_vectors = len(gives) == 1 and gives[0].dtype == jnp.float32 and gives[0].shape[1:] == (info.dim,)
    if not (takes_images and gives_vectors and program.nr_devices == 1):
        raise types.UserError(
            f"the function in {str(file)!r} must take images [B, h, w, 3] uint8 and return [B, {info.dim}] float32, it "
            f"takes {', '.join(map(str, takes))} and returns {', '.join(map(str, gives))}"
        )
