"""A progress bar on a terminal; elsewhere (a log file, a batch system) one line a minute."""

import sys
import time
from typing import TextIO

import tqdm


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
                total=total, desc=description, unit=unit, leave=False, dynamic_ncols=True, delay=1.0, file=self._stream
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
