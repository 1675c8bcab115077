"""Authorities and certificates, made with openssl."""

from __future__ import annotations

import subprocess

# A key that is made at once.
ELLIPTIC = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")


class Authority:
    """Keys and certificates in a directory, which it makes."""

    def __init__(self, directory, kind=ELLIPTIC):
        self.directory, self.kind = directory, kind
        directory.mkdir()
        self.openssl("req", "-x509", *self.new("ca"), "-days", "30", "-subj", "/CN=ours", "-out", directory / "ca.pem")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, stderr=subprocess.DEVNULL)

    def new(self, name):
        return ["-newkey", *self.kind, "-nodes", "-keyout", self.directory / f"{name}.key"]

    def sign(self, name, alternatives):
        """Makes NAME.pem and NAME.key, with these alternative names: `DNS:localhost,IP:127.0.0.1`."""
        request, extensions = self.directory / f"{name}.csr", self.directory / f"{name}.ext"
        self.openssl("req", *self.new(name), "-subj", f"/CN={name}", "-out", request)
        extensions.write_text(f"subjectAltName={alternatives}\nbasicConstraints=CA:FALSE\n")
        self.openssl(
            "x509", "-req", "-in", request, "-CA", self.directory / "ca.pem", "-CAkey", self.directory / "ca.key",
            "-days", "30", "-extfile", extensions, "-out", self.directory / f"{name}.pem",
        )
        (self.directory / f"{name}.key").chmod(0o600)

    def __truediv__(self, name):
        return self.directory / name
