"""A re-ID model with a classifier over identities on top, for training with cross-entropy."""

import jax
from flax import linen as nn

from reid_jax.embeddings import Features
from reid_jax.models.heads import Classifier
from reid_jax.models.reid import ReidModel


class IdClassifier(ReidModel):
    """Images to (`Features`, logits).

    Its variables are those of a `ReidModel` of the same fields and `params/classifier` besides, so that either
    can be applied to them.

    Attributes:
        num_classes: K, identities.
        dropout: share of the embedding's components that the classifier does not see in training, the others scaled
            up.
    """

    num_classes: int = 1
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[Features, jax.Array]:
        """Embeds and classifies a batch.

        Args:
            images: [B, H, W, 3] float, normalised.
            train: see `ReidModel`; with dropout needs the PRNG "dropout". Static.

        Returns:
            (Features, logits [B, K] float32).
        """
        features = super().__call__(images, train=train)
        seen = nn.Dropout(self.dropout, deterministic=not train)(features.embeddings)
        return features, Classifier(self.num_classes, name="classifier")(seen)
