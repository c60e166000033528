"""A small HTTP server with a table of paths and JSON answers, like those of the real framework."""

import json
import os
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from universal_agent import faults

Answer = tuple[int, object]
Routes = Mapping[str, Callable[[Mapping[str, str]], Answer]]


def serve(service: str, port: int, routes: Routes) -> None:
    """Serve on every address until stopped. A `str` answer is sent unchanged, anything else as JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            while service in faults.HANGS:
                time.sleep(1)
            route = routes.get(self.path.split("?", 1)[0])
            self.answer(*(route(self.headers) if route else (404, {"detail": "Not Found"})))

        def do_HEAD(self) -> None:
            known = self.path.split("?", 1)[0] in routes
            self.answer(*((405, {"detail": "Method Not Allowed"}) if known else (404, {"detail": "Not Found"})))

        def answer(self, status: int, body: object) -> None:
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_request(self, code: object = "-", size: object = "-") -> None:
            """Health checks would fill the journal."""

    prefix = f"UA_{service.upper()}"
    port = int(os.environ.get(f"{prefix}_PORT") or faults.PORTS.get(service, port))
    ThreadingHTTPServer((os.environ.get(f"{prefix}_HOST") or "0.0.0.0", port), Handler).serve_forever()
