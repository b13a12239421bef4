"""A server's certificate works, or the error says which files and why."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from mediaflow import SourceError, tls


def test_files_that_belong_together(tmp_path: Path) -> None:
    """A chain and its key make a context for servers."""
    made = trustme.CA().issue_cert("localhost")
    made.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    context = tls.server_context(str(tmp_path / "both.pem"), str(tmp_path / "both.pem"))
    assert context.get_ca_certs() == []
    assert not context.check_hostname


def test_a_key_of_another_certificate(tmp_path: Path) -> None:
    """A key that does not belong to the certificate is refused with both names."""
    one, two = (trustme.CA().issue_cert("localhost") for _ in range(2))
    one.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    two.private_key_pem.write_to_path(tmp_path / "key.pem")
    with pytest.raises(SourceError, match=r"cert\.pem' with key '.*key\.pem' cannot be used"):
        tls.server_context(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))


def test_a_file_that_is_not_there() -> None:
    """A wrong path is named as what it is."""
    with pytest.raises(SourceError, match="No such file or directory; expected two readable PEM files"):
        tls.server_context("no.pem", "no.key")
