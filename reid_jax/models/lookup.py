"""A re-ID model with the embedding head whose results a lookup table stores, for BUC and SSL."""

import jax
from flax import linen as nn

from reid_jax import errors
from reid_jax.embeddings import Features
from reid_jax.models import pooling
from reid_jax.models.heads import EmbeddingHead
from reid_jax.models.reid import ReidModel


class LookupModel(ReidModel):
    """Images to (`Features` of every image, head's embeddings of every sample).

    Its variables are those of a `ReidModel` of the same fields and `head` besides, so that either can be applied
    to them: clustering and evaluation use the pooled feature, never the head.

    Attributes:
        head_dim: D' of the head's embeddings; 0 = the backbone's number of channels.
        dropout: of the head, 0 up to but not 1.
        num_frames: T, images per sample, next to each other: 1, or the frames drawn from a tracklet.
    """

    head_dim: int = 0
    dropout: float = 0.5
    num_frames: int = 1

    def __post_init__(self):
        """Checks the fields.

        Raises:
            UserError: a field breaks its rule.
        """
        if self.head_dim < 0:
            raise errors.UserError(f"head.dim must be at least 0 (0 = the backbone's), got {self.head_dim}")
        if not 0 <= self.dropout < 1:
            raise errors.UserError(f"head.dropout must be at least 0 and less than 1, got {self.dropout}")
        if self.bn_group_size % self.num_frames:
            raise errors.UserError(
                f"bn_group_size must be a multiple of the {self.num_frames} frames of a sample, got "
                f"{self.bn_group_size}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[Features, jax.Array]:
        """Embeds a batch.

        Args:
            images: [B * T, H, W, 3] float, normalised.
            train: see `ReidModel`; dropout is on, with the PRNG "dropout"; static.

        Returns:
            (Features of the B * T images, [B, D'] float32 of the samples).
        """
        features = super().__call__(images, train=train)
        # The groups are of images; the head sees samples.
        head = EmbeddingHead(self.head_dim, self.dropout, self.bn_group_size // self.num_frames, name="head")
        return features, head(pooling.frame_mean(features.embeddings, self.num_frames), train=train)
