"""What comes after the pooled feature: the BN neck and the classifier."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from reid_jax.models.batch_norm import BatchNorm


class BNNeck(BatchNorm):
    """Batch norm of the pooled feature, its bias fixed at 0 (Luo et al. 2019, section 3.5).

    Without a bias the embeddings stay centred, so that cosine similarities spread around 0.
    """

    use_bias: bool = False


class Classifier(nn.Module):
    """One logit per class, linear in the embedding.

    Attributes:
        num_classes: K.
        use_bias: whether there is a bias, 0 at the start.
        init_std: standard deviation of the normal initial weights.
    """

    num_classes: int
    use_bias: bool = False
    init_std: float = 0.001

    @nn.compact
    def __call__(self, embeddings: jax.Array) -> jax.Array:
        """Maps embeddings [B, D] float to logits [B, K] float32."""
        shape = (embeddings.shape[-1], self.num_classes)
        kernel = self.param("kernel", nn.initializers.normal(self.init_std), shape, jnp.float32)
        logits = embeddings.astype(jnp.float32) @ kernel
        if self.use_bias:
            logits += self.param("bias", nn.initializers.zeros, (self.num_classes,), jnp.float32)
        return logits
