"""A progress bar on a terminal; elsewhere (a log file, a batch system) one line a minute."""

import os
import sys
import time
from typing import Any, TextIO

import tqdm

_FALLBACK_COLUMNS, _FALLBACK_ROWS = 80, 24


class ProgressBar:
    """Counts towards a total and shows how far it is; use as a context manager.

    Args:
        total: number of units in all.
        description: what is being done, e.g. "decoding market1501/train".
        unit: what is counted, e.g. "images".
        stream: where to write; standard error by default.
        interval: seconds between two lines when the stream is no terminal.
    """

    def __init__(
        self, total: int, description: str, *, unit: str = "it", stream: TextIO | None = None, interval: float = 60.0
    ):
        self._stream = stream or sys.stderr
        self._total, self._description, self._unit, self._interval = total, description, unit, interval
        self._done, self._start = 0, time.monotonic()
        self._last_line = self._start
        self._bar = None
        if self._stream.isatty():
            # The delay keeps work of less than a second from flickering.
            self._bar = tqdm.tqdm(
                total=total,
                desc=description,
                unit=unit,
                leave=False,
                delay=1.0,
                file=self._stream,
                **_size_options(self._stream),
            )

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *exc_info) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, count: int = 1) -> None:
        """Adds `count` finished units."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        if now - self._last_line >= self._interval:
            self._last_line = now
            rate = self._done / max(now - self._start, 1e-9)
            self._stream.write(f"{self._description}: {self._done} of {self._total} {self._unit}, {rate:.1f}/s\n")
            self._stream.flush()


def _size_options(stream: TextIO) -> dict[str, Any]:
    """Returns what tqdm is to assume of a terminal's size."""
    try:
        has_room = all(os.get_terminal_size(stream.fileno()))
    except OSError:  # not known; tqdm then takes what it needs
        has_room = True
    # Terminals of containers and on serial lines report 0 x 0, where tqdm draws nothing.
    return {"dynamic_ncols": True} if has_room else {"ncols": _FALLBACK_COLUMNS, "nrows": _FALLBACK_ROWS}
