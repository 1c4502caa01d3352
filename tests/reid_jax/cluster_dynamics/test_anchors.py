import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.cluster_dynamics import anchors
from reid_jax.cluster_dynamics.choices import Options

# Two groups of directions, 0-2 and 3-4, of which 1 and 3 have the highest densities; 5 only fills the graph.
ANGLES = np.deg2rad([-20, 0, 20, 90, 110, 45])
COSINES = jnp.asarray(np.cos(ANGLES[:, None] - ANGLES), jnp.float32)
VALID = jnp.arange(6) < 5
AFFINITY = jnp.where((COSINES > 0.8) & VALID[:, None] & VALID & ~jnp.eye(6, dtype=bool), COSINES, 0)


def chosen(kind, key=None):
    options = Options(anchors=kind, max_anchors=4)
    found, is_anchor = anchors.choose_anchors(COSINES, AFFINITY, VALID, key, options)
    return np.asarray(found)[np.asarray(is_anchor)].tolist()


def test_one_peak_for_every_group():
    assert chosen("density_peaks") == [1, 3]


def test_others_are_as_many_as_there_are_peaks():
    assert chosen("farthest_points") == [1, 4]
    drawn = [chosen("random", jax.random.key(seed)) for seed in range(20)]
    assert all(len(set(pair)) == 2 for pair in drawn)
    assert set(np.ravel(drawn)) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("is_anchor,expected", [([True, True, True], 1), ([True, False, True], 2)])
def test_best_anchor_is_an_anchor(is_anchor, expected):
    assert int(anchors.best_anchor(jnp.array([0.1, 0.9, 0.4]), jnp.array(is_anchor))) == expected
