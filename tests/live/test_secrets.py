"""
Planted secrets: a noisy life of the proxy, after which none of them may be found in anything it has said.

Theory. Every secret is a word that occurs nowhere else: those of the files, those that clients type, right ones and
wrong ones, in every place where somebody might put one by mistake. The log is at its noisiest; everything goes wrong
once. Then the log, every SHOW, every answer to a client and what the system shows of the process are searched.
"""

import contextlib
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from proxy.admin.rights import RIGHTS
from tests.live.stand import ROOT, Stand, wait_until
from tests.live.upstream import PASSWORD
from tests.live.wire import Gone, Raw, cancel_request, md5_secret, message, scram_secret, startup

pytestmark = pytest.mark.live

PLAIN, TYPED, WRONG, ENTRY, UNUSED = "PlantedPlain", "PlantedTyped", "PlantedWrong", "PlantedEntry", "PlantedUnused"
BROKEN, LDAP, STARTUP, QUERY = "PlantedBroken", "PlantedLdap", "PlantedStartup", "PlantedQuery"
SCRAM = scram_secret("PlantedScram", iterations=4096)
MD5 = md5_secret("hashed", "PlantedMd5")


def find_planted(text):
    """Planted words, and what is made of them: hashes, verifiers."""
    made = [*re.split(r"[$:]", SCRAM)[2:], MD5[3:]]
    made += [hashlib.md5(word.encode()).hexdigest() for word in (PLAIN, WRONG)]
    return set(re.findall(r"Planted\w+", text)) | {word for word in made if word in text}


def stand_for(upstream, auth_type, **more):
    quoted = PASSWORD.replace("'", "''")
    return Stand(
        upstream,
        {
            "auth_type": auth_type,
            "verbose": 9,
            "auth_failure_delay": "0.01",
            "auth_ldap_options": f"ldapbindpasswd={LDAP}",
        }
        | more,
        databases={
            "postgres": f"user=app password='{quoted}'",
            "elsewhere": f"host=127.0.0.1 port=1 user=app password={ENTRY}",
            "refused": f"user=app password={UNUSED} dbname=nowhere",
        },
        secrets={"postgres": PLAIN, "scram": SCRAM, "hashed": MD5, "plain": TYPED},
    )


def fail_in_every_way(stand, heard):
    """All that is heard by those who are turned away, and by one who is let in."""
    for user, word in [("plain", WRONG), ("scram", WRONG), ("hashed", WRONG), ("nobody", WRONG), (WRONG[7:], WRONG)]:
        with Raw(stand.port) as line:
            heard += line.login(user, "postgres", word)
    for said in (
        startup("plain", "postgres", password=STARTUP),
        startup("plain", "postgres", options=f"-c password={STARTUP}"),
        startup("plain", "postgres", PGPASSWORD=STARTUP, passfile=STARTUP),
        startup("plain", "postgres") + message("Q", f"alter user x password '{QUERY}'\0".encode()),
        startup("plain", "postgres") + message("p", f"{WRONG}\0trailing\0".encode()),
        startup("plain", "postgres") + message("p", WRONG.encode()),
        startup("plain", "postgres") + message("p", b"SCRAM-SHA-256\0\0\0\0\x20" + WRONG.encode()),
        cancel_request(b"Planted1"),
        cancel_request(b"Planted2" * 4),
    ):
        with Raw(stand.port) as line:
            line.send(said)
            line.socket.shutdown(1)
            heard += line.read_to_end()
    for database in ("postgres", "elsewhere", "refused"):
        with Raw(stand.port) as line:
            heard += line.login("plain", database, TYPED)
            if line.key:
                heard += line.ask("select 1/0")
                line.send(b"z\0\0\0\x0c" + QUERY.encode()[:8])
                heard += line.read_to_end()


def look_at_everything(stand):
    """Every SHOW, RELOAD CHECK, and a few commands with secrets in them."""
    seen = []
    with stand.connect("postgres", "pgbouncer", password=PLAIN, cursor_factory=psycopg.ClientCursor) as console:
        notices = []
        console.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
        for command in [name for name in RIGHTS if name.startswith("SHOW")] + ["RELOAD CHECK"]:
            cursor = console.execute(command)
            if cursor.description:
                seen += [str(row) for row in cursor.fetchall() if command != "SHOW FDS"]
        for command in (
            "SET auth_ldap_options = 'x'",
            f"SET auth_filee = '{BROKEN}'",
            f"ALTER USER x PASSWORD '{BROKEN}'",
        ):
            try:
                console.execute(command)
            except psycopg.Error as error:
                heard = str(error)
                assert BROKEN not in heard.replace(command, "") or command.startswith("ALTER")
        seen += notices
    return "\n".join(seen)


def make_mistakes(stand):
    """Files with secrets in the wrong places: each is refused, and the reload says why."""
    stand.mark()
    good = (stand.file.read_text(), stand.user_list.read_text())
    for line in (
        f"bad = host=db password='{BROKEN}",
        f"bad = host=db pasword={BROKEN}",
        f"bad = host=db password {BROKEN}",
        f"bad = {BROKEN}",
        f"bad = host=db port={'9' * 9} password={BROKEN}",
    ):
        stand.file.write_text(good[0].replace("[databases]", f"[databases]\n{line}"))
        stand.mark()
        stand.signal(1)
        stand.wait_log("reload failed")
    for line in (
        f'"x" "{BROKEN}',
        f'"x" {BROKEN}',
        f'x "{BROKEN}"',
        f'"x" "SCRAM-SHA-256$0:{BROKEN}$x:y"',
        f'"" "{BROKEN}"',
    ):
        stand.file.write_text(good[0])
        stand.user_list.write_text(good[1] + line + "\n")
        stand.mark()
        stand.signal(1)
        stand.wait_log("reload failed")
    stand.user_list.write_text(good[1])
    stand.mark()
    stand.file.write_text(good[0].replace(ENTRY, ENTRY + "Changed").replace(LDAP, LDAP + "Changed"))
    stand.signal(1)
    stand.wait_log("reloaded: ")


@pytest.mark.parametrize("auth_type", ["plain", "md5", "scram-sha-256"])
def test_no_planted_secret_is_found_in_anything_the_proxy_says(upstream, auth_type):
    with stand_for(upstream, auth_type) as stand:
        heard = []
        fail_in_every_way(stand, heard)
        seen = look_at_everything(stand)
        make_mistakes(stand)
        seen += look_at_everything(stand)
        said = b"".join(each.body for each in heard if each.kind != "R").decode(errors="replace")
        system = "".join(
            Path(f"/proc/{stand.pid}/{name}").read_text(errors="replace")
            for name in ("cmdline", "environ", "comm", "status")
        )
        threads = "".join(path.read_text() for path in Path(f"/proc/{stand.pid}/task").glob("*/comm"))
        assert "password authentication failed" in stand.log, "it was noisy"
        assert find_planted(said) == set()
        assert find_planted(seen) == set()
        assert find_planted(system + threads) == set()
        assert find_planted(stand.log) == set()


def test_neither_does_the_check_of_a_file_show_one(upstream):
    stand = stand_for(upstream, "md5")
    stand.write()
    stand.file.write_text(
        stand.file.read_text() + f"\n[databases]\nbad = host=db pasword={BROKEN} password='{BROKEN}\n"
    )
    stand.user_list.write_text(stand.user_list.read_text() + f'"x" "{BROKEN}\n')
    command = [sys.executable, "-m", "proxy", "--check", str(stand.file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    stand._clear()
    assert done.returncode != 0
    assert "bad" in done.stdout + done.stderr
    assert find_planted(done.stdout + done.stderr) == set()


def test_the_log_of_a_query_that_holds_a_secret_is_postgresqls_affair_and_not_ours(upstream):
    with stand_for(upstream, "plain") as stand:
        with Raw(stand.port) as line:
            line.login("plain", "postgres", TYPED)
            line.ask(f"select '{QUERY}'")
            line.send(message("Q", f"select '{QUERY}' from".encode()))
            with contextlib.suppress(Gone):
                line.read_until()
        wait_until(lambda: "closing because" in stand.log, "it has left")
        assert find_planted(stand.log) == set()
