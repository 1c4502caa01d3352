import jax.numpy as jnp
import numpy as np

from reid_jax.cluster_dynamics import label_names


def test_renamed_by_hand():
    labels = jnp.array([9, 3, 9, 3, 0], jnp.int32)  # names up to 2 N - 1
    assert label_names.relabel_by_lowest_item(labels).tolist() == [0, 1, 0, 1, 4]


def test_united_by_hand():
    labels = jnp.array([0, 1, 1, 3, 4, 5], jnp.int32)
    # 5 with 3 and 3 with 1, transitively; 4 with itself.
    united = label_names.merge_labels(labels, jnp.array([5, 3, 4]), jnp.array([3, 1, 4]))
    assert united.tolist() == [0, 1, 1, 1, 4, 1]


def test_a_long_chain_is_united_in_any_order():
    order = np.random.default_rng(0).permutation(49)
    labels = jnp.arange(50, dtype=jnp.int32)
    assert label_names.merge_labels(labels, jnp.asarray(order), jnp.asarray(order + 1)).tolist() == [0] * 50
