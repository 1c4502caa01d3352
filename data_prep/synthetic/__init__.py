"""Made-up pedestrians, rendered into Market-1501's folders: something to train on without any download."""

from data_prep.synthetic.dataset import write_synthetic

__all__ = ("write_synthetic",)
