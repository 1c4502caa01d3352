"""Image augmentation on the device: pure functions (key, images) -> images, one random draw per image.

Shapes: B batch, H height, W width. Geometric functions take and return raw pixel values 0..255 and keep the
dtype; `erase` works on normalised images, where 0 is the mean pixel. `augment` chains them in the order the
papers' code does.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Of the ImageNet training set in RGB, on the scale 0..1, as torchvision gives them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_ATTEMPTS = 10


def normalize(images: jax.Array) -> jax.Array:
    """Maps pixels to float32 with ImageNet's mean 0 and standard deviation 1 per channel.

    Args:
        images: [B, H, W, 3], 0..255.

    Returns:
        [B, H, W, 3] float32.
    """
    mean, std = np.float32(IMAGENET_MEAN) * 255, np.float32(IMAGENET_STD) * 255
    return (images.astype(jnp.float32) - mean) / std


def flip(key: jax.Array, images: jax.Array, *, probability: float = 0.5) -> jax.Array:
    """Mirrors each image left to right with a probability.

    Args:
        key: jax PRNG key.
        images: [B, H, W, C].
        probability: 0..1.

    Returns:
        [B, H, W, C], dtype kept.
    """
    chosen = jax.random.bernoulli(key, probability, (images.shape[0], 1, 1, 1))
    return jnp.where(chosen, images[:, :, ::-1], images)


def pad_crop(key: jax.Array, images: jax.Array, *, padding: int) -> jax.Array:
    """Pads with black and crops the original size at a random place.

    Args:
        key: jax PRNG key.
        images: [B, H, W, C].
        padding: pixels added on each side; static.

    Returns:
        [B, H, W, C], dtype kept.
    """
    batch, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    corners = jax.random.randint(key, (batch, 2), 0, 2 * padding + 1)

    def crop(image, corner):
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, channels))

    return jax.vmap(crop)(padded, corners)


def random_sized_crop(
    key: jax.Array,
    images: jax.Array,
    *,
    area: tuple[float, float] = (0.64, 1.0),
    aspect: tuple[float, float] = (2.0, 3.0),
) -> jax.Array:
    """Crops a random part of each image and resizes it to the original size, bilinearly.

    Ten crops are drawn and the first that lies inside the image is used, the whole image if none does. (The
    "random sized rect crop" of the code that BUC and SSL build on.)

    Args:
        key: jax PRNG key.
        images: [B, H, W, C].
        area: least and greatest part of the image's area, 0..1.
        aspect: least and greatest height / width of the crop in pixels.

    Returns:
        [B, H, W, C], dtype kept.
    """
    batch, height, width, _ = images.shape
    area_key, aspect_key, place_key = jax.random.split(key, 3)
    areas = height * width * jax.random.uniform(area_key, (batch, _ATTEMPTS), minval=area[0], maxval=area[1])
    aspects = jax.random.uniform(aspect_key, (batch, _ATTEMPTS), minval=aspect[0], maxval=aspect[1])
    heights, widths = jnp.round(jnp.sqrt(areas * aspects)), jnp.round(jnp.sqrt(areas / aspects))
    fits = (heights <= height) & (widths <= width)
    crop_height = _first_fitting(heights, fits, height)
    crop_width = _first_fitting(widths, fits, width)
    top, left = jnp.floor(
        jax.random.uniform(place_key, (2, batch)) * (jnp.stack([height - crop_height, width - crop_width]) + 1)
    )
    rows = _bilinear_weights(top, crop_height, height)
    columns = _bilinear_weights(left, crop_width, width)
    resized = jnp.einsum("bij,bjwc->biwc", rows, images.astype(jnp.float32))
    resized = jnp.einsum("bkw,biwc->bikc", columns, resized)
    return _cast_pixels(resized, images.dtype)


def rotate_shift(key: jax.Array, images: jax.Array, *, max_degrees: float = 20.0, max_shift: float = 45.0) -> jax.Array:
    """Rotates about the centre and shifts by random amounts; pixels outside repeat the nearest edge (PUL).

    Args:
        key: jax PRNG key.
        images: [B, H, W, C].
        max_degrees: greatest rotation either way.
        max_shift: greatest shift either way, in pixels, along each axis.

    Returns:
        [B, H, W, C] with bilinear interpolation, dtype kept.
    """
    batch, height, width, _ = images.shape
    angle_key, shift_key = jax.random.split(key)
    limit = np.deg2rad(max_degrees)
    angles = jax.random.uniform(angle_key, (batch, 1, 1), minval=-limit, maxval=limit)
    shifts = jax.random.uniform(shift_key, (2, batch, 1, 1), minval=-max_shift, maxval=max_shift)
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    y, x = jnp.meshgrid(jnp.arange(height) - centre_y, jnp.arange(width) - centre_x, indexing="ij")
    y, x = y + shifts[0], x + shifts[1]
    source_y = jnp.cos(angles) * y - jnp.sin(angles) * x + centre_y
    source_x = jnp.sin(angles) * y + jnp.cos(angles) * x + centre_x

    def sample(image, rows, columns):
        def channel(plane):
            return jax.scipy.ndimage.map_coordinates(plane, [rows, columns], order=1, mode="nearest")

        return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)

    return _cast_pixels(jax.vmap(sample)(images.astype(jnp.float32), source_y, source_x), images.dtype)


def erase(
    key: jax.Array,
    images: jax.Array,
    *,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    min_aspect: float = 0.3,
) -> jax.Array:
    """Random erasing: replaces a random rectangle by the mean pixel (Zhong et al. 2017).

    Args:
        key: jax PRNG key.
        images: [B, H, W, C] float, normalised, so that 0 is the mean pixel.
        probability: 0..1, of erasing anything in an image.
        area: least and greatest part of the image's area.
        min_aspect: the rectangle's height / width lies in [min_aspect, 1 / min_aspect].

    Returns:
        [B, H, W, C], dtype kept.
    """
    batch, height, width, _ = images.shape
    chosen_key, area_key, aspect_key, place_key = jax.random.split(key, 4)
    areas = height * width * jax.random.uniform(area_key, (batch, _ATTEMPTS), minval=area[0], maxval=area[1])
    aspects = jax.random.uniform(aspect_key, (batch, _ATTEMPTS), minval=min_aspect, maxval=1 / min_aspect)
    heights, widths = jnp.round(jnp.sqrt(areas * aspects)), jnp.round(jnp.sqrt(areas / aspects))
    fits = (heights < height) & (widths < width)
    chosen = jax.random.bernoulli(chosen_key, probability, (batch,))
    # Where no rectangle fits, one without extent erases nothing.
    tall = jnp.where(chosen, _first_fitting(heights, fits, 0), 0)
    wide = _first_fitting(widths, fits, 0)
    top, left = jnp.floor(jax.random.uniform(place_key, (2, batch)) * (jnp.stack([height - tall, width - wide]) + 1))
    y, x = jnp.arange(height), jnp.arange(width)
    inside_y = (y >= top[:, None]) & (y < (top + tall)[:, None])
    inside_x = (x >= left[:, None]) & (x < (left + wide)[:, None])
    inside = inside_y[:, :, None, None] & inside_x[:, None, :, None]
    return jnp.where(inside, 0, images)


def augment(
    key: jax.Array,
    images: jax.Array,
    *,
    flip_probability: float = 0.5,
    padding: int = 0,
    sized_crop: bool = False,
    sized_crop_area: tuple[float, float] = (0.64, 1.0),
    sized_crop_aspect: tuple[float, float] = (2.0, 3.0),
    max_degrees: float = 0.0,
    max_shift: float = 0.0,
    erasing_probability: float = 0.0,
) -> jax.Array:
    """Augments and normalises a training batch; every option left at 0 or False is skipped. All are static.

    Args:
        key: jax PRNG key.
        images: [B, H, W, 3] uint8.
        flip_probability: see `flip`.
        padding: see `pad_crop`.
        sized_crop: whether to apply `random_sized_crop`.
        sized_crop_area: its area.
        sized_crop_aspect: its aspect.
        max_degrees: see `rotate_shift`.
        max_shift: see `rotate_shift`.
        erasing_probability: see `erase`.

    Returns:
        [B, H, W, 3] float32, normalised.
    """
    flip_key, crop_key, sized_key, rotate_key, erase_key = jax.random.split(key, 5)
    if max_degrees or max_shift:
        images = rotate_shift(rotate_key, images, max_degrees=max_degrees, max_shift=max_shift)
    if sized_crop:
        images = random_sized_crop(sized_key, images, area=sized_crop_area, aspect=sized_crop_aspect)
    if flip_probability:
        images = flip(flip_key, images, probability=flip_probability)
    if padding:
        images = pad_crop(crop_key, images, padding=padding)
    images = normalize(images)
    if erasing_probability:
        images = erase(erase_key, images, probability=erasing_probability)
    return images


def _first_fitting(values: jax.Array, fits: jax.Array, otherwise: float) -> jax.Array:
    """Of values [B, A], the first in each row that fits [B, A]; `otherwise` in rows where none does."""
    first = jnp.take_along_axis(values, jnp.argmax(fits, axis=1)[:, None], axis=1)[:, 0]
    return jnp.where(jnp.any(fits, axis=1), first, otherwise)


def _bilinear_weights(start: jax.Array, extent: jax.Array, size: int) -> jax.Array:
    """Weights [B, size, size] that enlarge pixels start .. start + extent - 1 to `size` pixels."""
    centres = (jnp.arange(size) + 0.5) * (extent / size)[:, None] - 0.5
    # Only the crop's own pixels count: at its border the outermost one repeats.
    source = start[:, None] + jnp.clip(centres, 0, (extent - 1)[:, None])
    return jnp.maximum(0, 1 - jnp.abs(source[:, :, None] - jnp.arange(size)))


def _cast_pixels(images: jax.Array, dtype: jnp.dtype) -> jax.Array:
    if jnp.issubdtype(dtype, jnp.integer):
        images = jnp.round(images)
    return images.astype(dtype)
