import jax.numpy as jnp
import numpy as np
import pytest

from reid_jax.cluster_dynamics import unit_graphs
from reid_jax.cluster_dynamics.choices import Options

# Units 0 and 1 near each other, 2 opposite to 0.
MEANS = jnp.array([[9.0, 9.0], [2.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
UNITS = jnp.array([1, 2, 3])


def test_similarities_are_cosines_and_for_average_linkage_products():
    np.testing.assert_allclose(
        unit_graphs.unit_similarities(MEANS, UNITS, Options()), [[1, 0.6, -1], [0.6, 1, -0.6], [-1, -0.6, 1]], atol=1e-6
    )
    products = unit_graphs.unit_similarities(MEANS, UNITS, Options(criterion="average_linkage"))
    np.testing.assert_allclose(products[0], [4, 1.2, -2], atol=1e-6)


def test_connections_must_be_similar_enough_and_valid():
    cosines = unit_graphs.unit_similarities(MEANS, UNITS, Options())
    first_two = [[False, True, False], [True, False, False], [False, False, False]]
    assert unit_graphs.connections(cosines, None, 0.5, Options()).tolist() == first_two
    assert not unit_graphs.connections(cosines, None, 0.7, Options()).any()
    assert not unit_graphs.connections(cosines, jnp.array([True, False, True]), 0.5, Options()).any()


@pytest.mark.parametrize("weights,expected", [("gaussian", np.exp(-0.8)), ("cosine", 0.6)])
def test_shares_of_two_connected_units_by_hand(weights, expected):
    options = Options(weights=weights, alpha_merge=0.5)
    cosines = unit_graphs.unit_similarities(MEANS, UNITS, options)
    connected = unit_graphs.connections(cosines, None, 0.5, options)
    affinity = unit_graphs.affinity_of(connected, cosines, options)
    np.testing.assert_allclose(affinity, expected * np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]]), rtol=1e-6)
    passed_on = 0.5 * expected / (1 + expected)  # degrees are 1 + the affinity
    shares = unit_graphs.propagate_from_first(connected, cosines, options)
    np.testing.assert_allclose(shares, np.array([1, passed_on, 0]) / (1 - passed_on**2), rtol=1e-5)
