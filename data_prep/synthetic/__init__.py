"""Made-up pedestrians, rendered into public data sets' folders: something to train on without any download."""

from reid_jax.data_prep.synthetic.dataset import write_synthetic
from reid_jax.data_prep.synthetic.video import write_synthetic_video

__all__ = ("write_synthetic", "write_synthetic_video")
