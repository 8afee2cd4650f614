"""A client on a server it shares with everybody: what its RESET leads to is what it came with, as on one of its own."""

import pytest

from tests.live.stand import Stand

pytestmark = pytest.mark.live

CAME_WITH = "-c search_path=attic -c role=porter -c my.x=o -c TimeZone=Asia/Tokyo"
LOOK = (
    "select current_setting('search_path'), current_user::text, current_setting('my.x', true),"
    " current_setting('timezone'), current_setting('work_mem')"
)


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    with upstream.connect() as admin:
        for role in ("porter", "warden"):
            admin.execute(f"create role {role}; grant {role} to app")
        admin.execute("create schema attic; grant usage on schema attic to public")
    with Stand(upstream, {"default_pool_size": 1}) as stand:
        yield stand


@pytest.fixture(name="bob")
def _bob(stand):
    with stand.connect() as client:
        yield client


def follow(client, texts):
    """What it is like behind each of them."""
    seen = []
    for text in texts:
        client.execute(text)
        seen.append(client.execute(LOOK).fetchone())
    return seen


@pytest.mark.parametrize(
    "texts",
    [
        ["set search_path = 'public'", "reset search_path"],
        ["reset search_path", "reset search_path", "reset all", "reset all"],
        ["savepoint z", "reset search_path", "rollback to z", "reset search_path"],
        ["set search_path = public", "savepoint z", "reset search_path", "rollback to z"],
        ["reset search_path", "commit and chain", "reset search_path", "rollback and chain", "reset search_path"],
        ["set local search_path to default", "set local search_path = public", "set local search_path = default"],
        ["set search_path = public", "set local search_path to default"],
        ["select set_config('search_path', null, false)"],
        ["do $$ begin reset search_path; end $$", "do $$ begin set search_path = public; end $$"],
        ["reset search_path; savepoint z; set search_path = public; rollback to z"],
        ["set role warden", "reset role", "reset role", "set role none", "reset all"],
        ["set my.x = 1", "reset my.x", "reset my.x", "set my.x = ''"],
        ["set timezone = utc", "reset timezone", "set local time zone default", "reset timezone", "reset all"],
    ],
)  # fmt: skip
def test_in_a_transaction_too_a_reset_leads_to_what_a_client_came_with(stand, upstream, bob, texts):
    texts = ["begin", *texts, "commit", "select 1"]
    with upstream.connect("app", options=CAME_WITH) as direct, stand.connect(options=CAME_WITH) as alice:
        ours = bob.execute(LOOK).fetchone()
        assert follow(alice, texts) == follow(direct, texts)
        assert bob.execute(LOOK).fetchone()[:2] == ours[:2]
        assert not bob.execute(LOOK).fetchone()[2]


BLOCK, UNDOING = "do $$ begin end $$", "do $$ begin reset role; reset my.x; end $$"


@pytest.mark.parametrize(
    "texts",
    [
        ["set role none", "set my.x = ''", BLOCK],
        ["set role none", "set my.x = ''", UNDOING],
        ["set role warden", UNDOING],
        ["set session authorization warden", BLOCK],
        [BLOCK, UNDOING],
    ],
)
def test_behind_a_block_a_client_is_who_it_was(stand, upstream, bob, texts):
    """What means nothing on its server may be what it has said; only what was something can be undone by a block."""
    *first, last = texts
    with upstream.connect(options=CAME_WITH) as direct, stand.connect("postgres", options=CAME_WITH) as alice:
        for script in (
            ["begin", *texts, "commit"],
            ["select 1"],
            [*first, "begin", last, "commit"],
            texts,
            ["select 1"],
        ):
            assert follow(alice, script) == follow(direct, script)
            bob.execute("select 1")


RESETS = ("reset all", "discard all", "deallocate all", "reset role; reset search_path")


@pytest.mark.parametrize("query", RESETS)
@pytest.mark.parametrize("mode", [{"pool_mode": "session"}, {"server_reset_query_always": 1}])
def test_whatever_servers_are_reset_with_each_client_finds_what_it_came_with(upstream, stand, mode, query):
    threshold = None if "pool_mode" in mode else 0  # who asks for RESET ALL there finds others' statements
    with Stand(upstream, {"default_pool_size": 1, "server_reset_query": query, **mode}) as other:
        for options in (CAME_WITH, CAME_WITH, "-c work_mem=9MB -c my.x=p", CAME_WITH):
            own = upstream.connect(user="app", options=options)
            with own, other.connect(options=options, prepare_threshold=threshold) as client:
                for _ in range(2):
                    assert client.execute(LOOK).fetchone() == own.execute(LOOK).fetchone()
                    assert client.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("mode", ["transaction", "session"])
@pytest.mark.parametrize("said", ["set role warden", "set session authorization warden"])
def test_who_a_connect_query_has_made_everybody_is_what_everybody_is(upstream, stand, mode, said):
    settings = {"default_pool_size": 1, "pool_mode": mode}
    with Stand(upstream, settings, databases={"*": f"connect_query='{said}'"}) as other:
        for _ in range(2):
            with other.connect("postgres") as client:
                assert client.execute("select current_user::text").fetchone() == ("warden",)
                client.execute("reset session authorization")
                client.execute("discard all")
                if mode == "transaction":
                    assert client.execute("select current_user::text").fetchone() == ("warden",)
