from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax import memory, sharding


def sequential(table, embeddings, labels, momentum):
    """The update as its definition says, one sample after the other, in float64."""
    table = table.astype(np.float64)
    for embedding, label in zip(embeddings, labels):
        if label >= 0:
            mixed = momentum * table[label] + (1 - momentum) * embedding
            table[label] = mixed / np.linalg.norm(mixed)
    return table


@pytest.mark.parametrize("momentum", [0.5, 0.2, 0.0])
@pytest.mark.parametrize("num_labels", [1, 3, 40])
def test_equals_the_sequence(num_labels, momentum):
    rng = np.random.default_rng(num_labels)
    table = rng.normal(size=(40, 8)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    table[::3] = 0  # classes not seen yet
    embeddings = rng.normal(size=(16, 8)).astype(np.float32)
    labels = rng.integers(0, num_labels, 16)
    found = memory.update_lookup_table(table, embeddings, labels, momentum=momentum)
    np.testing.assert_allclose(found, sequential(table, embeddings, labels, momentum), atol=2e-6)


def test_by_hand():
    table = jnp.array([[1.0, 0.0], [0.0, 0.0]])
    # Row 0: (1, 0) + (0, 1) -> (1, 1) / sqrt 2; then with (0, 1) again. Row 1 was empty.
    found = memory.update_lookup_table(table, jnp.array([[0.0, 1.0], [3.0, 4.0], [0.0, 1.0]]), jnp.array([0, 1, 0]))
    second = np.array([np.sqrt(0.5), np.sqrt(0.5) + 1])
    np.testing.assert_allclose(found, [second / np.linalg.norm(second), [0.6, 0.8]], rtol=1e-6)


def test_the_order_of_equal_labels_counts():
    table, labels = jnp.array([[1.0, 0.0]]), jnp.array([0, 0])
    half = np.sqrt(0.5)
    for order, expected in (([0, 1], [half, half]), ([1, 0], [half + 1, half])):
        found = memory.update_lookup_table(table, jnp.eye(2)[jnp.array(order)], labels)
        np.testing.assert_allclose(found[0], expected / np.linalg.norm(expected), rtol=1e-6)


def test_negative_labels_and_other_rows_are_left_alone():
    table = np.eye(4, dtype=np.float32)
    found = memory.update_lookup_table(table, np.ones((2, 4), np.float32), np.array([-1, 2]))
    np.testing.assert_array_equal(np.asarray(found)[[0, 1, 3]], table[[0, 1, 3]])
    assert not np.allclose(found[2], table[2])


def test_identical_on_one_and_eight_devices(meshes):
    rng = np.random.default_rng(0)
    table, embeddings = rng.normal(size=(30, 16)).astype(np.float32), rng.normal(size=(64, 16)).astype(np.float32)
    labels = rng.integers(0, 7, 64)
    found = []
    for mesh in meshes:
        whole, split = sharding.replicated(mesh), sharding.batch_sharded(mesh)
        update = jax.jit(memory.update_lookup_table, in_shardings=(whole, split, split), out_shardings=whole)
        found.append(np.asarray(update(table, embeddings, labels)))
    np.testing.assert_array_equal(*found)


def test_zero_embeddings_give_no_nan():
    assert np.isfinite(memory.update_lookup_table(jnp.zeros((2, 3)), jnp.zeros((1, 3)), jnp.array([1]))).all()


def test_init():
    table = memory.init_lookup_table(5, 3, num_classes=4)
    assert table.rows.shape == (5, 3) and not table.rows.any() and int(table.num_classes) == 4
    assert int(memory.init_lookup_table(5, 3).num_classes) == 5


def test_errors():
    with pytest.raises(ValueError, match=r"table must"):
        memory.update_lookup_table(jnp.zeros((2, 3)), jnp.zeros((1, 4)), jnp.array([0]))
    with pytest.raises(ValueError, match=r"labels must"):
        memory.update_lookup_table(jnp.zeros((2, 3)), jnp.zeros((2, 3)), jnp.array([0]))


def test_classes_are_named_after_their_first_sample():
    assert memory.first_index_labels(np.array([7, -1, 7, 2, -1, 2])).tolist() == [0, 1, 0, 3, 4, 3]


def test_class_means_by_hand():
    rows = jnp.array([[1.0, 0.0], [9.0, 9.0], [0.0, 1.0], [3.0, 2.0]])
    means, counts = memory.class_means(rows, jnp.array([2, -1, 2, 0]))
    assert means.tolist() == [[3.0, 2.0], [0.0, 0.0], [0.5, 0.5], [0.0, 0.0]] and counts.tolist() == [1, 0, 2, 0]


def once_per_class(table, embeddings, labels, momentum, rule):
    """Class by class, in float64, as Cluster Contrast's code has it for the hardest sample."""
    before, table = table.astype(np.float64), table.astype(np.float64)
    for label in set(labels[labels >= 0].tolist()):
        members = embeddings[labels == label].astype(np.float64)
        update = members[np.argmin(members @ before[label])] if rule == "hardest" else members.mean(axis=0)
        mixed = momentum * before[label] + (1 - momentum) * update
        table[label] = mixed / np.linalg.norm(mixed)
    return table


@pytest.mark.parametrize("momentum", [0.5, 0.1, 0.0])
@pytest.mark.parametrize("rule", memory.MEMORY_RULES)
def test_class_vectors_equal_their_definition(rule, momentum, rng):
    table = rng.normal(size=(12, 8)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    table[3] = 0  # every sample is equally unlike it: the first counts
    embeddings = rng.normal(size=(40, 8)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    labels = rng.integers(-1, 11, 40)
    if rule == "each":
        expected = sequential(table, embeddings, labels, momentum)
    else:
        expected = once_per_class(table, embeddings, labels, momentum, rule)
    update = jax.jit(memory.update_class_vectors, static_argnames="rule")
    found = update(table, embeddings, labels, momentum=momentum, rule=rule)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_array_equal(np.asarray(found)[11], table[11])


def test_class_vectors_by_hand():
    table = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    embeddings = np.array([[0.8, 0.6], [0.0, 1.0], [0.6, 0.8], [1.0, 0.0]], np.float32)
    labels = np.array([0, 0, 0, -1])
    # Hardest: (0, 1), whose cosine is 0. Mean: (1.4, 2.4) / 3, so that (4.4, 2.4) / 6 is to be normalised.
    for rule, expected in (("hardest", [1.0, 1.0]), ("mean", [4.4, 2.4])):
        found = memory.update_class_vectors(table, embeddings, labels, momentum=0.5, rule=rule)
        np.testing.assert_allclose(found, [expected / np.linalg.norm(expected), [0.0, 1.0]], rtol=1e-6)


def test_all_rules_agree_on_one_sample_per_class_and_without_a_label_nothing_changes(rng):
    table, embeddings = (rng.normal(size=(5, 3)).astype(np.float32) for _ in range(2))
    for labels in (np.array([4, 0, -1, 2, -1]), np.full(5, -1)):
        each, hardest, mean = (
            np.asarray(memory.update_class_vectors(table, embeddings, labels, momentum=0.2, rule=rule))
            for rule in memory.MEMORY_RULES
        )
        np.testing.assert_allclose(hardest, each, rtol=1e-6)
        np.testing.assert_allclose(mean, each, rtol=1e-6)
        np.testing.assert_array_equal(each[[1, 3]], table[[1, 3]])
    np.testing.assert_array_equal(mean, table)


def test_identical_samples_of_a_class_move_it_as_one_would():
    table, embeddings = np.eye(3, dtype=np.float32), np.full((4, 3), 3**-0.5, np.float32)
    one = memory.update_class_vectors(table, embeddings[:1], np.array([1]), momentum=0.5, rule="each")
    for rule in ("hardest", "mean"):
        found = memory.update_class_vectors(table, embeddings, np.ones(4, int), momentum=0.5, rule=rule)
        np.testing.assert_allclose(found, one, rtol=1e-6)


@pytest.mark.parametrize("rule", ["hardest", "mean"])
def test_class_vectors_are_equal_on_one_and_eight_devices(rule, meshes, rng):
    table, embeddings = rng.normal(size=(30, 16)).astype(np.float32), rng.normal(size=(64, 16)).astype(np.float32)
    labels, found = rng.integers(-1, 7, 64), []
    for mesh in meshes:
        whole, split = sharding.replicated(mesh), sharding.batch_sharded(mesh)
        update = partial(memory.update_class_vectors, momentum=0.2, rule=rule)
        update = jax.jit(update, in_shardings=(whole, split, split), out_shardings=whole)
        found.append(np.asarray(update(table, embeddings, labels)))
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)


def test_class_vector_errors():
    with pytest.raises(ValueError, match="rule must be one of each, hardest, mean, got 'all'"):
        memory.update_class_vectors(jnp.eye(2), jnp.eye(2), jnp.arange(2), momentum=0.5, rule="all")
    for rule in memory.MEMORY_RULES:
        with pytest.raises(ValueError, match=r"labels must"):
            memory.update_class_vectors(jnp.eye(2), jnp.eye(2), jnp.arange(3), momentum=0.5, rule=rule)
