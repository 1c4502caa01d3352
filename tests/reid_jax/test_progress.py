import io
import os
import pty
import time

from reid_jax.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_off_a_terminal_one_line_an_interval():
    stream = io.StringIO()
    with ProgressBar(10, "decoding", unit="images", stream=stream, interval=0.0) as bar:
        bar.update(3)
        bar.update(4)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 and lines[1].startswith("decoding: 7 of 10 images")


def test_off_a_terminal_silent_within_the_interval():
    stream = io.StringIO()
    with ProgressBar(10, "decoding", stream=stream) as bar:
        bar.update(10)
    assert stream.getvalue() == ""


def test_on_a_terminal_nothing_is_left_behind():
    stream = Terminal()
    with ProgressBar(2, "decoding", stream=stream) as bar:
        bar.update(2)
    assert stream.getvalue().strip() == ""


def test_on_a_terminal_that_reports_no_size_there_is_a_bar():
    reader, terminal = pty.openpty()  # which has 0 rows and columns until someone sets them
    with open(terminal, "w") as stream, ProgressBar(2, "decoding", stream=stream) as bar:
        assert tuple(os.get_terminal_size(terminal)) == (0, 0)
        time.sleep(1.1)
        bar.update(1)
        os.set_blocking(reader, False)
        line = os.read(reader, 4096).decode().split("\r")[-1]
    os.close(reader)
    assert line.startswith("decoding:  50%") and 70 < len(line) <= 80
