"""A trained model as one file that serves without this code: StableHLO with its weights, by `jax.export`.

The file is a zip archive that is not compressed: `model.stablehlo`, the function that `jax.export.deserialize` loads,
`model.json`, what it is, and `README.txt`, how to call it. The function takes images as they are decoded, of any number
and size, and returns embeddings; nothing of this library is needed to run it.
"""

import contextlib
import errno
import json
import pathlib
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import export
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import sdy, stablehlo

from reid_jax import atomic, augment, errors, postprocess
from reid_jax.postprocess import Postprocess

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_PROGRAM, _INFO, _README = "model.stablehlo", "model.json", "README.txt"
_MAX_INFO_BYTES = 2**20
_FORMAT = "reid_jax embedding model 1"
# Whatever else jaxlib knows by a name may do more than compute: `jax.export` tells to trust what is deserialised.
_CALLS = {"shape_assertion"}
_USAGE = """A person re-identification model: images of people -> embeddings. Written by reid_jax.

    import zipfile
    import numpy as np
    from jax import export                      # pip install jax flatbuffers pillow
    from PIL import Image, ImageOps

    with zipfile.ZipFile({name!r}) as file:
        embed = export.deserialize(bytearray(file.read("model.stablehlo"))).call
    image = ImageOps.exif_transpose(Image.open("person.jpg"))
    image = np.asarray(image.convert("RGB"))                        # [h, w, 3] uint8
    embeddings = embed(image[None]{argument})                                 # [B, {dim}] float32 of length 1

Images are [B, h, w, 3] uint8, RGB; B, h and w are free, and every new combination of them is compiled once, so
resize to {height} x {width} (height x width) yourself where sizes vary, by antialiased bilinear interpolation. The
smaller 1 - dot(a, b) of two embeddings, the likelier they show the same person. model.json says what it was made of.
{cameras}"""
_CAMERAS = """The second argument is each image's camera, [B] int32, numbered as when the model was made; -1: not known.
"""


class Info(NamedTuple):
    """What an exported model is.

    Attributes:
        digest: of the weights and what was fitted, as `networks.digest` makes it.
        height: that images are resized to, in pixels.
        width: likewise.
        dim: length of an embedding, D.
        dtype: that activations are computed in.
        description: of the run, for people.
        postprocess: its kind.
    """

    digest: str
    height: int
    width: int
    dim: int
    dtype: str
    description: str
    postprocess: str = "none"

    @property
    def takes_cameras(self) -> bool:
        """Whether the function has the cameras as its second argument."""
        return self.postprocess in postprocess.CAMERA_KINDS


class ExportedModel(NamedTuple):
    """A model read from a file.

    Attributes:
        call: (images [B, h, w, 3] uint8) -> embeddings [B, D] float32, L2-normalised; where `info.takes_cameras`, of
            (images, cameras [B] int32, -1 where not known).
        info: what it is.
    """

    call: Callable[..., jax.Array]
    info: Info


def embedding_function(
    model: nn.Module, variables: dict[str, Any], *, height: int, width: int, fitted: Postprocess | None = None
) -> Callable[..., jax.Array]:
    """Makes the function that is exported: resizing, normalisation, the model, post-processing, L2 normalisation.

    Args:
        model: returns `Features`.
        variables: the model's.
        height: of the images that the model was trained on, in pixels.
        width: likewise.
        fitted: post-processing.

    Returns:
        (images [B, h, w, 3] uint8, of any size) -> embeddings [B, D] float32; where cameras have means of their own, of
        (images, cameras [B] int32, -1 where not known).
    """

    def embed(images: jax.Array, cameras: jax.Array | None = None) -> jax.Array:
        resized = resize(images, height=height, width=width)
        embeddings = model.apply(variables, augment.normalize(resized), train=False).embeddings
        return postprocess.traced(fitted, embeddings, cameras)

    if takes_cameras(fitted):
        return embed
    return lambda images: embed(images)


def takes_cameras(fitted: Postprocess | None) -> bool:
    """Whether embeddings depend on the camera, too."""
    return fitted is not None and len(fitted.cameras) > 0


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
    # Pillow 11 always makes the rows' pixels first, 13 for most sizes, such as Market-1501's to 256 x 128.
    for axes, size, wanted in (("ow,bhwc->bhoc", images.shape[2], width), ("oh,bhwc->bowc", images.shape[1], height)):
        # At the default precision a GPU would keep three digits.
        pixels = jnp.einsum(axes, _filter(size, wanted), pixels, precision=jax.lax.Precision.HIGHEST)
        # Pillow keeps bytes between the two directions.
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
    arguments = [jax.ShapeDtypeStruct((*sizes, 3), jnp.uint8)]
    if info.takes_cameras:
        arguments.append(jax.ShapeDtypeStruct(sizes[:1], jnp.int32))
    with _without_source_lines():
        program = export.export(jax.jit(function), platforms=PLATFORMS)(*arguments).serialize()
    usage = _USAGE.format(
        name=name or pathlib.Path(file).name,
        dim=info.dim,
        height=info.height,
        width=info.width,
        argument=", np.array([-1], np.int32)" if info.takes_cameras else "",
        cameras=_CAMERAS if info.takes_cameras else "",
    )
    record = {"format": _FORMAT, **info._asdict(), "platforms": PLATFORMS, "jax": jax.__version__}
    with atomic.atomic_path(file) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for entry, content in ((_README, usage), (_INFO, json.dumps(record, indent=2) + "\n"), (_PROGRAM, program)):
            # A date of its own would make two files of the same model differ.
            archive.writestr(zipfile.ZipInfo(entry), bytes(content, "utf-8") if isinstance(content, str) else content)


@contextlib.contextmanager
def _without_source_lines() -> Iterator[None]:
    """Keeps the paths and lines of this computer's code, which differ between callers, out of programs."""
    limit = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)


def is_model_file(file: str | pathlib.Path) -> bool:
    """Whether a file looks like one that `write_model` wrote; nothing of it is run."""
    try:
        with zipfile.ZipFile(file) as archive:
            return {_PROGRAM, _INFO} <= set(archive.namelist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def read_model(file: str | pathlib.Path) -> ExportedModel:
    """Loads an exported model: a program that is checked for what it takes, returns and calls; nothing of it is run.

    Raises:
        UserError: it is no such file, damaged, not made for this platform, or does more than array operations.
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
            called = _called_functions(program)
    except Exception as error:  # zip archives, JSON, flatbuffers and MLIR tell damage by many types
        # A damaged archive can seek before its start (EINVAL); other errno values are real disk errors.
        if isinstance(error, ImportError) or getattr(error, "errno", None) not in (None, errno.EINVAL):
            raise
        raise errors.UserError(f"{str(file)!r} is no exported model as `reid export` writes it: {error}") from error
    if called - _CALLS:
        raise errors.UserError(
            f"the function in {str(file)!r} must consist of array operations, it calls {', '.join(sorted(called - _CALLS))}"
        )
    _check_program(file, program, info)
    return ExportedModel(program.call, info)


def _parse_info(record: Any) -> Info:
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise ValueError(f"{_INFO} in it must say the format {_FORMAT!r}")
    info = Info(*(record.get(name, Info._field_defaults.get(name)) for name in Info._fields))
    for name, value in info._asdict().items():
        kind = int if name in ("height", "width", "dim") else str
        # Not isinstance: true is an int.
        if type(value) is not kind or (kind is int and value < 1):
            raise ValueError(
                f"{name} in its {_INFO} must be {'an int, at least 1' if kind is int else 'a str'}, got {value!r}"
            )
    return info


def _called_functions(program: export.Exported) -> set[str]:
    """The functions that a program calls besides its own."""
    called = set()

    def note(operation: ir.Operation) -> ir.WalkResult:
        if operation.name.endswith("custom_call"):
            called.add(operation.attributes["call_target_name"].value)
        return ir.WalkResult.ADVANCE

    with ir.Context() as context:
        sdy.register_dialect(context)
        # Otherwise what is wrong with a damaged one is printed besides.
        context.attach_diagnostic_handler(lambda _: True)
        stablehlo.deserialize_portable_artifact(context, program.mlir_module_serialized).operation.walk(note)
    return called


def _check_program(file: str | pathlib.Path, program: export.Exported, info: Info) -> None:
    platform = export.default_export_platform()
    if platform not in program.platforms:
        raise errors.UserError(
            f"{str(file)!r} was exported for {', '.join(program.platforms)}, this machine computes on {platform}"
        )
    takes, gives = program.in_avals, program.out_avals
    # Positional arguments, one result.
    expected = ((0, 0), {}) if info.takes_cameras else ((0,), {})
    is_plain = program.in_tree == jax.tree.structure(expected) and program.out_tree == jax.tree.structure(0)
    takes_images = is_plain and takes[0].dtype == jnp.uint8 and takes[0].ndim == 4 and takes[0].shape[3] == 3
    takes_any_size = takes_images and all(map(export.is_symbolic_dim, takes[0].shape[:3]))
    if takes_any_size and info.takes_cameras:
        takes_any_size = takes[1].dtype == jnp.int32 and takes[1].shape == takes[0].shape[:1]
    gives_vectors = is_plain and gives[0].dtype == jnp.float32 and gives[0].shape == (*takes[0].shape[:1], info.dim)
    if not (takes_any_size and gives_vectors and program.nr_devices == 1):
        raise errors.UserError(
            f"the function in {str(file)!r} must take images [B, h, w, 3] uint8 of any size"
            f"{', cameras [B] int32' if info.takes_cameras else ''} and return [B, {info.dim}] "
            f"float32, it takes {', '.join(map(str, takes))} and returns {', '.join(map(str, gives))}"
        )
