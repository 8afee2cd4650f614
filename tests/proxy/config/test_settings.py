"""The table of settings against PgBouncer's."""

import dataclasses

import pytest

from proxy.config.kinds import AuthType, PoolMode
from proxy.config.settings import (
    LIVE,
    RESTART,
    SETTINGS,
    Settings,
    assign,
    defaults,
    format_setting,
)

# Name and printed default of every key PgBouncer's documentation lists.
PGBOUNCER = """
admin_users= application_name_add_host=0 auth_dbname= auth_file= auth_hba_file= auth_ident_file= auth_ldap_options=
auth_type=md5 auth_user= autodb_idle_timeout=3600 cancel_wait_timeout=10 client_idle_timeout=0 client_login_timeout=60
client_tls13_ciphers= client_tls_ca_file= client_tls_cert_file= client_tls_key_file= client_tls_ciphers=default
client_tls_dheparams=auto client_tls_ecdhcurve=auto client_tls_protocols=secure client_tls_sslmode=disable conffile=
default_pool_size=20 disable_pqexec=0 dns_max_ttl=15 dns_nxdomain_ttl=15 dns_zone_check_period=0
idle_transaction_timeout=0 ignore_startup_parameters= job_name=pgbouncer listen_addr= listen_backlog=128
listen_port=6432 log_connections=1 log_disconnections=1 log_pooler_errors=1 log_stats=1 logfile= login_notify_message=
max_client_conn=100 max_db_client_connections=0 max_db_connections=0 max_packet_size=2147483647
max_prepared_statements=200 max_user_client_connections=0 max_user_connections=0 min_pool_size=0 peer_id=0 pidfile=
pkt_buf=4096 pool_mode=session pool_idle_timeout=0 query_timeout=0 query_wait_notify=5 query_wait_timeout=120
reserve_pool_size=0 reserve_pool_timeout=5 resolv_conf= sbuf_loopcnt=5 scram_iterations=4096 server_check_delay=30
server_check_query=<empty> server_connect_timeout=15 server_fast_close=0 server_idle_timeout=600 server_lifetime=3600
server_login_retry=15 server_reset_query_always=0 server_round_robin=0 server_tls13_ciphers= server_tls_ca_file=
server_tls_cert_file= server_tls_key_file= server_tls_ciphers=default server_tls_protocols=secure
server_tls_sslmode=prefer service_name= so_reuseport=0 stats_period=60 stats_users= suspend_timeout=10 syslog=0
syslog_facility=daemon syslog_ident=pgbouncer tcp_defer_accept=1 tcp_keepalive=1 tcp_keepcnt=0 tcp_keepidle=0
tcp_keepintvl=0 tcp_socket_buffer=0 tcp_user_timeout=0 track_extra_parameters=IntervalStyle transaction_timeout=0
unix_socket_dir=/tmp unix_socket_group= unix_socket_mode=0777 user= verbose=0
"""
EXPECTED = dict(word.split("=") for word in PGBOUNCER.split())
WITH_BLANKS = {"auth_query", "server_reset_query"}
OURS = {
    "auth_failure_delay": "5",
    "auth_query_ttl": "10",
    "batch_scheduling": "1",
    "busy_poll_us": "0",
    "deferred_begin": "1",
    "io_uring": "1",
    "listen_mode": "shared",
    "log_format": "text",
    "max_half_open": "0",
    "oauth_allow_plain": "0",
    "oauth_audience": "",
    "oauth_issuer": "",
    "oauth_jwks": "",
    "oauth_map": "",
    "oauth_scope": "",
    "oauth_user_claim": "sub",
    "pam_service": "pgbouncer",
    "pipeline_depth": "1",
    "pipeline_functions": "",
    "pipeline_max_bytes": "16384",
    "pipeline_max_ms": "5",
    "pipeline_servers": "0",
    "pipeline_stall_ms": "200",
    "pipeline_group": "32",
    "pipeline_group_min": "5",
    "proxy_protocol_from": "",
    "server_tls_negotiation": "postgres",
    "session_state": "track",
    "shutdown_timeout": "0",
    "track_statements": "0",
}
OURS_WITH_BLANKS = {"pin_functions"}


def test_every_setting_of_pgbouncer_is_a_row_and_some_of_our_own() -> None:
    assert set(SETTINGS) == set(EXPECTED) | WITH_BLANKS | set(OURS) | OURS_WITH_BLANKS


def test_our_own_settings_have_defaults() -> None:
    assert {name: format_setting(defaults(), name) for name in OURS} == OURS
    assert defaults().pin_functions == ("dblink_connect", "dblink_connect_u")


def test_under_a_pgbouncer_section_the_printed_defaults_are_pgbouncers() -> None:
    settings = defaults("pgbouncer")
    assert {name: format_setting(settings, name) for name in EXPECTED} == EXPECTED
    assert settings.server_reset_query == "DISCARD ALL"
    assert "rolvaliduntil < now()" in settings.auth_query


def test_under_a_proxy_section_only_the_pool_mode_differs() -> None:
    assert defaults("proxy") == dataclasses.replace(defaults("pgbouncer"), pool_mode=PoolMode.TRANSACTION)
    assert defaults().auth_type is AuthType.MD5


def test_every_default_survives_printing_and_reading() -> None:
    for setting in SETTINGS.values():
        assert setting.kind.parse(setting.default_text) == setting.default


def test_what_pgbouncer_cannot_reload_needs_a_restart() -> None:
    names = {name for name, setting in SETTINGS.items() if setting.reload is RESTART}
    assert names == set(
        "batch_scheduling disable_pqexec io_uring job_name listen_addr listen_backlog listen_port pidfile pkt_buf "
        "resolv_conf service_name so_reuseport track_extra_parameters unix_socket_dir unix_socket_group "
        "unix_socket_mode user".split()
    )
    assert SETTINGS["default_pool_size"].reload is LIVE


def test_every_setting_has_words_and_those_without_effect_a_reason() -> None:
    for setting in SETTINGS.values():
        assert setting.words
        assert setting.acted == (setting.reason == "")
        assert not setting.words.endswith(".")
    assert SETTINGS["default_pool_size"].acted
    assert "event loop" in SETTINGS["pkt_buf"].reason


def test_settings_are_frozen_and_assigning_makes_new_ones() -> None:
    settings = defaults()
    changed = assign(settings, "query_timeout", "2.5")
    assert (settings.query_timeout, changed.query_timeout) == (None, 2.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.query_timeout = 1.0  # type: ignore[misc]


def test_assigning_nonsense_says_why() -> None:
    with pytest.raises(ValueError, match="outside 0 to 65535"):
        assign(Settings(), "listen_port", "70000")
    with pytest.raises(KeyError):
        assign(Settings(), "no_such_thing", "1")
