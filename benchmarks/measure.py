"""What the benchmarks measure with: seconds of calls that take turns, and a call's peak memory."""

import contextlib
import itertools
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
    """Returns by how much the memory of the process and its children grew at most during a call.

    It is looked at 100 times a second, which children there are once a second: that takes long. Pages that processes
    share count for each of them.
    """
    done, peak = threading.Event(), [0]
    before = _resident_bytes(_family())

    def watch():
        looks = itertools.count()
        while not done.wait(0.01):
            if next(looks) % 100 == 0:
                family = _family()
            peak[0] = max(peak[0], _resident_bytes(family))

    watcher = threading.Thread(target=watch)
    watcher.start()
    jax.block_until_ready(call())
    done.set()
    watcher.join()
    return max(0, peak[0] - before)


def _family() -> list[psutil.Process]:
    process = psutil.Process()
    return [process, *process.children(recursive=True)]


def _resident_bytes(processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            total += process.memory_info().rss
    return total
