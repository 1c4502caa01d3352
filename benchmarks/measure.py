"""What the benchmarks measure with: seconds of calls that take turns, and a call's peak memory."""

import contextlib
import threading
import time
from collections.abc import Callable

import jax
import psutil


def take_turns(calls: dict[str, Callable], *, repeats: int) -> dict[str, float]:
    """Returns every call's least seconds of several rounds, so that other load on the machine meets all alike.

    A call may return a function: then only that function is timed, and the call is its preparation.
    """
    seconds = {name: float("inf") for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            result = call()
            if callable(result):
                start = time.perf_counter()
                result = result()
            jax.block_until_ready(result)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
            del result
    return seconds


def peak_bytes(call: Callable) -> int:
    """Returns by how much the memory of the process and its children grew at most during a call, looked at 100 times a
    second. Pages that processes share count for each of them."""
    process, done, peak = psutil.Process(), threading.Event(), [0]
    before = _resident_bytes(process)

    def watch():
        while not done.wait(0.01):
            peak[0] = max(peak[0], _resident_bytes(process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    jax.block_until_ready(call())
    done.set()
    watcher.join()
    return max(0, peak[0] - before)


def _resident_bytes(process: psutil.Process) -> int:
    total = process.memory_info().rss
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            total += child.memory_info().rss
    return total
