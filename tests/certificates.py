"""Certificates made on the fly with the `openssl` command: an authority, and pairs of certificate and key it signs."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

DAYS = "2"


@dataclass(frozen=True)
class Pair:
    """Two files in PEM format."""

    cert: Path
    key: Path


class Authority:
    """One that signs itself; its own certificate is `cert`."""

    def __init__(self, folder: Path, name: str = "authority", kind: str = "EC") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("the openssl command is missing: it makes the certificates")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.name = name
        self.cert, self.key = folder / f"{name}.crt", folder / f"{name}.key"
        _new_key(self.key, kind)
        run("req", "-x509", "-new", "-key", self.key, "-out", self.cert, "-days", DAYS, "-subj", f"/CN={name}")

    def issue(
        self, name: str, *, sans: str = "", kind: str = "EC", subject: str = "", days: str = DAYS, stem: str = ""
    ) -> Pair:
        """A pair for the common name `name`. `sans` as openssl writes them: DNS:localhost,IP:127.0.0.1.

        `days` may be below zero: expired. `stem`: of the names of its files, if several are for one name."""
        stem = stem or f"{self.name}-{name}"
        cert, key, request = (self.folder / f"{stem}.{end}" for end in ("crt", "key", "csr"))
        _new_key(key, kind)
        run("req", "-new", "-key", key, "-out", request, "-subj", subject or f"/CN={name}")
        extensions = self.folder / f"{stem}.ext"
        extensions.write_text(f"subjectAltName={sans}\n" if sans else "basicConstraints=CA:FALSE\n")
        signed = ("-CA", self.cert, "-CAkey", self.key, "-CAcreateserial", "-extfile", extensions)
        run("x509", "-req", "-in", request, "-out", cert, "-days", days, *signed)
        return Pair(cert, key)


def _new_key(path: Path, kind: str = "EC") -> None:
    """P-256, or with `kind` RSA one of 2048 bits, or ED25519."""
    options = {"RSA": ("-pkeyopt", "rsa_keygen_bits:2048"), "EC": ("-pkeyopt", "ec_paramgen_curve:P-256")}
    run("genpkey", "-algorithm", kind, *options.get(kind, ()), "-out", path)


def run(*arguments: object) -> bytes:
    """One call of openssl, whose output is given back."""
    command = ["openssl", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.decode()}"
    return done.stdout
