"""Whether certificate and key can be used: they are there, can be read, and belong together.

OpenSSL is asked here, before anything is started, and not by the server, which never loads it.
Imported by `config.web`.
"""

import os

from sengu.config.setting import Values
from sengu.config.settings import requests as known
from sengu.errors import UsageError
from sengu.model.web import Tls


def resolve_tls(values: Values) -> Tls | None:
    """The files, absolute; None without a certificate. Raises UsageError."""
    certificate, key = values[known.TLS_CERT], values[known.TLS_KEY]
    if certificate is None:
        if key is not None:
            raise UsageError(f"--tls-key {key!r} is of no use alone; add --tls-cert FILE")
        return None
    paths = Tls(os.path.abspath(certificate), None if key is None else os.path.abspath(key))
    _check_file("--tls-cert", paths.certificate)
    if paths.key is not None:
        _check_file("--tls-key", paths.key)
    _check_pair(paths)
    return paths


def _check_file(flag: str, path: str) -> None:
    if not os.path.exists(path):
        raise UsageError(f"{flag} {path!r} does not exist; check the path")
    if not os.path.isfile(path):
        raise UsageError(f"{flag} {path!r} is not a file; name a PEM file")
    if not os.access(path, os.R_OK, effective_ids=True):
        raise UsageError(
            f"{flag} {path!r} may not be read by uid {os.geteuid()}; grant it read permission"
        )


def _check_pair(paths: Tls) -> None:
    import ssl  # 10 ms that nobody without a certificate pays

    def refuse_to_ask() -> str:
        raise UsageError(
            f"the key in {paths.key or paths.certificate!r} has a pass phrase, which nobody can "
            "type at each deploy; write it without one: openssl pkey -in KEY -out NEW"
        )

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            paths.certificate, paths.key, refuse_to_ask
        )
    except ssl.SSLError as problem:
        raise UsageError(_explain(paths, problem.reason or str(problem))) from None


def _explain(paths: Tls, reason: str) -> str:
    if reason == "KEY_VALUES_MISMATCH":
        return (
            f"--tls-key {paths.key or paths.certificate!r} is not the key of --tls-cert "
            f"{paths.certificate!r}; give the one that it was made with"
        )
    where = f"--tls-cert {paths.certificate!r}"
    if paths.key is not None:
        return (
            f"{where} with --tls-key {paths.key!r} cannot be used ({reason}); "
            "each must be PEM, the first with the certificate, the second with its private key"
        )
    return (
        f"{where} cannot be used ({reason}); it must be PEM with the certificate and its private "
        "key, or the key must be given with --tls-key FILE"
    )
