"""What all connections of a worker share: the application, its options, and what was made of them.

Made once by `engine`; passed to everything that serves.
"""

import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any

from sengu.http.access_log import Log
from sengu.http.body import NoInput
from sengu.http.environ import Environ
from sengu.http.file_wrapper import FileWrapper
from sengu.http.head import HeadLimits
from sengu.http.health import Health
from sengu.http.proxy import Trust
from sengu.model.web import WebOptions
from sengu.worker.runtime import Runtime

SOFTWARE = "sengu"


class Site:
    """`runtime` says whether answers have to tell that the connection ends."""

    def __init__(
        self,
        application: Callable[..., Any],
        options: WebOptions,
        runtime: Runtime,
        tls: ssl.SSLContext | None = None,
        log: Log | None = None,
    ) -> None:
        self.application = application
        self.options = options
        self.runtime = runtime
        self.timeouts = options.timeouts
        self.tls = tls
        self.log = log
        self.root_path = options.root_path.rstrip("/")
        path = options.health_path
        self.health = None if path is None else Health(path, self.root_path, runtime)
        self.head_limits = HeadLimits.of(options.limits)
        self.max_body_bytes = options.limits.body_bytes
        self.trust = Trust(options.trusted_proxies) if options.trusted_proxies else None
        self.takes_proxy_header = options.proxy_protocol and self.trust is not None

    def base_environ(self, listener: socket.socket) -> Environ:
        """What the requests that come by `listener` have in common (PEP 3333)."""
        is_tls = self.tls is not None
        name, port = "localhost", "443" if is_tls else "80"
        if listener.family != socket.AF_UNIX:
            address = listener.getsockname()
            name, port = str(address[0]), str(address[1])
        environ: Environ = {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if is_tls else "http",
            "wsgi.errors": sys.stderr,
            "wsgi.input": NoInput(),
            "wsgi.input_terminated": True,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.multithread": self.options.threads > 1,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "SERVER_SOFTWARE": SOFTWARE,
            "SERVER_NAME": name,
            "SERVER_PORT": port,
            "SCRIPT_NAME": self.root_path,
            "REMOTE_ADDR": "",
            "REMOTE_PORT": "",
            # Replaced by each request; a copy with room for them needs not grow.
            "REQUEST_METHOD": "",
            "REQUEST_URI": "",
            "PATH_INFO": "",
            "QUERY_STRING": "",
            "SERVER_PROTOCOL": "",
            "wsgi.early_hints": None,
        }
        if is_tls:
            environ["HTTPS"] = "on"
        return environ
