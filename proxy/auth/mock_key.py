"""
The key that the salts of users who do not exist are made with (keys.py): the same after a restart, and in each process.

Theory. Whoever exists keeps his salt. So a salt that is another one after a restart, or in the next of several
processes behind one address (`so_reuseport`, `[peers]`, a balancer), is nobody's, and tells who exists. PostgreSQL
keeps a number for this with its cluster; we keep nothing. But there are secrets that stay, and that no stranger knows:
the private key of our certificate, which all processes have that serve the same name, else the number of this machine
(machine-id(5), made for deriving other keys from). What is made of them does not lead back. Where there is neither, the
key holds for as long as the process.
"""

import hmac
import secrets
from typing import Final

from proxy.config.files import read_bytes

MACHINE_ID: Final = "/etc/machine-id"
MAX_FILE: Final = 4 << 20  # bytes
LEAST: Final = 32  # bytes: the digits of a number of 128 bits
_PURPOSE: Final = b"pgshuttle: salts of users who do not exist"


def find_mock_key(key_file: str, machine_id: str = MACHINE_ID) -> bytes:
    """32 bytes. `key_file` is client_tls_key_file, "" where there is none."""
    for path in filter(None, (key_file, machine_id)):
        try:
            secret = read_bytes(path, MAX_FILE).strip()
        except ValueError:
            continue  # whoever needs it says so
        if len(secret) >= LEAST:  # a machine that has just been set up has no number yet
            return hmac.digest(secret, _PURPOSE, "sha256")
    return secrets.token_bytes(32)
