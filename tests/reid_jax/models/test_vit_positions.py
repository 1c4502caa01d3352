"""Against timm's and DINOv2's own functions: the golden values are made by tests/support/data/make_vit_golden.py."""

import importlib.util

import numpy as np
import pytest
from tiny_data import DATA

from reid_jax import errors
from reid_jax.models import vit_positions

_spec = importlib.util.spec_from_file_location("make_vit_golden", DATA / "make_vit_golden.py")
golden_script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden_script)

GIVEN, *GRIDS = golden_script.RESIZED
OF_LIBRARY = {"timm": "antialiased", "dinov2": "offset"}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("library", OF_LIBRARY)
def test_resizing_equals_the_libraries(library, grid):
    published = golden_script.random_array("pos_embed", (1, 1 + GIVEN[0] * GIVEN[1], 4))
    _, positions = vit_positions.split(published, has_class=True, grid=grid)
    with np.load(DATA / "vit_golden.npz") as golden:
        expected = golden[f"{library}/{grid[0]}x{grid[1]}"]
    resized = vit_positions.resize(positions, grid, resizing=OF_LIBRARY[library])
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("resizing", vit_positions.RESIZINGS)
def test_a_constant_stays_and_the_same_grid_is_untouched(resizing):
    constant = np.full((3, 5, 2), 7.0, np.float32)
    np.testing.assert_allclose(vit_positions.resize(constant, (8, 2), resizing=resizing), np.full((8, 2, 2), 7.0))
    positions = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float16)
    assert vit_positions.resize(positions, (3, 5), resizing=resizing) is positions


def test_split_reads_squares_row_by_row():
    positions = np.arange(10, dtype=np.float32)[None, :, None]
    of_class, of_patches = vit_positions.split(positions, has_class=True, grid=(4, 2))
    np.testing.assert_array_equal(of_class, [0])
    np.testing.assert_array_equal(of_patches[..., 0], [[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    # CLIP's has two axes.
    np.testing.assert_array_equal(vit_positions.split(positions[0], has_class=True, grid=(4, 2))[1], of_patches)


def test_split_without_the_class_token():
    positions = np.arange(1, 10, dtype=np.float32)[None, :, None]
    of_class, of_patches = vit_positions.split(positions, has_class=False, grid=(4, 2))
    np.testing.assert_array_equal(of_class, [0])
    np.testing.assert_array_equal(of_patches[..., 0], [[1, 2, 3], [4, 5, 6], [7, 8, 9]])


def test_split_takes_the_models_own_grid_where_no_square_fits():
    positions = np.arange(9, dtype=np.float32)[:, None]
    _, of_patches = vit_positions.split(positions, has_class=True, grid=(4, 2))
    np.testing.assert_array_equal(of_patches[..., 0], [[1, 2], [3, 4], [5, 6], [7, 8]])
    with pytest.raises(errors.UserError, match="square number of patches, or the 3 x 2 of the model, got 8"):
        vit_positions.split(positions, has_class=True, grid=(3, 2))


@pytest.mark.parametrize("shape", [(), (5,), (2, 5, 3), (1, 1, 3), (0, 3)])
def test_split_checks_the_shape(shape):
    with pytest.raises(errors.UserError, match=r"must be \[1, N, C\] or \[N, C\], got shape \["):
        vit_positions.split(np.zeros(shape), has_class=True, grid=(2, 2))
