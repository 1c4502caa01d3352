"""What comes after the pooled feature: the BN neck, the classifier and the embedding head."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from reid_jax.embeddings import unit_vectors
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


class EmbeddingHead(nn.Module):
    """The vectors that a lookup table is made of: linear, batch norm, L2 normalisation, dropout (BUC, SSL).

    Attributes:
        dim: D' of the result; 0 = as many as come in.
        dropout: share of the components set to 0 in training, the others scaled up; the result is of norm 1 only
            without it. The order is the reference code's.
        bn_group_size: samples per batch-norm group; 0 = the whole batch.
    """

    dim: int = 0
    dropout: float = 0.5
    bn_group_size: int = 0

    @nn.compact
    def __call__(self, embeddings: jax.Array, *, train: bool) -> jax.Array:
        """Maps embeddings [B, D] float to [B, D'] float32; training needs the PRNG "dropout"."""
        dim = self.dim or embeddings.shape[-1]
        # torch: kaiming_normal_(mode="fan_out"), whose gain is that of a ReLU.
        kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        x = nn.Dense(dim, kernel_init=kernel_init, name="linear")(embeddings.astype(jnp.float32))
        x = BatchNorm(group_size=self.bn_group_size, name="bn")(x, train=train)
        return nn.Dropout(self.dropout, deterministic=not train)(unit_vectors(x))
