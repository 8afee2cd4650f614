"""
Writes the sample `proxy.ini`: `python -m proxy.config.sample > proxy.ini`.

Theory. The file has a short head of its own, the few lines that `make run` needs, and behind it every
setting of the table, commented out at its default with its words: the table is the documentation, and a
test says that the file in the repository is the one this module writes.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from proxy.config.entries import DATABASE_KEYS, DEPRECATED, PEER_KEYS, USER_KEYS
from proxy.config.settings import RESTART, SETTINGS, Setting

HEAD: Final = """\
; pgshuttle's configuration. Edit it, then send SIGHUP to the process or RELOAD to its console: the file is
; taken as a whole or not at all, and the log says what changed. `pgshuttle --check proxy.ini` says every mistake
; beforehand. The format is PgBouncer's: key = value, comments on lines of their own, %include FILE, and a file
; whose main section is [pgbouncer] works too (pool_mode is session there unless said otherwise).

[proxy]
listen_addr = 127.0.0.1
listen_port = 6432
auth_type = scram-sha-256
auth_file = .local/userlist.txt
admin_users = postgres
pool_mode = transaction
default_pool_size = 20
max_client_conn = 1000

; Below is every setting at its default. Times are seconds and may have fractions, where nothing else is said.
"""

DATABASES: Final = """\

[databases]
; name = key=value key='a value with blanks'
; The name is what clients ask for; "*" serves every name that has no entry of its own. Names with other
; characters than letters, digits, _ . - stand in double quotes.
postgres = host=127.0.0.1 port=5433
* = host=127.0.0.1 port=5433

;sales = host=db1.example.com port=5432 dbname=sales_2 pool_size=50
;reports = host=/var/run/postgresql user=reporter password='it''s secret' pool_mode=session

; The keys:
"""

USERS: Final = """\

[users]
; name = key=value ... : limits for one user, stronger than those of the database.
;nightly = pool_size=2 query_timeout=0 transaction_timeout=3600

; The keys:
"""

PEERS: Final = """\

[peers]
; peer_id = host=... : the other processes behind the same address; what our own is, peer_id says above.
;1 = host=10.0.0.1
;2 = host=10.0.0.2 port=6433

; The keys:
"""

# Where each group of the table begins, and its title.
THEMES: Final[Mapping[str, str]] = {
    "listen_addr": "Where clients connect",
    "auth_type": "Who may connect",
    "pool_mode": "Pools",
    "client_login_timeout": "How long clients may wait, run and idle",
    "ignore_startup_parameters": "What clients may say",
    "server_connect_timeout": "Servers: opening, checking, cleaning, closing",
    "logfile": "Log",
    "user": "The process",
    "dns_max_ttl": "Names of database hosts",
    "client_tls_sslmode": "TLS towards clients",
    "server_tls_sslmode": "TLS towards servers",
}


def build_sample() -> str:
    """The text of proxy.ini."""
    parts = [HEAD, *_setting_lines(SETTINGS.values())]
    parts += [DATABASES, *_key_lines(DATABASE_KEYS), USERS, *_key_lines(USER_KEYS), PEERS, *_key_lines(PEER_KEYS)]
    return "".join(parts)


def _setting_lines(settings: Iterable[Setting]) -> Iterator[str]:
    """One paragraph per setting; a reason shared by several stands with the first."""
    told = ""
    for setting in settings:
        if setting.name in THEMES:
            yield f"\n; --- {THEMES[setting.name]} ---\n"
        restart = " (changes with a restart only)" if setting.reload is RESTART else ""
        effect = "" if setting.acted else "\n; No effect" + (f": {setting.reason}" if setting.reason != told else "")
        yield f"\n; {setting.words}{restart}{effect}\n;{setting.name} = {setting.default_text}".rstrip() + "\n"
        told = setting.reason


def _key_lines(keys: Mapping[str, Setting]) -> Iterator[str]:
    for key, setting in keys.items():
        if key not in DEPRECATED:
            yield f";   {key:29}{setting.words}{' (no effect yet)' if setting.reason else ''}\n"


if __name__ == "__main__":
    print(build_sample(), end="")
