"""A proxy before the stand-in hub: CONNECT to its origins, and to nothing else.

What is asked of it in the clear (GET http://…) it answers itself, as the origin would.
"""

import select
import socket

BLOCK = 256 << 10


def connect(connection, request):
    """Answers CONNECT; returns when one of the two sides has ended."""
    origins = connection.hub.origins.values()
    port = next((o.port for o in origins if o.authority == request.target), None)
    if port is None:
        connection.sock.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        return 502
    with socket.create_connection((request.target.rpartition(":")[0], port)) as there:
        connection.sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        there.sendall(connection.buffer)
        connection.buffer = b""
        _relay(connection.hub, connection.sock, there)
    return 200


def _relay(hub, here, there):
    poll = select.poll()
    for sock in (here, there):
        poll.register(sock, select.POLLIN)
    while not hub.closing:
        for fd, _ in poll.poll(100):
            source, target = (here, there) if fd == here.fileno() else (there, here)
            data = source.recv(BLOCK)
            if not data:
                return
            target.sendall(data)
