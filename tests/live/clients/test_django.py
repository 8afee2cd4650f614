"""Django's ORM: migrations, transactions and savepoints, persistent connections, server-side cursors."""

import threading

import django
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import IntegrityError, close_old_connections, connection, connections, transaction
from django.db.models import F, Sum

from tests.live.clients.fleet import together

pytestmark = pytest.mark.live

WAYS = ["plain", "pooled", "server-side binding"]


@pytest.fixture(scope="module", name="shelf", params=WAYS)
def _shelf(fleet, request):
    """The model, in a database that the migrations have made; connections as Django's documentation offers them."""
    set_up(fleet, request.param)
    from tests.live.clients.depot.models import Shelf  # noqa: PLC0415 - only when Django is set up

    call_command("migrate", "depot", "0001", verbosity=0)
    for client in range(-30, 0):
        connection.cursor().execute("insert into depot_shelf (client) values (%s)", [client])
    call_command("migrate", verbosity=0)
    yield Shelf
    call_command("migrate", "depot", "zero", verbosity=0)
    connections.close_all()
    if request.param == "pooled":
        connection.close_pool()


def set_up(fleet, way):
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": fleet.database,
        "USER": fleet.user,
        "PASSWORD": fleet.password,
        "HOST": fleet.host,
        "PORT": fleet.port,
        "CONN_MAX_AGE": 0 if way == "pooled" else None,
        "CONN_HEALTH_CHECKS": True,
        "TIME_ZONE": None,
        "OPTIONS": OPTIONS[way],
    }
    if not settings.configured:
        applications = ["django.contrib.contenttypes", "django.contrib.auth", "tests.live.clients.depot"]
        settings.configure(DATABASES={"default": database}, INSTALLED_APPS=applications, USE_TZ=True)
        django.setup()
        return
    connections.close_all()
    connections.settings["default"] |= {"CONN_MAX_AGE": database["CONN_MAX_AGE"], "OPTIONS": database["OPTIONS"]}
    del connections["default"]


OPTIONS = {
    "plain": {},
    "pooled": {"pool": {"min_size": 20, "max_size": 20, "timeout": 20}},
    "server-side binding": {"server_side_binding": True, "options": "-c statement_timeout=60s"},
}


def as_requests(work, turns=3):
    """Each thread is a worker: `work(number, turn)` is one request, and its connection stays between them."""

    def one(number):
        try:
            for turn in range(turns):
                close_old_connections()
                work(number, turn)
                close_old_connections()
        finally:
            connections.close_all()

    together(one)


def test_the_migrations_have_run_and_filled_the_new_column(shelf):
    labels = dict(shelf.objects.filter(client__lt=0).values_list("client", "label"))
    assert labels == {client: f"shelf {client}" for client in range(-30, 0)}
    call_command("migrate", verbosity=0, check_unapplied=True)


def test_objects_of_twenty_workers(shelf):
    def request(number, turn):
        mine, _ = shelf.objects.get_or_create(client=number, defaults={"label": f"of {number}"})
        mine.boxes.create(weight=turn, words={"of": number})
        assert mine.boxes.filter(words__of=number).count() == turn + 1
        assert shelf.objects.filter(client=number).update(label=f"turn {turn}") == 1
        mine.refresh_from_db()
        assert mine.label == f"turn {turn}"

    as_requests(request)
    assert shelf.objects.filter(client__gte=0).aggregate(all=Sum("boxes__weight"))["all"] == 60


def test_transactions_and_savepoints(shelf):
    def request(number, turn):
        mine = shelf.objects.get_or_create(client=1000 + number)[0]
        mine.boxes.all().delete()
        with transaction.atomic():
            mine.boxes.create(weight=1)
            with pytest.raises(IntegrityError), transaction.atomic():
                mine.boxes.create(weight=2)
                mine.boxes.create(weight=-1)
            mine.boxes.create(weight=4)
        assert sorted(mine.boxes.values_list("weight", flat=True)) == [1, 4]
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            mine.boxes.update(weight=F("weight") + 10)
            assert turn / 0
        assert sorted(mine.boxes.values_list("weight", flat=True)) == [1, 4]

    as_requests(request)


def test_rows_are_locked_where_a_transaction_asks_for_it(shelf):
    shared = shelf.objects.get_or_create(client=5000)[0]
    shared.boxes.create(weight=0)

    def request(_number, _turn):
        with transaction.atomic():
            box = shared.boxes.select_for_update().get()
            box.weight += 1
            box.save()

    as_requests(request)
    assert shared.boxes.get().weight == 60


def test_iterators_use_cursors_of_the_server(shelf):
    """Outside of a transaction Django declares them WITH HOLD."""

    def request(number, _turn):
        found = shelf.objects.filter(client__lt=0).annotate(mine=F("client") + number).order_by("client")
        values = [each.mine for each in found.iterator(chunk_size=7)]
        assert values == [client + number for client in range(-30, 0)]
        with transaction.atomic():
            values = [each.client for each in found.iterator(chunk_size=7)]
            assert values == list(range(-30, 0))

    as_requests(request, turns=2)


def test_an_iterator_that_is_left_half_way(shelf):
    def request(number, _turn):
        rows = shelf.objects.filter(client__lt=0).order_by("client").iterator(chunk_size=5)
        assert next(rows).client == -30
        del rows
        assert shelf.objects.filter(client=-1 - number).count() == 1

    as_requests(request)


def test_a_setting_of_a_worker_stays_with_it(shelf):
    def request(number, turn):
        with connection.cursor() as cursor:
            if turn == 0:
                cursor.execute(f"set myapp.tenant = {number}")
                cursor.execute(f"set search_path = of{number}, public")
            cursor.execute("select current_setting('myapp.tenant'), current_setting('search_path')")
            assert cursor.fetchone() == (f"{number}", f"of{number}, public")
            cursor.execute("show timezone")
            assert cursor.fetchone() == ("UTC",)
        assert shelf.objects.filter(client=-1).get().client == -1

    pooled = "pool" in connection.settings_dict["OPTIONS"]  # gives a worker another connection for each request
    as_requests(request, turns=1 if pooled else 3)


def test_what_is_done_on_commit_is_done_then_and_only_then(shelf):
    done, lock = [], threading.Lock()

    def note(number, turn):
        with lock:
            done.append((number, turn))

    def request(number, turn):
        mine = shelf.objects.get_or_create(client=2000 + number)[0]
        with transaction.atomic():
            mine.boxes.create(weight=turn)
            transaction.on_commit(lambda: note(number, turn))
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            transaction.on_commit(lambda: note(number, "never"))
            assert turn / 0

    as_requests(request)
    assert sorted(done) == [(number, turn) for number in range(20) for turn in range(3)]
