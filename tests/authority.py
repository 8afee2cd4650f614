"""
Certificates made on the fly with the `openssl` command: an authority, and what it signs.

Theory. A test says whom a certificate is for, and how it is wrong if it is: expired, for another name, by an authority
nobody knows, signed in an unusual way. Keys are made once per authority and kind, since RSA takes its time.
"""

import os
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

KEYS = {
    "rsa": ("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
    "ec": ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "ed25519": ("genpkey", "-algorithm", "ED25519"),
}
PSS = ("-sigopt", "rsa_padding_mode:pss")


def openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"


class Pair:
    """A certificate and its key, as PEM files."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate = certificate
        self.key = key

    @property
    def der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.certificate.read_text())

    @property
    def both(self) -> tuple[Path, Path]:
        return self.certificate, self.key


class Authority:
    """Signs what it is asked to; its own certificate is `certificate`. Everybody may read what is in `folder`."""

    def __init__(self, folder: Path, name: str = "Test Authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        self.folder = folder
        self._serial = 1
        self._key = self._make_key("ec", "authority")
        self.certificate = folder / "authority.crt"
        extensions = (
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        )
        subject = ("-subj", f"/CN={name}", "-days", "30")
        openssl("req", "-x509", "-new", "-key", self._key, "-out", self.certificate, *subject, *extensions)

    def _make_key(self, kind: str, name: str) -> Path:
        path = self.folder / f"{name}.key"
        if not path.exists():
            openssl(*KEYS[kind], "-out", path)
            path.chmod(0o644)
        return path

    def sign(self, name: str, *names: str, kind: str = "ec", file: str = "", expired: bool = False) -> Pair:
        """
        A certificate for the common name `name`, and the subjectAltNames `names` ("DNS:x", "IP:::1").

        `file`: what its files are called, if not `name`.
        """
        self._serial += 1
        file = file or name
        key, request = self._make_key(kind, file), self.folder / f"{file}.csr"
        certificate, extensions = self.folder / f"{file}.crt", self.folder / f"{file}.ext"
        openssl("req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", request)
        extensions.write_text(f"subjectAltName={','.join(names)}\n" if names else "basicConstraints=CA:FALSE\n")
        by = ("-CA", self.certificate, "-CAkey", self._key, "-set_serial", str(self._serial))
        days = ("-days", "-1") if expired else ("-days", "30")
        openssl("x509", "-req", "-in", request, "-out", certificate, *by, *days, "-extfile", extensions)
        return Pair(certificate, key)


def sign_itself(folder: Path, kind: str, digest: str = "-sha256", options: Sequence[str] = ()) -> Pair:
    """A self-signed certificate with that kind of signature. The key of a kind is made once per folder."""
    key, certificate = folder / f"{kind}.key", folder / f"{kind}{digest}{len(options)}.crt"
    if not key.exists():
        openssl(*KEYS[kind], "-out", key)
        os.chmod(key, 0o600)
    arguments = ("-subj", "/CN=localhost", "-days", "30", "-key", key, "-out", certificate)
    openssl("req", "-x509", "-new", *([digest] if digest else []), *options, *arguments)
    return Pair(certificate, key)
