"""What PostgreSQL is shown: what a client has proved, as long as that is worth anything; then what the file says."""

import base64
import gc
from dataclasses import replace

import pytest

from protocol.passwords import LearntKeys, Md5, Plain, ScramKeys, ScramVerifier, Secret
from proxy.auth.claim import Claim
from proxy.auth.lookup import Found, Question
from proxy.auth.proofs import Proof, name_unwarmed
from proxy.auth.users import NOBODY, Users
from proxy.config.ini import read
from proxy.failing import LoginFailed
from proxy.main import Proxy
from tests.fakes import FakeClock, FakeLog

KEYS = ScramKeys(b"c" * 32, b"s" * 32, b"k" * 32)
VERIFIER = KEYS.verifier(b"salt", 4096)
OTHER = ScramVerifier(4096, b"pepper", b"o" * 32, b"p" * 32)
LEARNT = LearntKeys(KEYS, b"salt", 4096)
OLD, NEW = Plain(Secret("old")), Plain(Secret("new"))
HASHED = Md5("0" * 32)
QUESTION = Question("shop", "guard", "SELECT 1")


class Desk:
    def __init__(self, tmp_path, users=NOBODY, entry="", **settings):
        said = {"listen_addr": "", "unix_socket_dir": "", "auth_user": "guard", **settings}
        lines = "\n".join(f"{name} = {value}" for name, value in said.items())
        (tmp_path / "proxy.ini").write_text(f"[databases]\nshop = host=127.0.0.1 port=1 {entry}\n[proxy]\n{lines}\n")
        self.proxy = Proxy(read(str(tmp_path / "proxy.ini")), users, FakeLog(), FakeClock())

    @property
    def pool(self):
        return self.proxy.pools.find(self.proxy.config.find_database("shop"), "ann")

    def log_in(self, stored, proof, source=None, user="ann"):
        claim = Claim(user, [stored], source=source)
        if proof is not None:
            claim.prove(stored, proof)
        self.proxy.proofs.learn(self.pool, claim)

    def show(self, pool=None):
        return self.proxy.proofs.find_login(pool or self.pool)[1]


@pytest.fixture
def desk(tmp_path):
    return lambda *args, **more: Desk(tmp_path, *args, **more)


def test_of_a_verifier_nothing_can_be_made_until_a_client_has_shown_its_key(desk):
    one = desk(Users({"ann": (VERIFIER,)}))
    assert one.show() == (VERIFIER,)
    one.log_in(VERIFIER, LEARNT)
    assert one.show() == (LEARNT,)


def test_when_the_verifier_changes_the_old_key_is_forgotten(desk):
    one = desk(Users({"ann": (VERIFIER,)}))
    one.log_in(VERIFIER, LEARNT)
    one.proxy.users = Users({"ann": (OTHER,)})
    assert one.show() == (OTHER,)
    one.proxy.users = NOBODY
    assert one.show() == (None,)


def test_the_key_goes_with_the_pool(desk):
    one = desk(Users({"ann": (VERIFIER,)}))
    one.log_in(VERIFIER, LEARNT)
    assert len(one.proxy.proofs) == 1
    one.proxy.pools._pools.clear()
    one.proxy.pools._by_database.clear()
    one.proxy.pools._by_user.clear()
    gc.collect()
    assert len(one.proxy.proofs) == 0


def test_all_that_could_be_right_is_tried_and_what_the_client_proved_comes_first(desk):
    one = desk(Users({"ann": (NEW, OLD, HASHED, VERIFIER)}))
    assert one.show() == (NEW.secret, OLD.secret, HASHED)
    one.log_in(OLD, OLD.secret)
    assert one.show() == (OLD.secret, NEW.secret, HASHED)
    one.log_in(VERIFIER, LEARNT)
    assert one.show() == (LEARNT, NEW.secret, OLD.secret, HASHED)


def test_what_postgresql_took_last_comes_before_all_others(desk):
    one = desk(Users({"ann": (NEW, OLD)}))
    one.proxy.proofs.worked(one.pool, OLD.secret)
    one.log_in(NEW, NEW.secret)
    assert one.show() == (OLD.secret, NEW.secret)
    one.proxy.users = Users({"ann": (NEW,)})
    assert one.show() == (NEW.secret,)


def test_two_clients_with_two_verifiers_do_not_take_the_key_from_each_other(desk):
    one = desk(Users({"ann": (OTHER, VERIFIER)}))
    one.log_in(VERIFIER, LEARNT)
    one.proxy.proofs.worked(one.pool, LEARNT)
    one.log_in(OTHER, LearntKeys(KEYS, b"pepper", 4096))
    assert one.show() == (LEARNT, LearntKeys(KEYS, b"pepper", 4096))


def test_an_entrys_password_is_what_it_says(desk):
    one = desk(Users({"ann": (NEW,)}), "password=own")
    one.log_in(NEW, NEW.secret)
    assert one.show() == (Secret("own"),)


def test_an_entrys_password_may_be_what_postgresql_stores(desk):
    """As in PgBouncer, which takes it for what a line of auth_file may hold."""
    keys = ":".join(base64.b64encode(key).decode() for key in (VERIFIER.stored_key, VERIFIER.server_key))
    verifier = f"SCRAM-SHA-256$4096:{base64.b64encode(b'salt').decode()}${keys}"
    assert desk(entry=f"user=bob password=md5{HASHED.digits}").show() == (HASHED,)
    assert desk(entry=f"user=bob password={verifier}").show() == (VERIFIER,)
    assert desk(entry="user=bob password=md5-or-so").show() == (Secret("md5-or-so"),)


def test_a_forced_user_learns_nothing_of_others(desk):
    one = desk(Users({"ann": (NEW,), "bob": (OLD,)}), "user=bob")
    one.log_in(NEW, NEW.secret)
    assert one.show() == (OLD.secret,)
    assert len(one.proxy.proofs) == 0


def test_what_auth_query_has_found_holds_until_it_says_something_else(desk):
    one = desk()
    one.log_in(VERIFIER, LEARNT, QUESTION)
    assert one.show() == (LEARNT,)
    one.proxy.lookups.note((QUESTION, "ann"), Found((VERIFIER,), 0.0))
    assert one.show() == (LEARNT,)
    one.proxy.lookups.note((QUESTION, "ann"), Found((OTHER,), 1.0))
    assert one.show() == (None,)
    one.proxy.lookups.note((QUESTION, "ann"), Found((), 2.0))
    assert one.show() == (None,)


def test_whoever_is_in_the_file_by_now_is_judged_by_the_file(desk):
    one = desk()
    one.log_in(VERIFIER, LEARNT, QUESTION)
    one.proxy.users = Users({"ann": (NEW,)})
    assert one.show() == (NEW.secret,)


def test_who_was_not_asked_is_shown_as_he_was_found(desk):
    one = desk()
    one.log_in(HASHED, None, QUESTION)
    assert one.show() == (HASHED,)
    one.log_in(NEW, None, QUESTION)
    assert one.show() == (NEW.secret,)
    one.log_in(VERIFIER, LEARNT, QUESTION)
    one.log_in(VERIFIER, None, QUESTION)
    assert one.show() == (LEARNT,), "what has been shown once is better"


def test_auth_user_has_his_own_secret_in_the_file(desk):
    guard = {"guard": (Plain(Secret("halt")),)}
    for entry, users, shown in (
        ("", guard, Secret("halt")),
        ("", {}, None),
        ("user=app password=own", guard, Secret("halt")),
        ("user=app password=own", {}, None),
        ("user=guard password=own", {}, Secret("own")),
        ("password=own", {}, Secret("own")),
        ("password=own", guard, Secret("halt")),
    ):
        one = desk(Users(users), entry)
        assert one.show(one.proxy.pools.find_lookup("shop", "guard")) == (shown,), (entry, users)


def test_a_new_password_is_reason_to_try_at_once(desk):
    one = desk(Users({"ann": (VERIFIER,)}))
    one.pool.failure = LoginFailed("28P01", "wrong")
    one.log_in(VERIFIER, LEARNT)
    assert one.pool.failure is None
    one.pool.failure = failure = LoginFailed("28P01", "wrong")
    one.log_in(VERIFIER, LEARNT)
    assert one.pool.failure is failure, "it is the same as before"


def test_a_process_that_takes_over_believes_what_it_has_seen_itself(desk):
    one = desk(Users({"ann": (VERIFIER, OTHER)}))
    told = Proof(VERIFIER, LEARNT, None)
    one.proxy.proofs.inherit(one.pool, None)
    assert one.show() == (VERIFIER,)
    one.proxy.proofs.inherit(one.pool, told)
    assert one.show() == (LEARNT,)
    own = LearntKeys(KEYS, b"pepper", 4096)
    one.log_in(OTHER, own)
    one.proxy.proofs.inherit(one.pool, told)
    assert one.show() == (own,)


def test_a_database_that_is_gone_is_said_to_be_gone(desk):
    one = desk()
    pool = one.pool
    one.proxy.config = replace(one.proxy.config, databases={})
    with pytest.raises(OSError, match="no longer configured"):
        one.show(pool)


def test_the_log_names_those_whose_servers_wait_for_a_login(desk):
    users = Users({"ann": (VERIFIER,), "bob": (NEW,), "carl": (HASHED, VERIFIER)})
    assert name_unwarmed(desk(users, "min_pool_size=2").proxy.config, users) == (
        "min_pool_size of shop is not kept before the first login of ann: of these auth_file has only a SCRAM verifier"
    )
    assert name_unwarmed(desk(users, min_pool_size=2).proxy.config, users)
    assert name_unwarmed(desk(users).proxy.config, users) == ""
    assert name_unwarmed(desk(users, "min_pool_size=2 password=x").proxy.config, users) == ""
    assert name_unwarmed(desk(NOBODY, "min_pool_size=2").proxy.config, NOBODY) == ""
    many = Users({f"user{number:02}": (VERIFIER,) for number in range(12)})
    assert "user09 and 2 more: of" in name_unwarmed(desk(many, "min_pool_size=2").proxy.config, many)


def test_nothing_of_it_shows():
    for proof in (Proof(VERIFIER, LEARNT, QUESTION), Proof(NEW, NEW.secret, None), Proof(HASHED, HASHED, None)):
        words = repr(proof)
        for secret in ("cccc", "ssss", "kkkk", "salt", "new", "0000"):
            assert secret not in words
