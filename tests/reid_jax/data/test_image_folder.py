"""image_folder.py's messages on files that are not read as a whole; tests/experiments/test_search.py has the rest."""

import numpy as np
from PIL import Image

from reid_jax.data import image_folder


def test_pages_and_videos_that_are_not_read_are_told(tmp_path, capsys):
    pages = [Image.fromarray(np.full((4, 2, 3), value, np.uint8)) for value in (1, 2)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    pages[1].save(tmp_path / "b.webp", lossless=True)
    (tmp_path / "c.gif").write_bytes(b"GIF89a")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "film.mp4").write_bytes(b"")
    files = image_folder.find_images(str(tmp_path), flag="source", on_bad_image="skip")
    assert files.paths.tolist() == ["a.tif", "b.webp"]
    assert capsys.readouterr().out.splitlines() == [
        "left out: 1 videos, which only reid prepare reads (--tracklets)",
        "left out: c.gif: it is no image file",
        "a.tif: only the first of its 2 pages is read",
    ]
