"""The certificate that a server shows."""

from __future__ import annotations

import ssl

from .errors import SourceError


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """Return a context for servers from two PEM files; raise ``SourceError`` if they cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # an ssl.SSLError is one
        raise SourceError(
            f"certificate {certificate!r} with key {key!r} cannot be used: {error.strerror or error}; "
            f"expected two readable PEM files that belong together"
        ) from None
    return context
