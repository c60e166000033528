"""The sample app: serves what its build made, and a health path. usage: server.py PORT"""
import http.server
import pathlib
import sys

PAGE = pathlib.Path("site/index.txt").read_bytes()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        # Operators only.
        closed = self.path.startswith("/ops")
        self.send_response(401 if closed else 200)
        self.end_headers()
        self.wfile.write(b"" if closed else PAGE)


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
