"""What stands before an https server and shows it a client's certificate, for a browser that has none.

Owns: the connections in both directions. Must never: change a byte, or listen beyond loopback.
"""

import select
import socket
import socketserver
import ssl
import threading

HOST = "127.0.0.1"
CHUNK = 1 << 16
HANDSHAKE_SECONDS_MAX = 10


class Bearer(socketserver.ThreadingTCPServer):
    """Takes TLS with the certificate `cert`, and speaks TLS with `server` by the same."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, server, cert, key):
        super().__init__((HOST, 0), Passing)
        self.page = f"https://{HOST}:{self.server_address[1]}/status"
        self.behind = (HOST, server.port)
        self.inward = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.inward.load_cert_chain(cert, key)
        self.outward = ssl.create_default_context(cafile=cert)
        self.outward.load_cert_chain(cert, key)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Passing(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.settimeout(HANDSHAKE_SECONDS_MAX)
        try:
            with (self.server.inward.wrap_socket(self.request, server_side=True) as near,
                  socket.create_connection(self.server.behind, HANDSHAKE_SECONDS_MAX) as plain,
                  self.server.outward.wrap_socket(plain, server_hostname=HOST) as far):
                pass_on(near, far)
        except OSError:
            # Browsers open connections that they do not use, and end those that they have used.
            return


def pass_on(near, far):
    """Until either end is closed. One thread for both directions: a connection of TLS is not for two."""
    while True:
        waiting = [one for one in (near, far) if one.pending()] or select.select((near, far), (), ())[0]
        for source in waiting:
            chunk = source.recv(CHUNK)
            if not chunk:
                return
            (far if source is near else near).sendall(chunk)
