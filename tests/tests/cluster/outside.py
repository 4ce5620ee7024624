"""A server outside of a cluster, on all addresses. Usage: outside.py HTTP_PORT HTTPS_PORT CHAIN.PEM KEY.PEM; it says "listening" when it
does.

Its answers have the form of the echo server's: who answers, who asks, for which host, and by which name in the handshake."""

import socket
import socketserver
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name = getattr(self.connection, "asked_for", "nobody")
        body = f"Hostname=outside\nIP={self.client_address[0]}\nhost {self.headers['host']} of {name};\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nobody reads it."""


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Without looking for a name of its own, which nobody here knows.
        socketserver.TCPServer.server_bind(self)


def named(connection, name, _context):
    connection.asked_for = name


def main(http, https, chain, key):
    plain, encrypted = Server(("::", http), Answer), Server(("::", https), Answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    context.set_alpn_protocols(["http/1.1"])
    context.sni_callback = named
    # The handshake is for the thread of its connection: one that comes to no end keeps nobody else out.
    encrypted.socket = context.wrap_socket(encrypted.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=plain.serve_forever, daemon=True).start()
    print("listening", flush=True)
    encrypted.serve_forever()


main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
