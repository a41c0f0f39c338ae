"""Certificates for servers that know their users by them.

Owns: an authority of one run and what it has issued, made by openssl. Must never: be trusted by anything else. Used by
differential.py with --certificates.
"""

import ssl
import subprocess
from pathlib import Path

import grpc

# Whoever has no user's certificate has one that names nobody.
STRANGER = "~stranger"
SERVER = "server"
BY_CERTIFICATE = "certificate:"
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Certificates:
    def __init__(self, directory, names):
        self.directory = Path(directory)
        self.directory.mkdir()
        self.openssl("req", "-x509", *KEY, "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
        (self.directory / "names").write_text("subjectAltName=IP:127.0.0.1")
        for name in (SERVER, STRANGER, *names):
            subject = "/O=stranger" if name == STRANGER else f"/CN={name}"
            self.openssl("req", *KEY, "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
            self.openssl("x509", "-req", "-in", f"{name}.csr", "-days", "2", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                         "-extfile", "names", "-out", f"{name}.pem")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)

    def flags(self):
        """How a server is told of them."""
        file = lambda name: str(self.directory / name)  # noqa: E731
        return ("--cert-file", file(f"{SERVER}.pem"), "--key-file", file(f"{SERVER}.key"), "--trusted-ca-file", file("ca.pem"),
                "--client-cert-auth")

    def channel(self, endpoint, name, options):
        read = lambda file: (self.directory / file).read_bytes()  # noqa: E731
        credentials = grpc.ssl_channel_credentials(read("ca.pem"), read(f"{name}.key"), read(f"{name}.pem"))
        return grpc.secure_channel(endpoint, credentials, options=options)

    def context(self):
        """What reads pages."""
        context = ssl.create_default_context(cafile=self.directory / "ca.pem")
        context.load_cert_chain(self.directory / f"{STRANGER}.pem", self.directory / f"{STRANGER}.key")
        return context


def named(by):
    """Whose certificate is shown; the stranger's where a token says who it is, or nothing."""
    return by.removeprefix(BY_CERTIFICATE) if is_by_certificate(by) else STRANGER


def is_by_certificate(by):
    return isinstance(by, str) and by.startswith(BY_CERTIFICATE)
