"""
PgBouncer's files mean to us what they mean to PgBouncer: Debian's pgbouncer reads each case too, and both are asked.

Theory. ALIKE are cases in which nothing may differ that both know. DIFFERENT are those in which something does, with
every difference and the reason for it: the table of what we do otherwise on purpose. The oracle is the release 1.18, so
some differences are only its age; those that no case is about are in ALWAYS.
"""

import os
import re
from pathlib import Path

import pytest

from proxy.config.check import report
from proxy.config.ini import read
from tests.live.tools.needed import need_file, need_program
from tests.live.tools.oracle import MAIN, Case, Ours, Theirs, Verdict, differences, judge

pytestmark = pytest.mark.live

ALWAYS = {
    "config.client_tls_ciphers.value": "its default is `default` since 1.23",
    "config.server_tls_ciphers.value": "its default is `default` since 1.23",
    "config.server_tls_sslmode.value": "its default is prefer since 1.22",
    "config.server_check_query.value": "its default is <empty> since 1.22",
    "config.unix_socket_mode.value": "PgBouncer prints the octal number it was given in decimal",
    "databases.pgbouncer.max_connections": "the console has no servers, so no limit of theirs",
}

D = "[databases]\n"
U = "[users]\n"
NEST = {f"i{n}.ini": f"[databases]\nd{n} = host=h\n%include {{folder}}/i{n + 1}.ini\n" for n in range(1, 10)}

ALIKE = {
    "nothing said": Case(),
    "comments": Case("; x\n# y\n  ; default_pool_size = 1\n#default_pool_size=2\ndefault_pool_size = 7\n"),
    "no comment behind a number": Case("default_pool_size = 7 ; seven\n"),
    "no comment behind a text": Case("job_name = a ; b # c\n"),
    "octal": Case("default_pool_size = 017\nmin_pool_size = 00\n"),
    "hexadecimal": Case("default_pool_size = 0x1F\nmax_client_conn=0X20\n"),
    "a plus": Case("default_pool_size = +5\n"),
    "no octal": Case("default_pool_size = 08\n"),
    "no number": Case("default_pool_size =\n"),
    "a fraction of a server": Case("default_pool_size = 5.0\n"),
    "times": Case(
        "server_lifetime = 1.5\nserver_idle_timeout=0.25\nquery_timeout = 1e3\nquery_wait_timeout = 123456789\n"
        "client_idle_timeout = 1234567.25\nserver_connect_timeout = 5.\nserver_login_retry = +.5\n"
        "autodb_idle_timeout = 010\n"
    ),
    "a negative time": Case("server_lifetime = -1\n"),
    "a time with a unit": Case("server_lifetime = 1h\n"),
    "no time": Case("server_lifetime =\n"),
    "words in any case": Case("pool_mode = TransAction\nauth_type = TRUST\n"),
    "an unknown word": Case("pool_mode = sess\n"),
    "the last one counts": Case("default_pool_size = 3\ndefault_pool_size = 4\n"),
    "the first one must be right": Case("default_pool_size = x\ndefault_pool_size = 4\n"),
    "indented": Case("   \tdefault_pool_size\t=\t9   \n"),
    "no blanks": Case("default_pool_size=9\n"),
    "Windows' ends of lines": Case("default_pool_size = 9\r\n[databases]\r\na = host=h port=1\r\n"),
    "form feeds": Case("\f\v\ndefault_pool_size = 9\v\n"),
    "empty texts": Case("pidfile =\nlogfile=\nserver_reset_query =\nserver_check_query =\n"),
    "no newline at the end": Case("default_pool_size = 4"),
    "an unknown key": Case("no_such = 1\n"),
    "a key in capitals": Case("Default_Pool_Size = 3\n"),
    "an unknown section": Case("[other]\na = 1\n"),
    "a section in capitals": Case("[DATABASES]\na = host=h\n"),
    "blanks in a section": Case("[ databases ]\na = host=h\n"),
    "no main section": Case(whole="[databases]\na = host=h\n"),
    "a key before the section": Case(whole="default_pool_size = 1\n" + MAIN),
    "a section and a key on one line": Case("[databases] a = host=h port=3\n"),
    "two sections on one line": Case("[databases][users] ann = pool_mode=session\n"),
    "an open section": Case("[databases\na = host=h\n"),
    "no equals sign": Case("default_pool_size 3\n"),
    "an equals sign on the next line": Case("default_pool_size\n= 3\n"),
    "quotes are part of a value": Case("job_name = \"x y\"\nsyslog_ident = 'x y'\n"),
    "other sections twice": Case(f"{D}a=host=h\n{U}u=pool_mode=session\n{D}b=host=h\na=host=i\n"),
    "lists as written": Case(
        "admin_users = adm, b ,c\nstats_users = x,y z\nignore_startup_parameters = a,b, c\n"
    ),
    "a list of addresses": Case("listen_addr = 127.0.0.1 ,::1\n"),
    "TLS words": Case("client_tls_protocols = tlsv1.2,tlsv1.3\nserver_tls_ciphers = secure\n"),
    "syslog": Case("syslog_ident = me\nsyslog_facility = local3\n"),
    "a check query": Case("server_check_query = select 1; select 2\n"),
    "an empty check query": Case("server_check_query = <empty>\n"),
    "a tilde is a tilde": Case("auth_hba_file = ~/hba\nresolv_conf = ~nobody/x\n"),
    "auth_query": Case("auth_user = me\nauth_query = select 1\n"),
    "buffers": Case("pkt_buf = 8192\nsbuf_loopcnt=0\nverbose=1\nlisten_backlog = 0\n"),
    "keepalive": Case("tcp_keepalive = 0\ntcp_keepidle=30\ntcp_keepcnt=0x3\ntcp_user_timeout = 100\n"),
    "a comment in another encoding": Case("; Schl\udcfcssel\n"),
    # databases
    "an entry of every key": Case(
        f"{D}a = host=127.0.0.1 port=5433 dbname=x user=u password='p''w' pool_size=3 min_pool_size=1 reserve_pool=2 "
        "max_db_connections=9 pool_mode=statement connect_query='select 1' client_encoding=latin1 datestyle=iso "
        "timezone=utc application_name='a b'\n" + 'u = user=u\n[users]\nu = pool_mode=session\n'
    ),
    "an entry without a word": Case(f"{D}a =\n"),
    "an entry takes what is everywhere": Case(
        f"default_pool_size=5\nmin_pool_size=2\nreserve_pool_size=3\npool_mode=statement\nmax_db_connections=4\n{D}a=host=h\n"
    ),
    "zeros in an entry": Case(
        f"max_db_connections=5\nreserve_pool_size=3\nmin_pool_size=2\n{D}"
        "a = host=h max_db_connections=0 pool_size=0 min_pool_size=0 reserve_pool=0\n"
    ),
    "minus one in an entry": Case(f"default_pool_size=5\n{D}a = host=h pool_size=-1 min_pool_size=-1\n"),
    "numbers of an entry are decimal": Case(f"{D}a = host=h port=010 pool_size=007\n"),
    "characters of a name": Case(f"{D}a.b-c_D1* = host=h\n"),
    "a name with @": Case(f"{D}a@b = host=h\n"),
    "a name in UTF-8 without quotes": Case(f"{D}größe = host=h\n"),
    "autodb": Case(f"{D}* = host=h port=99 user=u\nb = host=h\n"),
    "a reserved name": Case(f"{D}pgbouncer = host=h\n"),
    "a name of 63 bytes": Case(f"{D}{'a' * 63} = host=h\n"),
    "a name of 64 bytes": Case(f"{D}{'a' * 64} = host=h\n"),
    "blanks around the equals sign of an entry": Case(f"{D}a = host = h port =3\n"),
    "a quote inside a value": Case(f"{D}a = host=h connect_query=x'y\n"),
    "a backslash is one": Case(f"{D}a = host=h\\ user='a\\'\n{U}a\\ = pool_mode=session\n"),
    "the last of an entry's keys counts": Case(f"{D}a = host=h1 port=1 host=h2\n"),
    "the last entry of a name counts": Case(f"{D}a = host=h1 pool_size=3\na = host=h2\n"),
    "an entry's unknown key": Case(f"{D}a = host=h colour=red\n"),
    "an entry's key in capitals": Case(f"{D}a = HOST=h\n"),
    "an entry's key alone": Case(f"{D}a = host=h user\n"),
    "an open quote": Case(f"{D}a = host=h password='x\n"),
    "text behind a quote": Case(f"{D}a = host='h'port=3\n"),
    "port 0": Case(f"{D}a = host=h port=0\n"),
    "a port of letters": Case(f"{D}a = host=h port=abc\n"),
    "an entry's mode in capitals": Case(f"{D}a = host=h pool_mode=SESSION\n"),
    "an entry's unknown mode": Case(f"{D}a = host=h pool_mode=x\n"),
    "several hosts": Case(f"{D}a = host=h1,h2 port=3\n"),
    "Unix sockets": Case(f"{D}a = host=/tmp port=3\nb = port=5\nc=\nd = host=@x\n"),
    # users
    "users": Case(f"{U}ann = pool_mode=transaction max_user_connections=4\nbob =\n* = pool_mode=session\n"),
    "a user of 127 bytes": Case(f"{U}{'u' * 127} = pool_mode=session\n"),
    "a user's unknown key": Case(f"{U}ann = pool_mode=session colour=red\n"),
    # includes
    "ten levels of includes": Case("%include {folder}/i1.ini\n", files=NEST | {"i10.ini": "d10 = host=h\n"}),
    "eleven levels of includes": Case(
        "%include {folder}/i1.ini\n", files=NEST | {"i10.ini": "%include {folder}/i11.ini\n", "i11.ini": ""}
    ),
    "a file that includes itself": Case("%include {folder}/p.ini\n"),
    "an include from the working directory": Case(
        "%include sub/x.ini\ndefault_pool_size=3\n",
        files={"sub/x.ini": "max_client_conn=7\n%include x.ini", "x.ini": ""},
    ),
    "an include changes the section": Case(
        "%include {folder}/x.ini\nb=host=h\n", files={"x.ini": "max_client_conn=7\n[databases]\na=host=h"}
    ),
    "blanks around an include": Case("  %include \t {folder}/x.ini  \r\n", files={"x.ini": "max_client_conn=7\n"}),
    "a missing include": Case("%include {folder}/nope.ini\n"),
    "an include of nothing": Case("%include\n"),
    "another directive": Case("%define x\n"),
    # RELOAD
    "what is removed goes back to its default": Case(
        f"default_pool_size = 3\npool_mode=statement\nquery_timeout=3\n{D}"
        "a=host=h pool_size=4 pool_mode=session\nb=host=h\n",
        reload=f"{D}a=host=h\nc=\n",
    ),
    "what needs a restart keeps its value": Case(
        "listen_backlog = 3\n", reload="listen_backlog=9\npkt_buf=8192\njob_name=x\nunix_socket_dir=/nowhere\n"
    ),
    # auth_file
    "a list of users": Case(users='; c\n\n  "adm" "x" rest "of" line\n"b"\t"y"\r\n"a""b" "c""d"\n"é" "ü"\n"e f" ""\n'),
    "a user twice": Case(users='"adm" "x"\n"adm" "y"\n'),
    "secrets": Case(users='"adm" "x"\n"b" "md5d577273ff885c3f84dadb8578bb41399"\n"u" "' + "c" * 1900 + '"\n'),
    "a listed user of 127 bytes": Case(users='"adm" "x"\n"' + "u" * 127 + '" "y"\n"z" "z"\n'),
}  # fmt: skip

STRICT = "PgBouncer takes a nonsense for something else, silently"
LENIENT = "we take more"
NEWER = "PgBouncer has it since a later release than the oracle's"
REFUSED = {"accepted": (True, False)}
TAKEN = {"accepted": (False, True)}

DIFFERENT: dict[str, tuple[str, dict[str, object], Case]] = {
    "a negative size": (STRICT, REFUSED, Case("default_pool_size = -5\n")),
    "more than an int": (STRICT, REFUSED, Case("default_pool_size = 4294967301\n")),
    "time without end": (STRICT, REFUSED, Case("server_lifetime = inf\n")),
    "no number as a time": (STRICT, REFUSED, Case("server_lifetime = nan\n")),
    "a time in hexadecimal": (STRICT, REFUSED, Case("server_lifetime = 0x10\n")),
    "more than 300 years": (STRICT, REFUSED, Case("server_lifetime = 1e12\n")),
    "averages over no time": (STRICT, REFUSED, Case("stats_period = 0\n")),
    "a truth that is a number": ("it is a truth", {"config.log_stats.value": ("2", "1")}, Case("log_stats = 2\n")),
    "a truth of older releases": (
        "it is a truth", {"config.tcp_defer_accept.value": ("45", "1")}, Case("tcp_defer_accept = 45\n")
    ),
    "a truth in words": (LENIENT, TAKEN, Case("server_round_robin = on\n")),
    "a quoted key": (NEWER, TAKEN, Case('"default_pool_size" = 3\n')),
    "quoted names": (NEWER, TAKEN, Case(f'{D}"q""q é" = host=h\n{U}"a b" = pool_mode=session\n')),
    "reserve_pool_size": (NEWER, TAKEN, Case(f"{D}a = host=h reserve_pool_size=2\n")),
    "the main section twice": (
        "since 1.26 it is gone on with; before, all that was said first was forgotten",
        {"config.default_pool_size.value": ("20", "3")},
        Case("default_pool_size = 3\n" + MAIN + "max_client_conn = 55\n"),
    ),
    "a byte order mark": (LENIENT, TAKEN, Case(whole="\ufeff" + MAIN)),
    "a zero byte": ("PgBouncer stops reading there", REFUSED, Case("default_pool_size = 4\n\0pool_mode = x\n")),
    "another encoding": ("only comments may be in any", REFUSED, Case(f"{D}a = host=h user=u password=\udcfc\n")),
    "our console's name": ("it is the console's second name", REFUSED, Case(f"{D}pgshuttle = host=h\n")),
    "a dbname of 64 bytes": ("PostgreSQL would cut it", REFUSED, Case(f"{D}x = dbname={'a' * 64}\n")),
    "a user of 128 bytes": ("PgBouncer cuts it", REFUSED, Case(f"{U}{'u' * 128} = pool_mode=session\n")),
    "a value that swallows the next key": (STRICT, REFUSED, Case(f"{D}a = host= port=3\n")),
    "a port beyond all ports": (STRICT, REFUSED, Case(f"{D}a = host=h port=70000\n")),
    "a size of letters": (STRICT, REFUSED, Case(f"{D}a = host=h pool_size=abc\n")),
    "a size in hexadecimal": (STRICT, REFUSED, Case(f"{D}a = host=h pool_size=0x10\n")),
    "an empty value in quotes": (LENIENT, TAKEN, Case(f"{D}a = host='' port=3\n")),
    "a tabulator in an entry": (
        "PgBouncer knows no blank but the space",
        {"databases.a.host": ("h\tport=3", "h"), "databases.a.port": ("5432", "3")},
        Case(f"{D}a = host=h\tport=3\n"),
    ),
    "a reload with a mistake": (
        "PgBouncer has put all to its default when it comes to the mistake; here nothing changes",
        {"config.default_pool_size.value": ("20", "3")},
        Case("default_pool_size = 3\n", reload="nope = 3\ndefault_pool_size = 4\n"),
    ),
    "a list of users that breaks": ("PgBouncer forgets the rest", REFUSED, Case(users='"adm" "x"\nbroken\n"c" "d"\n')),
    "a secret on the next line": (STRICT, REFUSED, Case(users='"adm" "x"\n"b"\n"c"\n')),
    "a user without a name": (STRICT, REFUSED, Case(users='"adm" "x"\n"" "y"\n')),
    "a listed user of 128 bytes": (
        "PgBouncer forgets the rest", REFUSED, Case(users=f'"adm" "x"\n"{"u" * 128}" "y"\n')
    ),
    "half a SCRAM secret": (
        "PgBouncer takes it for a password", REFUSED, Case(users='"adm" "x"\n"c" "SCRAM-SHA-256$4096:c2FsdA==$AA:BB"\n')
    ),
    "a comment with # among users": (
        "PgBouncer forgets the rest",
        {"users": (["adm", "pgbouncer"], ["adm", "b", "pgbouncer"])},
        Case(users='"adm" "x"\n# c\n"b" "c"\n'),
    ),
    "a password of 3,000 bytes": (
        NEWER,
        {"users": (["adm", "pgbouncer"], ["adm", "pgbouncer", "u"])},
        Case(users='"adm" "x"\n"u" "' + "c" * 3000 + '"\n'),
    ),
}  # fmt: skip


@pytest.fixture(name="theirs", scope="module")
def _theirs() -> Theirs:
    return Theirs(need_program("pgbouncer", "pgbouncer"))


@pytest.fixture(name="ours", scope="module")
def _ours() -> Ours:
    return Ours()


def differ(case: Case, theirs: Verdict, ours: Verdict) -> dict[str, object]:
    """Without those of ALWAYS, unless the case is about them."""
    found = differences(theirs, ours)
    return {
        name: value for name, value in found.items() if name not in ALWAYS or name.split(".")[1] + " =" in case.lines
    }


@pytest.mark.parametrize("name", ALIKE)
def test_a_file_means_what_it_means_to_pgbouncer(theirs, ours, name):
    one, other = judge(theirs, ALIKE[name]), judge(ours, ALIKE[name])
    assert differ(ALIKE[name], one, other) == {}, f"{one.log}\n{other.log}"
    if not other.accepted:
        assert re.search(r"^\S+(p|x|i\d+)\.ini(:\d+)?: ", other.log, re.MULTILINE), other.log


@pytest.mark.parametrize("name", DIFFERENT)
def test_where_we_differ_we_do_so_on_purpose(theirs, ours, name):
    reason, expected, case = DIFFERENT[name]
    one, other = judge(theirs, case), judge(ours, case)
    assert differ(case, one, other) == expected, f"{reason}\n{one.log}\n{other.log}"
    assert "Traceback" not in other.log


@pytest.mark.parametrize("path", ["/etc/pgbouncer/pgbouncer.ini", "/usr/share/doc/pgbouncer/examples/pgbouncer.ini"])
def test_debians_files_can_be_used_as_they_are_and_with_every_comment_taken_out(path, tmp_path):
    need_program("pgbouncer", "pgbouncer")
    if not os.access(need_file(path, "pgbouncer"), os.R_OK):
        pytest.skip(f"{path} is not for this user")
    lines, is_usable = report(path)
    assert is_usable, lines
    text = re.sub(r"^;(\w+ = ?.*)$", r"\1", Path(path).read_text(), flags=re.MULTILINE)
    text = re.sub(r"^(%include|.*<).*$", "", text, flags=re.MULTILINE)  # <system default> is no file
    (tmp_path / "all.ini").write_text(text)
    lines, is_usable = report(str(tmp_path / "all.ini"))
    assert is_usable, lines
    assert len(read(str(tmp_path / "all.ini")).databases) > 3


def test_the_cases_tell_refused_from_accepted(theirs):
    """Or a pooler that refuses everything would pass."""
    accepted = [name for name, case in list(ALIKE.items())[:20] if judge(theirs, case).accepted]
    assert 10 < len(accepted) < 20
