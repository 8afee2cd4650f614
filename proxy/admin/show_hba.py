"""
SHOW HBA: the rules of auth_hba_file that are in force, and why newer ones are not.

Theory. The columns are those of PostgreSQL's view pg_hba_file_rules, so that whoever knows one can read the other:
a row for each rule, in the order in which they are asked; the first that is about a caller counts. `error` tells of a
rule why it lets nobody in, or not whom it should. Where the file was read last and could not be used, each of its
mistakes is a row more, without a number: those rules are not in force. An option that is a secret is `***`.
"""

from collections.abc import Iterator
from typing import Any, Final

from proxy.admin.rows import Table, Value
from proxy.auth.hba import SECRET_OPTIONS
from proxy.auth.rules import Network, Rule
from proxy.config.lines import Mistake, make_printable

SHAPE: Final = (
    "rule_number i, file_name s, line_number i, type s, database s, user_name s, address s, netmask s,"
    " auth_method s, options s, error s"
)


def show_hba(proxy: Any) -> Table:
    """Each rule, and each mistake that keeps newer ones out."""
    return Table(SHAPE, _rows(proxy.gate))


def _rows(gate: Any) -> Iterator[tuple[Value, ...]]:
    warnings = {(each.file, each.line): each.sentence for each in gate.rulebook.warnings}
    for number, rule in enumerate(gate.rulebook.rules, 1):
        yield _row(number, rule, warnings.get((rule.place.file, rule.place.line)))
    for mistake in gate.mistakes:
        yield _row_of_mistake(mistake)


def _row(number: int, rule: Rule, error: str | None) -> tuple[Value, ...]:
    address, mask = _say_address(rule)
    return (
        number,
        rule.place.file,
        rule.place.line,
        rule.record,
        ",".join(rule.databases.words),
        ",".join(rule.users.words),
        address,
        mask,
        rule.method,
        " ".join(f"{name}={'***' if name in SECRET_OPTIONS else value}" for name, value in rule.options.items())
        or None,
        error,
    )


def _say_address(rule: Rule) -> tuple[str | None, str | None]:
    """Its address and its mask."""
    if isinstance(rule.address, Network):
        return str(rule.address.address), str(rule.address.mask)
    return rule.address, None


def _row_of_mistake(mistake: Mistake) -> tuple[Value, ...]:
    return (None, mistake.file, mistake.line or None, *[None] * 7, make_printable(mistake.sentence))
