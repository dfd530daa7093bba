"""The socket on which a gateway listens, taken before anything else is opened."""

from __future__ import annotations

import errno
import socket

from gateway.errors import StartRefused
from gateway.settings import Settings

BACKLOG = 2048


def listen(settings: Settings) -> socket.socket:
    """The listening socket. Raises StartRefused."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        hints = {
            errno.EADDRINUSE: "stop what uses the port, or set SIMSA_PORT to another one",
            errno.EACCES: "set SIMSA_PORT to one that this user may open",
        }
        hint = hints.get(error.errno or 0, "set SIMSA_HOST to an address of this machine")
        raise StartRefused(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; {hint}") from error
    listener.set_inheritable(True)
    return listener
