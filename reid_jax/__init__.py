"""Unsupervised person re-identification in JAX: pure functions from images to pseudo labels and back.

    model = reid_jax.load_model("mobilenet_v2")            # or a run directory, a model folder, an exported file
    gallery = model.embed(images)                          # uint8 [N, H, W, 3] -> float32 [N, D]
    distances, indices = reid_jax.search(model.embed(queries), gallery, top=10)
    people = reid_jax.group(gallery)                       # [N], who is who

Everything is imported when it is first used: `import reid_jax; reid_jax.losses.repelled` works, and takes no time before.
"""

from typing import TYPE_CHECKING

from reid_jax import lazy

if TYPE_CHECKING:
    from reid_jax.data.samples import Samples
    from reid_jax.inference.trained_model import load_model
    from reid_jax.retrieval.gallery_search import search
    from reid_jax.retrieval.groups import group

__version__ = "0.1.0"
__all__ = ["Samples", "__version__", "group", "load_model", "search"]

__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        "Samples": "reid_jax.data.samples",
        "group": "reid_jax.retrieval.groups",
        "load_model": "reid_jax.inference.trained_model",
        "search": "reid_jax.retrieval.gallery_search",
    },
)
