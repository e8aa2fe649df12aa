"""TLS by the standard library: the context, and a socket that reads and writes as plain ones do.

Imported by `engine` and `connection`, and by the ASGI engine for the context.
"""

import socket
import ssl

from sengu.model.web import Tls
from sengu.worker.engine import LoadError

_ALPN = ["http/1.1"]
_EXPLANATIONS = {
    "PASSWORD": "the key needs a password",
    "VALUES MISMATCH": "the key is not the certificate's",
    "PEM LIB": "there is no certificate or no private key in it",
    "NO START LINE": "there is no certificate or no private key in it",
}
RECORD_BYTES = 1 << 14  # a read of so much leaves nothing behind in the TLS layer


def load_context(options: Tls) -> ssl.SSLContext:
    """Raises LoadError when certificate or key can not be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(_ALPN)
    context.options |= ssl.OP_NO_RENEGOTIATION
    for path in filter(None, (options.certificate, options.key)):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise LoadError(
                f"cannot read {path}: {(error.strerror or '').lower()};"
                " give a PEM file that the worker's user may read"
            ) from error
    try:
        context.load_cert_chain(options.certificate, options.key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        names = options.certificate + (f" and {options.key}" if options.key else "")
        raise LoadError(
            f"cannot use {names}: {_explain(error)}; give the certificate's chain and its private"
            " key without a password as PEM, in --tls-cert and --tls-key"
        ) from error
    return context


def _no_password() -> str:
    """Never ask the terminal: there is nobody to answer."""
    raise ValueError("the key needs a password")


def _explain(error: Exception) -> str:
    said = str(error).upper().replace("_", " ")
    for reason, text in _EXPLANATIONS.items():
        if reason in said:
            return text
    return getattr(error, "reason", None) or str(error)


class TlsSocket:
    """A TLS connection that never blocks: BlockingIOError means that it has to wait.

    `flags` are those of a plain socket, which does not wait because of them.
    """

    __slots__ = ("_socket",)

    def __init__(self, context: ssl.SSLContext, plain: socket.SocketType) -> None:
        """Take over `plain`'s descriptor. Raises OSError, and leaves it alone, when the client
        has gone: ssl would read to find that out, and not close it."""
        plain.getpeername()
        taken = socket.socket(plain.family, plain.type, plain.proto, fileno=plain.detach())
        taken.setblocking(False)
        self._socket = context.wrap_socket(taken, server_side=True, do_handshake_on_connect=False)

    def handshake(self) -> None:
        """Go on with the handshake; BlockingIOError until it is done, else OSError."""
        try:
            self._socket.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def recv(self, size: int, _flags: int = 0, /) -> bytes:
        try:
            return self._socket.recv(max(size, RECORD_BYTES))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLEOFError:  # closed without a farewell, as many clients do
            return b""

    def send(self, data: bytes | memoryview, _flags: int = 0, /) -> int:
        try:
            return self._socket.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def fileno(self) -> int:
        return self._socket.fileno()

    def setsockopt(self, level: int, name: int, value: int | bytes, /) -> None:
        self._socket.setsockopt(level, name, value)

    def shutdown(self, how: int, /) -> None:
        """Say farewell in TLS, then as a plain socket."""
        self._say_farewell()
        self._socket.shutdown(how)

    def close(self) -> None:
        self._say_farewell()
        self._socket.close()

    def _say_farewell(self) -> None:
        try:
            self._socket.unwrap()
        except (OSError, ValueError):  # said; the client has not yet, or there was no handshake
            return
