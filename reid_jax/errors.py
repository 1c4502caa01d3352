"""The errors that end a command with one line."""


class UserError(ValueError):
    """Something the user gave is wrong: printed as one line naming what, where and the rule; exit status 2."""


class BusyError(UserError):
    """Another process is working in a run directory."""


class NonFiniteLossError(RuntimeError):
    """A training loss, the model or its embeddings are nan or infinite; the run cannot go on from here."""
