"""
A real OpenLDAP: slapd in a folder of its own, on loopback, with a handful of people in it.

Theory. Debian's package brings slapd and starts nothing here; the test runs it with a file of its own, and ends it. Its
certificate is signed by an authority of its own too, so that a test sees what a certificate is good for.
"""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.certificates import Authority
from tests.live.stand import is_listening
from tests.live.tls import opened
from tests.ports import find_free_port

BASE = "dc=example,dc=com"
SEARCHER = f"cn=searcher,{BASE}"
SEARCHER_PASSWORD = "let me look"
PASSWORDS = {
    "anna": "swordfish",
    "bert": "grün & \u2168",
    "o,b=+x": "comma",
    "star*": "starry",
    "twin": "one",
    "carl": "unsaid",
}
SECONDS = 45.0

CONF = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/pid
TLSCACertificateFile {folder}/ca.crt
TLSCertificateFile {folder}/ca-localhost.crt
TLSCertificateKeyFile {folder}/ca-localhost.key
database mdb
suffix "dc=example,dc=com"
directory {folder}/data
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="cn=searcher,dc=example,dc=com" read by * none
"""


class Directory:
    """One slapd. As context manager it runs inside."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pgshuttle-slapd-"))
        self.folder.chmod(0o755)
        self.port, self.tls_port = find_free_port(), find_free_port()
        self.authority = self.folder / "ca.crt"
        self._conf = self.folder / "slapd.conf"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Directory":
        (self.folder / "data").mkdir()
        self._conf.write_text(CONF.format(folder=self.folder))
        opened(Authority(self.folder, "ca").issue("localhost", sans="IP:127.0.0.1"))
        people = self.folder / "people.ldif"
        people.write_text(_ldif())
        command = ["/usr/sbin/slapadd", "-f", self._conf, "-l", people]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        urls = f"ldap://127.0.0.1:{self.port} ldaps://127.0.0.1:{self.tls_port}"
        with (self.folder / "log").open("ab") as log:
            command = ["/usr/sbin/slapd", "-f", str(self._conf), "-h", urls, "-d", "256"]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + SECONDS
        while not (is_listening(self.port) and is_listening(self.tls_port)):
            assert self._process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(SECONDS)
            self._process = None

    @property
    def log(self) -> str:
        """What it was asked: binds, searches, and how they went."""
        return (self.folder / "log").read_text(errors="replace")


def _ldif() -> str:
    entries = [f"dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\no: example\ndc: example"]
    entries += [f"dn: ou={unit},{BASE}\nobjectClass: organizationalUnit\nou: {unit}" for unit in ("people", "others")]
    entries.append(
        f"dn: {SEARCHER}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\n"
        f"cn: searcher\nuserPassword: {SEARCHER_PASSWORD}"
    )
    entries += [_person(user, word, "people") for user, word in PASSWORDS.items()]
    entries.append(_person("twin", "two", "others"))
    return "\n\n".join(entries) + "\n"


def _person(user: str, word: str, unit: str) -> str:
    named = "".join(f"\\{char}" if char in ",=+" else char for char in user)
    return (
        f"dn: uid={named},ou={unit},{BASE}\nobjectClass: inetOrgPerson\nuid: {user}\ncn: {user}\nsn: {user}\n"
        f"mail: {user}@example.com\nuserPassword: {word}"
    )
