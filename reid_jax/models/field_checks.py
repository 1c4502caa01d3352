"""Rules of fields that several backbones have, each checked in one way."""

from reid_jax import errors


def check_frozen_stages(frozen_stages: int, most: int, *, unit: str = "stages") -> None:
    """Checks how many of a backbone's stages are frozen.

    Args:
        frozen_stages: the field.
        most: how many there are.
        unit: what they are called.

    Raises:
        UserError: it is not in 0..most.
    """
    if not 0 <= frozen_stages <= most:
        raise errors.UserError(f"frozen_stages must be in 0..{most}, the number of {unit}, got {frozen_stages}")


def check_bn_group_size(bn_group_size: int) -> None:
    """Checks the images of a batch-norm group.

    Raises:
        UserError: they are fewer than 0.
    """
    if bn_group_size < 0:
        raise errors.UserError(f"bn_group_size must be at least 0 (0 = the whole batch), got {bn_group_size}")


def check_last_stride(last_stride: int) -> None:
    """Checks the stride of a last stage.

    Raises:
        UserError: it is neither 1 nor 2.
    """
    if last_stride not in (1, 2):
        raise errors.UserError(f"last_stride must be 1 or 2, got {last_stride}")
