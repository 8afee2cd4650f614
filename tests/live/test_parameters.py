"""Session parameters that are followed: whoever set them, on whichever server the next query runs."""

import pytest

from tests.live.stand import Stand
from tests.live.wire import error, kinds, parameters, query, rows, sqlstate, startup

pytestmark = pytest.mark.live

FOLLOWED = {
    "application_name": "the \"app\" 'of' alice",
    "client_encoding": "LATIN1",
    "DateStyle": "German, DMY",
    "TimeZone": "Asia/Tokyo",
    "IntervalStyle": "iso_8601",
    "standard_conforming_strings": "off",
}


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    databases = {
        "postgres": "pool_size=1",
        "two": "dbname=postgres pool_size=2",
        "session": "dbname=postgres pool_mode=session",
        "dressed": "dbname=postgres user=app password='" + upstream.secrets["app"].replace("'", "''") + "'"
        " timezone=Europe/Oslo application_name=dressed connect_query='set work_mem to 5120'",
    }
    settings = {"ignore_startup_parameters": "extra_float_digits"}
    with Stand(upstream, settings, databases=databases) as stand:
        yield stand


def test_the_welcome_tells_the_servers_real_parameters(stand, admin):
    with stand.call() as line:
        welcome = line.login("app", "postgres")
        said = parameters(welcome)
        assert kinds(welcome) == "RKZ"
        for name in ("server_version", "server_encoding", "client_encoding", "TimeZone", "DateStyle", "IntervalStyle"):
            assert said[name] == admin.execute(f"show {name}").fetchone()[0]
        assert said["integer_datetimes"] == "on"
        assert said["is_superuser"] == "off"
        assert said["session_authorization"] == "app"
        assert len(line.key) == 8


@pytest.mark.parametrize("database", ["postgres", "session"])
def test_each_client_keeps_its_own_on_a_server_they_share(stand, database):
    with stand.call() as alice, stand.raw(database=database) as bob:
        welcome = parameters(alice.login("app", database, **FOLLOWED))
        theirs = {name: bob.value(f"show {name}") for name in FOLLOWED}
        for _ in range(3):
            for name, value in FOLLOWED.items():
                assert welcome[name] == value
                assert alice.value(f"show {name}") == value
                assert bob.value(f"show {name}") == theirs[name]


def test_what_a_client_sets_later_follows_it_and_nobody_else(stand):
    with stand.raw() as alice, stand.raw() as bob:
        answer = alice.ask("set timezone = 'Asia/Tokyo'; set application_name = 'alice'")
        assert parameters(answer) == {"TimeZone": "Asia/Tokyo", "application_name": "alice"}
        assert bob.value("show timezone") != "Asia/Tokyo"
        assert bob.value("show application_name") != "alice"
        assert alice.value("show timezone") == "Asia/Tokyo"
        assert alice.value("show application_name") == "alice"


def test_what_is_set_locally_or_rolled_back_is_forgotten(stand):
    with stand.raw() as alice, stand.raw() as bob:
        before = alice.value("show timezone")
        alice.ask("begin; set local timezone = 'Asia/Tokyo'")
        assert alice.value("show timezone") == "Asia/Tokyo"
        alice.ask("commit")
        assert alice.value("show timezone") == before
        alice.ask("begin; set timezone = 'Asia/Tokyo'")
        alice.ask("rollback")
        assert bob.value("show timezone") == before
        assert alice.value("show timezone") == before


def test_many_clients_with_many_parameters_on_two_servers(stand):
    zones = ["UTC", "Asia/Tokyo", "Europe/Oslo", "America/Lima", "Africa/Cairo"]
    lines = [stand.raw(database="two", TimeZone=zone, application_name=f"from {zone}") for zone in zones]
    for _ in range(20):
        for line in lines:
            line.send(query("select current_setting('timezone'), current_setting('application_name')"))
        for line, zone in zip(lines, zones, strict=True):
            assert rows(line.read_until()) == [(zone, f"from {zone}")]
    for line in lines:
        line.close()


@pytest.mark.parametrize(("name", "value"), [("TimeZone", "Nowhere/Land"), ("client_encoding", "KLINGON")])
def test_a_value_the_server_refuses_ends_that_client_in_the_servers_words(stand, name, value):
    with stand.call() as line, stand.raw() as other:
        messages = line.login("app", "postgres", **{name: value})
        if messages[-1].kind == "Z":
            line.send(query("select 1"))
            messages = line.read_to_end()
        assert error(messages)["S"] == "FATAL"
        assert sqlstate(messages) == "22023"
        assert value.lower() in error(messages)["M"].lower()
        assert rows(other.ask("select 'fine'")) == [("fine",)]


def test_every_startup_parameter_that_the_server_takes_is_taken(stand):
    with (
        stand.raw(work_mem="9MB", statement_timeout="54000", **{"myapp.tenant": "it's 7"}) as line,
        stand.raw() as other,
    ):
        for _ in range(2):
            assert line.value("show work_mem") == "9MB"
            assert line.value("show statement_timeout") == "54s"
            assert line.value("select current_setting('myapp.tenant')") == "it's 7"
            assert other.value("show work_mem") == "4MB"


def test_values_are_told_as_the_server_spells_them(stand):
    with stand.call() as line:
        welcome = parameters(line.login("app", "postgres", client_encoding="utf-8", DateStyle="german"))
        assert welcome["client_encoding"] == "UTF8"
        assert welcome["DateStyle"] == "German, DMY"
        assert line.value("show datestyle") == "German, DMY"


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        ({"work_mem": "much"}, "22023", 'invalid value for parameter "work_mem": "much"'),
        ({"wrok_mem": "1MB"}, "42704", 'unrecognized configuration parameter "wrok_mem"'),
        ({"shared_buffers": "1GB"}, "55P02", 'parameter "shared_buffers" cannot be changed without restarting'),
        ({"log_statement": "all"}, "42501", "permission denied"),
        ({"role": "postgres"}, "42501", "permission denied"),
        ({"options": "-c work_mem=much"}, "22023", 'invalid value for parameter "work_mem": "much"'),
        ({"options": "-c work_mem=1MB -X"}, "0A000", "-X"),
        ({"it's;drop": "1"}, "42704", "unrecognized configuration parameter"),
        ({"my.x": "a" * 2000}, "22023", "invalid value"),
    ],
)
def test_a_startup_parameter_that_the_server_refuses_is_refused_in_its_words(stand, said, state, words):
    with stand.call() as line, stand.raw() as other:
        messages = line.login("app", "postgres", **said)
        assert sqlstate(messages) == state
        assert error(messages)["S"] == "FATAL"
        assert words in error(messages)["M"]
        assert other.value("show work_mem") == "4MB"


def test_what_is_ignored_is_not_even_asked(stand):
    with stand.call() as line:
        assert line.login("app", "postgres", extra_float_digits="a lot")[-1].kind == "Z"


@pytest.mark.parametrize("value", ["", "it's; select 1", "\\'; --", "Zürich", "a\nb"])
def test_whatever_a_value_is_it_stays_a_value(stand, value):
    with stand.raw(**{"myapp.thing": value}) as line, stand.raw() as other:
        for _ in range(2):
            line.send(query("select convert_to(current_setting('myapp.thing', true), 'UTF8')"))
            said = rows(line.read_until())[0][0] or "\\x"
            assert bytes.fromhex(said[2:]).decode() == value
            other.ask("select 1")


def test_an_empty_search_path_is_empty(stand):
    with stand.raw(search_path="") as line:
        assert line.value("select current_schemas(false)") == "{}"


def test_parameters_in_options_are_taken_like_the_others(stand):
    with stand.call() as line:
        line.login(
            "app", "postgres", options="-c timezone=Asia/Tokyo --datestyle=German -c work_mem=8MB", work_mem="9MB"
        )
        assert line.value("show timezone") == "Asia/Tokyo"
        assert line.value("show datestyle").startswith("German")
        assert line.value("show work_mem") == "9MB"  # as in PostgreSQL, where options are read first


@pytest.mark.parametrize("text", ["reset all", "discard all", "reset work_mem; reset timezone"])
def test_reset_goes_back_to_what_a_client_came_with(stand, text):
    with stand.raw(work_mem="9MB", TimeZone="Asia/Tokyo") as line, stand.raw() as other:
        line.ask("set work_mem = '11MB'")
        line.ask("set timezone = 'CET'")
        assert line.value("show timezone") == "CET"
        line.ask(text)
        assert other.value("show work_mem") == "4MB"
        assert line.value("show work_mem") == "9MB"
        assert line.value("show timezone") == "Asia/Tokyo"


def test_a_databases_own_parameters_and_its_connect_query(stand):
    with stand.raw(database="dressed") as line:
        assert line.value("show timezone") == "Europe/Oslo"
        assert line.value("show work_mem") == "5MB"


def test_what_a_connect_query_has_set_outlives_whatever_clients_do(stand):
    for text in (
        "reset all",
        "discard all",
        "set work_mem = '1MB'",
        "do $$ begin end $$",
        "create temp table t (a int)",
    ):
        with stand.raw(database="dressed") as line:
            assert line.value("show work_mem") == "5MB", text
            line.ask(text)
            if not text.startswith("set"):
                assert line.value("show work_mem") == "5MB", text


def test_a_reset_in_a_transaction_brings_back_what_a_client_came_with(stand):
    with stand.raw(work_mem="9MB", TimeZone="Asia/Tokyo", database="two") as line, stand.raw(database="two") as other:
        for end in ("commit", "rollback"):
            line.ask("begin; reset work_mem; reset timezone")
            assert line.value("show work_mem") == "9MB"
            assert line.value("show timezone") == "Asia/Tokyo"
            line.ask(end)
            for _ in range(4):
                assert line.value("show work_mem") == "9MB"
                assert line.value("show timezone") == "Asia/Tokyo"
                assert other.value("show work_mem") == "4MB"


def test_protocol_3_2_and_unknown_options_are_negotiated_once(stand):
    with stand.call() as line:
        line.send(startup("app", "postgres", protocol=3 << 16 | 2))
        welcome = line.read_until()
        assert kinds(welcome) == "RKZ"
        assert 8 < len(next(each.body for each in welcome if each.kind == "K")) <= 256 + 4
    with stand.call() as line:
        line.send(startup("app", "postgres", protocol=3 << 16 | 9999, **{"_pq_.shiny": "1"}))
        welcome = line.read_until()
        assert kinds(welcome) == "vRKZ"
        assert b"_pq_.shiny" in welcome[0].body


def test_clients_with_different_search_paths_see_their_own_schemas_on_one_server(upstream, admin):
    if admin.info.server_version < 180000:
        pytest.skip("this PostgreSQL does not report search_path")
    admin.execute('drop schema if exists one, "two, or more" cascade')
    admin.execute('create schema one; create schema "two, or more"')
    admin.execute('grant usage on schema one, "two, or more" to app')
    settings = {"track_extra_parameters": "search_path", "default_pool_size": 1}
    with Stand(upstream, settings) as stand, stand.raw() as alice, stand.raw() as bob, stand.raw() as carol:
        alice.ask("set search_path = one, public")
        bob.ask('set search_path = "two, or more", one')
        for _ in range(3):
            assert alice.value("select current_schemas(false)") == "{one,public}"
            assert bob.value("select current_schemas(false)") == '{"two, or more",one}'
            assert carol.value("select current_schemas(false)") == "{public}"
            assert carol.value("show search_path") == '"$user", public'
        assert len({line.value("select pg_backend_pid()") for line in (alice, bob, carol)}) == 1
