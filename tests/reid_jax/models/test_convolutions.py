import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from reid_jax import sharding
from reid_jax.models import convolutions

KINDS = {
    "shifted": convolutions.shifted_depthwise,
    "grouped": convolutions.grouped_depthwise,
    "by platform": convolutions.depthwise,
}


def by_hand(x, kernel, stride):
    """Depthwise convolution as its definition says: zeros around the map, the kernel laid on every stride-th place."""
    _, height, width, _ = x.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = range(0, height, stride), range(0, width, stride)
    places = [[(padded[:, i : i + 3, j : j + 3] * kernel[:, :, 0]).sum((1, 2)) for j in columns] for i in rows]
    return np.array(places).transpose(2, 0, 1, 3)


@pytest.fixture(params=[(1, (6, 5)), (2, (6, 5)), (2, (5, 6)), (2, (1, 2)), (1, (1, 1))], ids=str)
def case(request, rng):
    """(x, kernel, stride)"""
    stride, size = request.param
    return rng.normal(size=(3, *size, 4)).astype(np.float32), rng.normal(size=(3, 3, 1, 4)).astype(np.float32), stride


@pytest.mark.parametrize("kind", KINDS)
def test_depthwise_equals_its_definition(case, kind):
    x, kernel, stride = case
    np.testing.assert_allclose(KINDS[kind](x, kernel, stride), by_hand(x, kernel, stride), atol=1e-5)


@pytest.mark.parametrize("kind", ["shifted", "by platform"])
def test_results_and_gradients_equal_the_grouped_convolutions(case, rng, kind):
    x, kernel, stride = case
    expected = convolutions.grouped_depthwise(x, kernel, stride)
    gradient = rng.normal(size=expected.shape).astype(np.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def both(convolve, x, kernel):
        result, transpose = jax.vjp(lambda x, kernel: convolve(x, kernel, stride), x, kernel)
        return result, *transpose(gradient)

    ours, theirs = (both(convolve, x, kernel) for convolve in (KINDS[kind], convolutions.grouped_depthwise))
    for one, other in zip(ours, theirs):
        assert one.shape == other.shape and one.dtype == other.dtype
        np.testing.assert_allclose(one, other, atol=1e-5)


def lowered(function, x, kernel, platform):
    return jax.jit(function, static_argnums=2).trace(x, kernel, 2).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(("platform", "is_grouped"), [("cpu", False), ("cuda", True), ("tpu", True)])
def test_the_platform_decides_when_the_program_is_lowered(platform, is_grouped):
    x, kernel = jnp.zeros((2, 8, 4, 6)), jnp.zeros((3, 3, 1, 6))

    def gradients(x, kernel, stride):
        return jax.grad(lambda x, kernel: jnp.sum(convolutions.depthwise(x, kernel, stride) ** 2), (0, 1))(x, kernel)

    for function in (convolutions.depthwise, gradients):
        assert ("stablehlo.convolution" in lowered(function, x, kernel, platform)) == is_grouped


def test_an_exported_program_computes_the_same_and_is_small(rng):
    x = rng.normal(size=(3, 8, 6, 5)).astype(np.float32)
    pointwise = {"params": {"kernel": rng.normal(size=(1, 1, 5, 4)).astype(np.float32)}}
    depthwise = {"params": {"kernel": rng.normal(size=(3, 3, 1, 4)).astype(np.float32)}}

    def function(x):
        x = convolutions.PointwiseConv(4).apply(pointwise, x)
        return convolutions.DepthwiseConv(stride=2).apply(depthwise, x)

    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *x.shape[1:]), jnp.float32)
    data = export.export(jax.jit(function), platforms=("cpu", "cuda", "rocm", "tpu"))(images).serialize()
    assert len(data) < 10_000
    expected = by_hand(x @ pointwise["params"]["kernel"][0, 0], depthwise["params"]["kernel"], 2)
    np.testing.assert_allclose(export.deserialize(data).call(x), expected, atol=1e-5)


def test_single_operations_hold_no_choice():
    model = convolutions.DepthwiseConv(stride=2)
    x = jnp.ones((1, 4, 4, 3))
    variables = model.init(jax.random.key(0), x)
    assert variables["params"]["kernel"].shape == (3, 3, 1, 3)

    def operations(model, x):
        return set(re.findall(r" = ([a-z_]+)\[", str(jax.make_jaxpr(functools.partial(model.apply, variables))(x))))

    assert "platform_index" in operations(model, x)
    with convolutions.single_operations():
        assert operations(model, x) == {"conv_general_dilated"}
        single = model.apply(variables, x)
    np.testing.assert_allclose(single, model.apply(variables, x), atol=1e-6)


def test_bfloat16_sums_are_float32(rng):
    x = jnp.asarray(1 + rng.normal(size=(2, 8, 8, 16)), jnp.bfloat16)
    model = convolutions.DepthwiseConv(dtype=jnp.bfloat16)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 1, 16)), jnp.bfloat16)
    result = model.apply({"params": {"kernel": kernel.astype(jnp.float32)}}, x)
    assert result.dtype == jnp.bfloat16
    exact = by_hand(np.asarray(x, np.float32), np.asarray(kernel, np.float32), 1)
    # One rounding, to 8 bits.
    assert (np.abs(np.asarray(result, np.float32) - exact) <= 2.0**-8 * np.abs(exact) + 1e-6).all()


def test_a_batch_over_devices_is_one_batch(meshes, rng):
    x = rng.normal(size=(16, 6, 4, 8)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 1, 8)).astype(np.float32)

    def loss(kernel, x):
        return jnp.sum(convolutions.depthwise(x, kernel, 2) ** 2)

    one, eight = (
        jax.jit(jax.grad(loss))(sharding.put_replicated(mesh, kernel), sharding.put_batch(mesh, x)) for mesh in meshes
    )
    np.testing.assert_allclose(one, eight, rtol=1e-5, atol=1e-4)


def test_a_pointwise_convolution_is_a_1x1_convolution(rng):
    x = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    kernel = rng.normal(size=(1, 1, 5, 6)).astype(np.float32)
    models = convolutions.PointwiseConv(6), convolutions.conv(6, 1, dtype=jnp.float32)
    assert models[0].init(jax.random.key(0), x)["params"]["kernel"].shape == kernel.shape

    def both(model):
        return jax.value_and_grad(lambda kernel: jnp.sum(model.apply({"params": {"kernel": kernel}}, x) ** 2))(kernel)

    for ours, expected in zip(*map(both, models)):
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
    assert convolutions.PointwiseConv(6, jnp.bfloat16).apply({"params": {"kernel": kernel}}, x).dtype == jnp.bfloat16


def test_convolutions_pad_both_sides_alike():
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[0, 0] = 1
    x = np.arange(1, 17, dtype=np.float32).reshape(1, 4, 4, 1)
    model = convolutions.conv(1, 3, stride=2, dtype=jnp.float32)
    # The kernel's corner looks one place up and to the left: at padding, but for one place.
    np.testing.assert_array_equal(model.apply({"params": {"kernel": kernel}}, x)[0, ..., 0], [[0, 0], [0, 6]])


def test_max_pool_pads_both_sides_alike():
    x = np.arange(1, 17, dtype=np.float32).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(convolutions.max_pool(x)[0, ..., 0], [[6, 8], [14, 16]])
