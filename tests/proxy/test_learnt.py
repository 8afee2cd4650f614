"""What a pool has learnt, and that it does not learn without bound."""

from types import SimpleNamespace

from proxy.learnt import MAX_CUSTOMS, MAX_SPELLED, Learnt


def test_a_spelling_is_known_by_key_and_value():
    learnt = Learnt()
    learnt.spell({"client_encoding": "utf-8", "TimeZone": "CET"}, {"client_encoding": "UTF8"})
    assert learnt.spelled == {("client_encoding", "utf-8"): "UTF8"}


def test_spellings_are_bounded():
    learnt = Learnt()
    for number in range(3 * MAX_SPELLED):
        learnt.spell({"search_path": f"s{number}"}, {"search_path": f"s{number}"})
    assert len(learnt.spelled) <= MAX_SPELLED


def test_only_custom_names_are_met_and_not_too_many():
    learnt = Learnt()
    learnt.meet(["work_mem", *(f"my.x{number}" for number in range(100))])
    assert len(learnt.customs) == MAX_CUSTOMS
    assert "work_mem" not in learnt.customs


def test_names_are_found_in_any_case():
    learnt, world = Learnt(), SimpleNamespace(followed={"TimeZone"})
    assert learnt.spell_followed(SimpleNamespace(world=world)) == {"timezone": "TimeZone"}
    assert learnt.name_reported(SimpleNamespace(parameters={"DateStyle": ""})) == {"datestyle": "DateStyle"}
    assert len(learnt.name_reported(SimpleNamespace(parameters={"DateStyle": "", "search_path": ""}))) == 2
