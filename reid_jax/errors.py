"""The errors that end a command with one line."""

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """Something the user gave is wrong: printed as one line naming what, where and the rule; exit status 2."""


class BusyError(UserError):
    """Another process is working in a run directory."""


class NonFiniteLossError(RuntimeError):
    """A training loss, the model or its embeddings are nan or infinite; the run cannot go on from here."""


@contextlib.contextmanager
def prefixed(prefix: str, kind: type[ValueError] = UserError) -> Iterator[None]:
    """Puts the name of an option in front of an error's message: library functions name arguments, not options.

    Args:
        prefix: such as "--model: " or "cluster.".
        kind: the errors that are the user's; they become a UserError.

    Raises:
        UserError: the block raised such an error.
    """
    try:
        yield
    except kind as error:
        raise UserError(f"{prefix}{error}") from error
