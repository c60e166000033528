"""A small HTTP server on loopback: a table of paths, JSON answers."""

import json
import os
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from universal_agent import faults, runtime

Answer = tuple[int, object]
Routes = Mapping[str, Callable[[Mapping[str, str]], Answer]]


def serve(service: str, port: int, routes: Routes) -> None:
    """Answer on 127.0.0.1 until stopped. A `str` answer is sent as it is, anything else as JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            while service in faults.HANGS:
                time.sleep(1)
            path = self.path.split("?", 1)[0]
            if path == "/version":
                status, body = 200, runtime.identity(service)
            elif route := routes.get(path):
                status, body = route(self.headers)
            else:
                status, body = 404, {"detail": "Not Found"}
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_HEAD = do_GET

        def log_request(self, code: object = "-", size: object = "-") -> None:
            """Health checks would fill the journal."""

    port = int(os.environ.get(f"UA_{service.upper()}_PORT") or faults.PORTS.get(service, port))
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    runtime.start(service)
    server.serve_forever()
