import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from reid_jax import augment

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 32, 16, 3), dtype=np.uint8)
FUNCTIONS = {
    "flip": lambda key, x: augment.flip(key, x),
    "pad_crop": lambda key, x: augment.pad_crop(key, x, padding=4),
    "random_sized_crop": lambda key, x: augment.random_sized_crop(key, x),
    "rotate_shift": lambda key, x: augment.rotate_shift(key, x, max_shift=5),
    "erase": lambda key, x: augment.erase(key, x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_pure_functions_of_the_key_that_keep_shape_and_dtype(name):
    images = IMAGES.astype(np.float32) if name == "erase" else IMAGES
    first, again = FUNCTIONS[name](KEY, images), jax.jit(FUNCTIONS[name])(KEY, images)
    assert first.shape == images.shape and first.dtype == images.dtype
    assert np.abs(np.asarray(first, np.float32) - np.asarray(again, np.float32)).max() <= 1  # a level of rounding
    assert (np.asarray(first) != np.asarray(FUNCTIONS[name](jax.random.key(1), images))).any()
    changed = [(np.asarray(first[i]) != images[i]).any() for i in range(len(images))]
    assert any(changed)


def test_normalize_gives_imagenet_statistics():
    mean = np.round(np.array(augment.IMAGENET_MEAN) * 255)
    images = np.broadcast_to(mean.astype(np.uint8), (1, 2, 2, 3))
    assert np.abs(augment.normalize(images)).max() < 0.5 / 255 / 0.224
    by_hand = (np.float32(200) / 255 - 0.485) / 0.229
    assert augment.normalize(np.full((1, 1, 1, 3), 200, np.uint8))[0, 0, 0, 0] == pytest.approx(by_hand, rel=1e-5)


def test_flip_mirrors_about_half():
    mirrored = np.asarray(augment.flip(KEY, np.broadcast_to(IMAGES[:1], (200, *IMAGES.shape[1:]))))
    flipped = (mirrored == IMAGES[0][:, ::-1]).all((1, 2, 3))
    assert (flipped | (mirrored == IMAGES[0]).all((1, 2, 3))).all() and 70 < flipped.sum() < 130
    assert (augment.flip(KEY, IMAGES, probability=1.0) == IMAGES[:, :, ::-1]).all()


def test_pad_crop_is_a_window_of_the_padded_image():
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    for image, crop in zip(padded, np.asarray(augment.pad_crop(KEY, IMAGES, padding=2))):
        windows = [(image[y : y + 32, x : x + 16] == crop).all() for y in range(5) for x in range(5)]
        assert sum(windows) == 1


def test_sized_crop_equals_pillow_where_the_crop_is_known():
    # An area of exactly 1/2 and a height / width of 4 in a 32 x 16 image: 32 x 8, at any of 9 places.
    smooth = np.asarray(Image.fromarray(IMAGES[0]).resize((16, 32), Image.Resampling.BILINEAR))
    cropped = np.asarray(augment.random_sized_crop(KEY, smooth[None], area=(0.5, 0.5), aspect=(4.0, 4.0)))[0]
    places = [
        np.asarray(Image.fromarray(smooth[:, x : x + 8]).resize((16, 32), Image.Resampling.BILINEAR)) for x in range(9)
    ]
    assert min(np.abs(place.astype(int) - cropped).max() for place in places) <= 1


def test_sized_crop_keeps_the_image_where_no_crop_fits():
    assert (augment.random_sized_crop(KEY, IMAGES, area=(1.0, 1.0), aspect=(4.0, 4.0)) == IMAGES).all()


def test_rotation_and_shift_are_scipys_affine_transform():
    # The draws are read off a picture of coordinates: far from the edge it holds where every pixel comes from.
    height, width = 96, 80
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    noise = np.random.default_rng(0).uniform(0, 255, (height, width))
    pictures = np.broadcast_to(np.stack([y, x, noise], axis=-1).astype(np.float32), (40, height, width, 3))
    moved = np.asarray(augment.rotate_shift(KEY, pictures, max_degrees=20.0, max_shift=9.0), np.float64)
    middle = np.s_[height // 2, width // 2]
    angles, shifts = [], []
    for picture in moved:
        from_y, from_x = picture[..., 0], picture[..., 1]
        to_y, to_x = (np.array([np.diff(plane, axis=axis)[middle] for plane in (from_y, from_x)]) for axis in (0, 1))
        matrix = np.stack([to_y, to_x], axis=1)
        offset = np.array([from_y[middle], from_x[middle]]) - matrix @ np.array([height // 2, width // 2])
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(2), atol=1e-4)
        expected = ndimage.affine_transform(noise, matrix, offset, order=1, mode="nearest")
        np.testing.assert_allclose(picture[..., 2], expected, atol=0.2)
        angles.append(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
        centre = np.array([(height - 1) / 2, (width - 1) / 2])
        shifts.append(np.linalg.solve(matrix, matrix @ centre + offset - centre))
    # 40 draws of each come near their bounds and pass none; the two axes' shifts are drawn apart.
    for values, bound in ((angles, 20), (np.array(shifts)[:, 0], 9), (np.array(shifts)[:, 1], 9)):
        assert -bound <= np.min(values) < -0.8 * bound and 0.8 * bound < np.max(values) <= bound
    assert abs(np.corrcoef(np.transpose(shifts))[0, 1]) < 0.5


def test_rotation_of_zero_degrees_and_pixels_changes_nothing():
    moved = np.asarray(augment.rotate_shift(KEY, IMAGES, max_degrees=0.0, max_shift=0.0))
    assert (moved == IMAGES).all() and moved.dtype == IMAGES.dtype


def test_erase_makes_one_rectangle_the_mean_pixel():
    ones = jnp.ones((300, 32, 16, 3))
    erased = np.asarray(augment.erase(KEY, ones)) == 0
    touched = erased.any((1, 2, 3))
    assert 110 < touched.sum() < 190
    for mask in erased[touched]:
        rows, columns = mask[..., 0].any(1), mask[..., 0].any(0)
        assert (mask == (rows[:, None] & columns)[..., None]).all()  # a full rectangle in all channels
        assert (
            np.diff(np.flatnonzero(rows)).max(initial=1) == 1 and np.diff(np.flatnonzero(columns)).max(initial=1) == 1
        )
        assert 0.01 < mask[..., 0].mean() < 0.45
    assert not (np.asarray(augment.erase(KEY, ones, probability=0.0)) == 0).any()


def test_augment_without_options_only_normalises_and_draws_apart():
    plain = augment.augment(KEY, IMAGES, flip_probability=0.0)
    np.testing.assert_array_equal(plain, augment.normalize(IMAGES))
    hct = augment.augment(KEY, IMAGES, padding=5, erasing_probability=0.5)
    assert hct.dtype == jnp.float32 and np.isfinite(hct).all()
    alike = np.broadcast_to(IMAGES[:1], IMAGES.shape)
    different = np.asarray(augment.augment(KEY, alike, padding=5))
    assert len({image.tobytes() for image in different}) > 8
