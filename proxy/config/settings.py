# ruff: noqa: RUF009, S108 - `row` is our dataclasses.field; /tmp is where PgBouncer puts its socket
"""
Every setting is a row: name, type, kind of text, default, when it takes effect, whether it is acted on, words.

Theory. The rows are the fields of the frozen `Settings`; everything else is derived from them: the parser of
the main section, SHOW CONFIG, SET, the sample file, the list of what is not acted on. Adding a setting is adding one
line, and `python -m proxy.config.sample > proxy.ini`; one that may be said of a database or a user too stands in
entries.py and limits.py as well. Names and defaults are PgBouncer's (its config documentation, release 1.25 and the
three newer ones login_notify_message, pool_idle_timeout, and query_wait_timeout per database and user); rows of our
own say what is done about sessions where servers are shared, and about strangers (auth_failure_delay, max_half_open,
proxy_protocol_from).

LIVE settings change with a reload. RESTART ones belong to things made once, such as listening sockets; a
reload that changes one keeps the old value and says so. ACTED marks what works today; any other text in
its place says why not or what happens instead, and is shown to whoever sets it. Nothing is ignored in silence.

One default depends on the file: under `[pgbouncer]` pool_mode is session, as there; under `[proxy]` it is
transaction. `defaults(section)` knows.
"""

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

from protocol.passwords import Secret
from proxy.config.kinds import (
    ADDRESSES,
    AUTH_TYPE,
    BUSY_POLL,
    CHECK_QUERY,
    COUNT,
    COUNT_OR_OFF,
    DURATION,
    FACILITY,
    ITERATIONS,
    LDAP_OPTIONS,
    LISTEN_MODE,
    LOG_FORMAT,
    MODE,
    NAMES,
    PACKET_SIZE,
    PEER_ID,
    POOL_MODE,
    PORT,
    SECONDS,
    SECONDS_OR_OFF,
    SESSION_STATE,
    SSL_MODE,
    TEXT,
    TLS_NEGOTIATION,
    TRUTH,
    AuthType,
    Kind,
    ListenMode,
    PoolMode,
    SessionState,
    SslMode,
    TlsNegotiation,
)
from proxy.config.networks import NETWORKS, Networks
from proxy.log import Format

T = TypeVar("T")
D = TypeVar("D")


class Reload(enum.Enum):
    """When a changed value takes effect."""

    LIVE = "with the next reload"
    RESTART = "with the next start"


LIVE, RESTART = Reload

MAIN_SECTIONS: Final = ("proxy", "pgbouncer")

ACTED: Final = ""
NO_ZONES: Final = "the system's resolver looks up host names: it is set up in /etc/resolv.conf and knows no zones"
NO_BUFFERS: Final = "it has no meaning here: the event loop sizes its reads itself"
NO_WINDOWS: Final = "it is for Windows services: job_name names the process here"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row. `reason` is why it is not acted on, empty when it is."""

    name: str
    kind: Kind[Any]
    default: Any
    reload: Reload
    reason: str
    words: str

    @property
    def acted(self) -> bool:
        return not self.reason

    @property
    def default_text(self) -> str:
        return self.kind.format(self.default)


def row(kind: Kind[T], default: D, reload: Reload, reason: str, words: str) -> T | D:
    """A field of a table of settings; what it returns is a dataclass field, whatever the type checker believes."""
    about = {"kind": kind, "reload": reload, "reason": reason, "words": words}
    return cast(T, dataclasses.field(default=cast(Any, default), metadata=about))


def table_of(rows: type) -> Mapping[str, Setting]:
    """The settings of a dataclass whose fields are made by `row`, in order; other fields are left out."""
    fields = [field for field in dataclasses.fields(rows) if "kind" in field.metadata]
    return MappingProxyType(
        {field.name: Setting(field.name, default=field.default, **field.metadata) for field in fields}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The main section's values. Times are seconds, sizes bytes, None is "off" or "no limit"."""

    # Where clients connect.
    listen_addr: tuple[str, ...] = row(
        ADDRESSES, (), RESTART, ACTED, "TCP addresses, comma between; * = all; empty = none"
    )
    listen_port: int = row(PORT, 6432, RESTART, ACTED, "TCP port, and the number in the Unix socket's name")
    listen_backlog: int = row(COUNT, 128, RESTART, ACTED, "connections the kernel keeps waiting to be accepted")
    so_reuseport: bool = row(TRUTH, False, RESTART, ACTED, "several processes share listen_port")
    unix_socket_dir: str = row(
        TEXT, "/tmp", RESTART, ACTED, "folder of the Unix socket; @name = abstract; empty = none"
    )
    unix_socket_mode: int = row(MODE, 0o777, RESTART, ACTED, "rights of the Unix socket, in octal")
    unix_socket_group: str = row(TEXT, "", RESTART, ACTED, "group that owns the Unix socket; empty = our own")
    tcp_keepalive: bool = row(TRUTH, True, LIVE, ACTED, "kernel keepalive on TCP connections")
    tcp_keepcnt: int | None = row(COUNT_OR_OFF, None, LIVE, ACTED, "unanswered probes until dead; 0 = system default")
    tcp_keepidle: int | None = row(
        COUNT_OR_OFF, None, LIVE, ACTED, "silent seconds before the first probe; 0 = system default"
    )
    tcp_keepintvl: int | None = row(COUNT_OR_OFF, None, LIVE, ACTED, "seconds between probes; 0 = system default")
    tcp_user_timeout: int | None = row(
        COUNT_OR_OFF, None, LIVE, ACTED, "milliseconds sent data may stay unacknowledged; 0 = system default"
    )
    tcp_defer_accept: bool = row(TRUTH, True, LIVE, ACTED, "the kernel hands over a connection with its first bytes")
    proxy_protocol_from: Networks = row(
        NETWORKS, Networks(), LIVE, ACTED, "balancers that say first for whom they connect: networks, unix"
    )
    tcp_socket_buffer: int | None = row(COUNT_OR_OFF, None, LIVE, ACTED, "socket buffers, bytes; 0 = system default")

    # Who may connect.
    auth_type: AuthType = row(
        AUTH_TYPE,
        AuthType.MD5,
        LIVE,
        ACTED,
        "any, trust, plain, md5 (or SCRAM), scram-sha-256, cert, ldap, pam, oauth, hba",
    )
    auth_file: str = row(TEXT, "", LIVE, ACTED, 'file of "user" "secret" lines')
    scram_iterations: int = row(ITERATIONS, 4096, LIVE, ACTED, "rounds when a SCRAM secret is made from a plain one")
    auth_failure_delay: float | None = row(
        SECONDS_OR_OFF, 5.0, LIVE, ACTED, "longest pause before a login after ones that failed; 0 = none"
    )
    max_half_open: int | None = row(
        COUNT_OR_OFF,
        None,
        LIVE,
        ACTED,
        "who has not logged in yet, then old ones go; 0 = max_client_conn, 100 at least",
    )
    auth_query: str = row(
        TEXT,
        "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END "
        "FROM pg_authid WHERE rolname=$1 AND rolcanlogin",
        LIVE,
        ACTED,
        "query that fetches a user's secret, $1 being the name",
    )
    auth_query_ttl: float = row(SECONDS, 10.0, LIVE, ACTED, "how long its answer counts; 0 = asked at each login")
    auth_user: str = row(TEXT, "", LIVE, ACTED, "who runs auth_query for users not in auth_file")
    auth_dbname: str = row(TEXT, "", LIVE, ACTED, "database auth_query runs in; empty = the client's own")
    auth_hba_file: str = row(TEXT, "", LIVE, ACTED, "rules for auth_type = hba")
    auth_ident_file: str = row(TEXT, "", LIVE, ACTED, "user name map for cert and peer rules")
    auth_ldap_options: Secret = row(LDAP_OPTIONS, Secret(""), LIVE, ACTED, "auth_type = ldap: which directory, and how")
    pam_service: str = row(TEXT, "pgbouncer", LIVE, ACTED, "auth_type = pam: the file under /etc/pam.d")
    oauth_issuer: str = row(TEXT, "", LIVE, ACTED, "auth_type = oauth: whose tokens are believed; an https address")
    oauth_jwks: str = row(TEXT, "", LIVE, ACTED, "the issuer's public keys: a file, or an https address")
    oauth_audience: tuple[str, ...] = row(NAMES, (), LIVE, ACTED, "names of ours, one of which tokens must be made for")
    oauth_scope: tuple[str, ...] = row(NAMES, (), LIVE, ACTED, "scopes that tokens must have, all of them")
    oauth_user_claim: str = row(TEXT, "sub", LIVE, ACTED, "the claim that says who it is")
    oauth_map: str = row(TEXT, "", LIVE, ACTED, "map of auth_ident_file from that claim to users; empty = no map")
    oauth_allow_plain: bool = row(
        TRUTH, False, LIVE, ACTED, "take tokens without TLS from other machines; whoever reads one can use it"
    )
    login_notify_message: str = row(TEXT, "", LIVE, ACTED, "notice to each client after its login")
    application_name_add_host: bool = row(TRUTH, False, LIVE, ACTED, "add the client's address to application_name")
    admin_users: tuple[str, ...] = row(NAMES, (), LIVE, ACTED, "who may do everything on the console, comma between")
    stats_users: tuple[str, ...] = row(NAMES, (), LIVE, ACTED, "who may only look on the console, comma between")

    # Pools.
    pool_mode: PoolMode = row(
        POOL_MODE, PoolMode.TRANSACTION, LIVE, ACTED, "a server is given back after: session, transaction, statement"
    )
    default_pool_size: int | None = row(COUNT_OR_OFF, 20, LIVE, ACTED, "servers per (database, user); 0 = no limit")
    min_pool_size: int = row(COUNT, 0, LIVE, ACTED, "servers per pool kept open, also when nobody needs them")
    reserve_pool_size: int = row(COUNT, 0, LIVE, ACTED, "servers a pool may add for clients that wait too long")
    reserve_pool_timeout: float | None = row(SECONDS_OR_OFF, 5.0, LIVE, ACTED, "wait before it does; 0 = never")
    max_client_conn: int = row(COUNT, 100, LIVE, ACTED, "clients in all, the console's not counted")
    max_db_connections: int | None = row(COUNT_OR_OFF, None, LIVE, ACTED, "servers per database; 0 = no limit")
    max_user_connections: int | None = row(COUNT_OR_OFF, None, LIVE, ACTED, "servers per user; 0 = no limit")
    max_db_client_connections: int | None = row(COUNT_OR_OFF, None, LIVE, ACTED, "clients per database; 0 = no limit")
    max_user_client_connections: int | None = row(COUNT_OR_OFF, None, LIVE, ACTED, "clients per user; 0 = no limit")
    server_round_robin: bool = row(TRUTH, False, LIVE, ACTED, "use servers in turn rather than the last used first")
    pool_idle_timeout: float | None = row(
        SECONDS_OR_OFF, None, LIVE, ACTED, "a pool without clients is forgotten; 0 = never"
    )
    autodb_idle_timeout: float | None = row(
        SECONDS_OR_OFF, 3600.0, LIVE, ACTED, "an unused * database is forgotten; 0 = never"
    )

    # Clients: how long they may wait, run and idle.
    client_login_timeout: float | None = row(SECONDS_OR_OFF, 60.0, LIVE, ACTED, "longest login; 0 = no limit")
    client_idle_timeout: float | None = row(
        SECONDS_OR_OFF, None, LIVE, ACTED, "idle outside a transaction; 0 = no limit"
    )
    idle_transaction_timeout: float | None = row(
        SECONDS_OR_OFF, None, LIVE, ACTED, "idle inside a transaction; 0 = no limit"
    )
    transaction_timeout: float | None = row(SECONDS_OR_OFF, None, LIVE, ACTED, "longest transaction; 0 = no limit")
    query_timeout: float | None = row(SECONDS_OR_OFF, None, LIVE, ACTED, "longest query; 0 = no limit")
    query_wait_timeout: float | None = row(
        SECONDS_OR_OFF, 120.0, LIVE, ACTED, "longest wait for a server; 0 = for ever"
    )
    query_wait_notify: float | None = row(
        SECONDS_OR_OFF, 5.0, LIVE, ACTED, "a waiting client gets a notice, the log a warning; 0 = never"
    )
    cancel_wait_timeout: float | None = row(
        SECONDS_OR_OFF, 10.0, LIVE, ACTED, "longest wait of a cancel request; 0 = no limit"
    )

    # Clients: what they may say.
    ignore_startup_parameters: tuple[str, ...] = row(
        NAMES, (), LIVE, ACTED, "startup parameters to overlook, comma between"
    )
    track_extra_parameters: tuple[str, ...] = row(
        NAMES, ("IntervalStyle",), RESTART, ACTED, "reported parameters kept per client beyond the usual ones"
    )
    max_packet_size: int = row(PACKET_SIZE, 2147483647, LIVE, ACTED, "largest message taken, bytes")
    max_prepared_statements: int = row(COUNT, 200, LIVE, ACTED, "named statements kept per server; 0 = off")
    session_state: SessionState = row(
        SESSION_STATE, SessionState.TRACK, LIVE, ACTED, "changes of a session: track, reset, leak, audit"
    )
    listen_mode: ListenMode = row(LISTEN_MODE, ListenMode.SHARED, LIVE, ACTED, "LISTEN without a session: shared, pin")
    pin_functions: tuple[str, ...] = row(
        NAMES, ("dblink_connect", "dblink_connect_u"), LIVE, ACTED, "functions that tie a client to its server"
    )
    pipeline_depth: int = row(COUNT, 1, LIVE, ACTED, "clients' reads that may stand in line on one server; 1 = none")
    pipeline_servers: int = row(COUNT, 0, LIVE, ACTED, "servers with such lines, per pool; 0 = as many as seem good")
    pipeline_max_ms: int = row(COUNT, 5, LIVE, ACTED, "milliseconds a statement may take, on average, to share a line")
    pipeline_max_bytes: int = row(COUNT, 16384, LIVE, ACTED, "bytes an answer may have, to share a line")
    pipeline_stall_ms: int = row(COUNT, 200, LIVE, ACTED, "milliseconds after which a line that stands still is left")
    pipeline_group: int = row(COUNT, 32, LIVE, ACTED, "of those, how many may share one transaction; 1 = none")
    pipeline_group_min: int = row(COUNT, 5, LIVE, ACTED, "fewer that are sent together share none: it would not pay")
    pipeline_functions: tuple[str, ...] = row(NAMES, (), LIVE, ACTED, "functions whose callers may share a line")
    track_statements: bool = row(TRUTH, False, LIVE, ACTED, "measure every statement, for SHOW STATEMENTS")
    deferred_begin: bool = row(TRUTH, True, LIVE, ACTED, "a lone BEGIN waits for the statement after it")
    disable_pqexec: bool = row(TRUTH, False, RESTART, ACTED, "refuse the simple query protocol")

    # Servers: opening, checking, cleaning, closing.
    server_connect_timeout: float | None = row(SECONDS_OR_OFF, 15.0, LIVE, ACTED, "connect and login; 0 = no limit")
    server_login_retry: float = row(SECONDS, 15.0, LIVE, ACTED, "longest pause after a failed server login")
    server_lifetime: float = row(SECONDS, 3600.0, LIVE, ACTED, "a server older than this is closed; 0 = used once")
    server_idle_timeout: float | None = row(
        SECONDS_OR_OFF, 600.0, LIVE, ACTED, "unused this long, it is closed; 0 = never"
    )
    server_check_delay: float = row(SECONDS, 30.0, LIVE, ACTED, "a server idle longer is checked first; 0 = always")
    server_check_query: str | None = row(
        CHECK_QUERY, "", LIVE, ACTED, "the check; <empty> = an empty query; blank = none"
    )
    server_reset_query: str = row(TEXT, "DISCARD ALL", LIVE, ACTED, "cleans a server after a session")
    server_reset_query_always: bool = row(TRUTH, False, LIVE, ACTED, "run it in the other pool modes too")
    server_fast_close: bool = row(TRUTH, False, LIVE, ACTED, "in session mode, close outdated servers sooner")

    # Log.
    logfile: str = row(TEXT, "", LIVE, ACTED, "log file, opened anew on SIGHUP; empty = stderr")
    log_connections: bool = row(TRUTH, True, LIVE, ACTED, "log logins, and new connections to servers")
    log_disconnections: bool = row(TRUTH, True, LIVE, ACTED, "log closed connections, with the reason")
    log_pooler_errors: bool = row(TRUTH, True, LIVE, ACTED, "log the errors we send to clients")
    log_stats: bool = row(TRUTH, True, LIVE, ACTED, "log a line of numbers each stats_period")
    stats_period: float = row(DURATION, 60.0, LIVE, ACTED, "over how many seconds averages are taken")
    verbose: int = row(COUNT, 0, LIVE, ACTED, "more words in the log, as -v")
    log_format: Format = row(LOG_FORMAT, Format.TEXT, LIVE, ACTED, "text as PgBouncer's, or json: one object per line")
    syslog: bool = row(TRUTH, False, LIVE, ACTED, "log to syslog too")
    syslog_facility: str = row(FACILITY, "daemon", LIVE, ACTED, "daemon, user, local0 to local7 and their kin")
    syslog_ident: str = row(TEXT, "pgbouncer", LIVE, ACTED, "name in syslog")

    # The process.
    user: str = row(TEXT, "", RESTART, ACTED, "account to become when started as root")
    pidfile: str = row(TEXT, "", RESTART, ACTED, "file for the process id; empty = none")
    conffile: str = row(TEXT, "", LIVE, ACTED, "file the next RELOAD reads; empty = this one")
    job_name: str = row(TEXT, "pgbouncer", RESTART, ACTED, "name of the process, its first 15 bytes")
    batch_scheduling: bool = row(TRUTH, True, RESTART, ACTED, "on a busy machine, let PostgreSQL finish what it is at")
    busy_poll_us: int = row(
        BUSY_POLL, 0, LIVE, ACTED, "microseconds to stay awake for an answer where one client is at work"
    )
    io_uring: bool = row(TRUTH, True, RESTART, ACTED, "tell many with one system call, where the kernel lets us")
    service_name: str = row(TEXT, "", RESTART, NO_WINDOWS, "name of a Windows service")
    suspend_timeout: float | None = row(
        SECONDS_OR_OFF, 10.0, LIVE, ACTED, "SUSPEND: longest wait for who does not read; 0 = no limit"
    )
    shutdown_timeout: float | None = row(
        SECONDS_OR_OFF, None, LIVE, ACTED, "longest wait of a gentle end (INT, TERM), then at once; 0 = no limit"
    )
    peer_id: int | None = row(PEER_ID, None, LIVE, ACTED, "our own number among the [peers]; 0 = none")
    pkt_buf: int = row(COUNT, 4096, RESTART, NO_BUFFERS, "buffer per connection, bytes")
    sbuf_loopcnt: int = row(COUNT, 5, LIVE, NO_BUFFERS, "reads from one connection before others have a turn")

    # Names of database hosts.
    dns_max_ttl: float = row(SECONDS, 15.0, LIVE, ACTED, "how long the addresses of a name are kept")
    dns_nxdomain_ttl: float = row(SECONDS, 15.0, LIVE, ACTED, "how long it is kept that a name was not found")
    dns_zone_check_period: float | None = row(
        SECONDS_OR_OFF, None, LIVE, NO_ZONES, "how often zones are checked; 0 = never"
    )
    resolv_conf: str = row(TEXT, "", RESTART, NO_ZONES, "file with name servers; empty = the system's")

    # TLS towards clients.
    client_tls_sslmode: SslMode = row(
        SSL_MODE, SslMode.DISABLE, LIVE, ACTED, "disable, allow, prefer, require, verify-ca, verify-full"
    )
    client_tls_cert_file: str = row(TEXT, "", LIVE, ACTED, "certificate shown to clients")
    client_tls_key_file: str = row(TEXT, "", LIVE, ACTED, "its private key")
    client_tls_ca_file: str = row(TEXT, "", LIVE, ACTED, "CA that clients' certificates are checked with")
    client_tls_protocols: str = row(TEXT, "secure", LIVE, ACTED, "versions: secure (1.2, 1.3), all, or a list")
    client_tls_ciphers: str = row(TEXT, "default", LIVE, ACTED, "ciphers up to TLS 1.2")
    client_tls13_ciphers: str = row(TEXT, "", LIVE, ACTED, "ciphers of TLS 1.3; empty = the usual three")
    client_tls_dheparams: str = row(TEXT, "auto", LIVE, ACTED, "none, auto or legacy: only ECDHE is offered")
    client_tls_ecdhcurve: str = row(TEXT, "auto", LIVE, ACTED, "none, auto or a curve's name")

    # TLS towards servers.
    server_tls_sslmode: SslMode = row(SSL_MODE, SslMode.PREFER, LIVE, ACTED, "disable, allow ... verify-full")
    server_tls_cert_file: str = row(TEXT, "", LIVE, ACTED, "certificate shown to servers")
    server_tls_key_file: str = row(TEXT, "", LIVE, ACTED, "its private key")
    server_tls_ca_file: str = row(TEXT, "", LIVE, ACTED, "CA that servers' certificates are checked with")
    server_tls_protocols: str = row(TEXT, "secure", LIVE, ACTED, "versions: secure (1.2, 1.3), all, or a list")
    server_tls_ciphers: str = row(TEXT, "default", LIVE, ACTED, "ciphers up to TLS 1.2")
    server_tls13_ciphers: str = row(TEXT, "", LIVE, ACTED, "ciphers of TLS 1.3")
    server_tls_negotiation: TlsNegotiation = row(
        TLS_NEGOTIATION, TlsNegotiation.POSTGRES, LIVE, ACTED, "postgres = ask for TLS; direct = begin with it (17+)"
    )


SETTINGS: Final = table_of(Settings)


def defaults(section: str = "proxy") -> Settings:
    """What holds when the main section `section` says nothing."""
    return Settings(pool_mode=PoolMode.SESSION) if section == "pgbouncer" else Settings()


def format_setting(settings: Settings, name: str) -> str:
    """The text SHOW CONFIG prints for the setting `name`."""
    return SETTINGS[name].kind.format(getattr(settings, name))


def assign(settings: Settings, name: str, text: str) -> Settings:
    """The settings with `name` set to what `text` says. ValueError says what is wrong; KeyError: no such setting."""
    return dataclasses.replace(settings, **{name: SETTINGS[name].kind.parse(text)})
