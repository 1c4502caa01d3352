"""A web server of this machine, with the faults that servers and connections have."""

import contextlib
import http.server
import threading
import time


class FileServer:
    """Serves bytes by path, over the loopback interface only.

    Attributes:
        files: what is served, by path.
        tags: the ETag of each file; a path that is missing here has none.
        redirects: where paths lead to.
        knows_ranges: whether parts of files are served.
        cuts: after how many bytes of a body the connection is closed, for the next requests one after the other; None:
            not at all.
        pause: seconds before the connection goes on after each 1,000 bytes.
        requests: (path, Range header) of each, None where there was none.
    """

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.redirects: dict[str, str] = {}
        self.knows_ranges = True
        self.cuts: list[int | None] = []
        self.pause = 0.0
        self.requests: list[tuple[str, str | None]] = []
        self.url = ""


def _handler(server: FileServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *unused):
            pass

        def do_GET(self):
            server.requests.append((self.path, self.headers["Range"]))
            if self.path in server.redirects:
                self.send_response(302)
                self.send_header("Location", server.redirects[self.path])
                self.end_headers()
            elif self.path not in server.files:
                self.send_error(404)
            else:
                self.send_file(server.files[self.path], server.tags.get(self.path))

        def send_file(self, body, tag):
            start, total = 0, len(body)
            if self.headers["Range"] and server.knows_ranges and self.headers["If-Range"] == tag:
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                if start >= total:
                    self.send_error(416)
                    return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            if tag:
                self.send_header("ETag", tag)
            self.send_header("Content-Length", str(total - start))
            self.end_headers()
            cut = server.cuts.pop(0) if server.cuts else None
            rest = body[start:] if cut is None else body[start : start + cut]
            for place in range(0, len(rest), 1000):
                self.wfile.write(rest[place : place + 1000])
                time.sleep(server.pause)

    return Handler


@contextlib.contextmanager
def serving():
    """Yields a FileServer that runs."""
    files = FileServer()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(files)) as server:
        files.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield files
        finally:
            server.shutdown()
            thread.join()
