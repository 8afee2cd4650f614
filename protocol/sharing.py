"""
Which texts may stand in line with those of other clients on one server connection.

Theory. A unit in a line is run by a server that is nobody's, between two units of strangers. So it must be a single
statement that reads, takes no lock that others wait for, and neither asks about the session nor changes it. Calls are
what makes this hard, since a function may do anything: only those are allowed that PostgreSQL brings along and that
are known to do nothing but compute (`HARMLESS`), or that an administrator vouches for. What is not understood is not
shared.

The verdict is about a shape, a text without its values. `fold` finds the shape for a hundredth of the price of reading
the text: every run of digits becomes `0`, every plain string `'?'`. What is judged is the shape itself, so the verdict
holds for all texts that have it: a name in which a digit stands is none of the harmless ones. Strings are found by
their quotes alone. That is exact as long as no comment, quoted name, dollar quote or backslash is about, within which
a quote means something else. Where one of their openers is left over there is no shape; and a false string can only
begin behind such an opener, which is then left over. (A `$` in front of a digit opens nothing: no tag begins so.)
"""

import enum
import re
from collections.abc import Iterable
from typing import Final

from protocol.statements import Kind, classify
from protocol.tokens import NAME, WORD, tokens

MAX_LENGTH: Final = 1_000  # bytes of a shape that is looked at
MAX_TEXT: Final = 4_000  # bytes of a text that is
_ENCODINGS: Final = frozenset({"utf8", "sql_ascii", "latin1", "latin9", "win1252"})  # in which a quote is a quote

ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
"""A message in which each digit is a `0`: alike only for texts of one shape, and of one length."""


_PARAMETER: Final = re.compile(r"(?<![A-Za-z0-9_$\x80-\xff])\$0++(?![A-Za-z_$\x80-\xff])")
_has_odd_number: Final = re.compile(rb"(?<![A-Za-z0-9_$\x80-\xff])0[0.]*+(?:[eE][-+]?+0++)?+[A-Za-z_\x80-\xff]").search
"""A digit and a word in one: `1e5for update`. To PostgreSQL until 14 that is two, to the next versions an error."""


class Verdict(enum.Enum):
    """Whether texts of a shape may share a line; else why not."""

    FIT = "fit"
    SEVERAL = "not a single statement"
    WRITES = "not a read"
    CALLS = "calls a function that is not known to be harmless"
    UNREAD = "not understood"


FIT, SEVERAL, WRITES, CALLS, UNREAD = Verdict

_WORDS_BEFORE_PARENTHESES: Final = frozenset(
    b"all and any array as between case cast distinct else except exists from group having ilike in intersect join "
    b"lateral left like limit not offset on only or right row select some symmetric then union using values when where "
    b"window "
    # types with a size
    b"bit char character dec decimal float interval nchar numeric time timestamp varchar".split()
)
"""None of these can be a function's name, or it is one of PostgreSQL's own."""

_WORDS_BETWEEN: Final[dict[bytes, frozenset[bytes]]] = {
    b"by": frozenset({b"group", b"order", b"partition"}),
    b"filter": frozenset({b")"}),
    b"materialized": frozenset({b"as", b"not"}),
    b"over": frozenset({b")"}),
    b"varying": frozenset({b"bit", b"char", b"character", b"nchar"}),
}
"""Before a parenthesis these may be functions too, but not behind one of those."""

HARMLESS: Final = frozenset(
    b"abs acos age array_agg array_append array_cat array_dims array_length array_lower array_position "
    b"array_positions array_prepend array_remove array_replace array_to_json array_to_string array_upper ascii asin "
    b"atan avg bit_and bit_length bit_or bool_and bool_or btrim cardinality cbrt ceil ceiling char_length "
    b"character_length chr clock_timestamp coalesce concat concat_ws corr cos cot count covar_pop covar_samp "
    b"cume_dist current_time current_timestamp date date_bin date_part date_trunc decode degrees dense_rank div "
    b"encode every exp extract first_value floor format format_type gcd greatest initcap isfinite json_agg "
    b"json_array_elements json_array_elements_text json_array_length json_build_array json_build_object json_each "
    b"json_each_text json_extract_path json_extract_path_text json_object json_object_agg json_object_keys "
    b"json_strip_nulls json_to_record json_to_recordset json_typeof jsonb_agg jsonb_array_elements "
    b"jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text "
    b"jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_agg jsonb_object_keys "
    b"jsonb_path_exists jsonb_path_match jsonb_path_query jsonb_path_query_array jsonb_path_query_first jsonb_pretty "
    b"jsonb_set jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_typeof justify_days justify_hours "
    b"justify_interval lag last_value lcm lead least left length ln localtime localtimestamp log lower lpad ltrim "
    b"make_date make_interval make_time make_timestamp make_timestamptz max min mod mode now nth_value ntile nullif "
    b"num_nonnulls num_nulls octet_length overlay percent_rank percentile_cont percentile_disc pi plainto_tsquery "
    b"position power quote_ident quote_literal quote_nullable radians rank regexp_count regexp_instr regexp_like "
    b"regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr repeat "
    b"replace reverse right round row_number row_to_json rpad rtrim sign sin split_part sqrt starts_with "
    b"statement_timestamp stddev stddev_pop stddev_samp string_agg string_to_array strpos substr substring sum tan "
    b"text timezone to_char to_date to_hex to_json to_jsonb to_number to_timestamp to_tsquery to_tsvector "
    b"transaction_timestamp translate trim trunc ts_headline ts_rank ts_rank_cd unnest upper var_pop var_samp "
    b"variance width_bucket".split()
)


def is_readable(encoding: str) -> bool:
    """Does an ASCII byte always mean itself in texts of this client_encoding?"""
    return encoding.lower().replace("-", "") in _ENCODINGS


def fold(text: bytes) -> str | None:
    """The shape of `text`: alike for texts that differ in their values. None: it has none that is cheap and certain.

    Linear, 0.5 us; 0.6 ms at most. The text is that of a client with standard_conforming_strings on and a readable
    encoding. Looks at a str, since `in` takes a fifth there.
    """
    if len(text) > MAX_TEXT:
        return None
    zeros = text.translate(ZEROS).replace(b"00000000", b"0").replace(b"0000", b"0").replace(b"00", b"0")
    shape = zeros.replace(b"00", b"0").decode("latin-1")
    if "\\" in shape:
        return None
    if "'" in shape:
        parts = shape.split("'")
        if len(parts) % 2 == 0:
            return None
        shape = "'?'".join(parts[::2])
    if "$" in shape and "$" in _PARAMETER.sub("", shape):
        return None
    return None if '"' in shape or "--" in shape or "/*" in shape else shape


def can_vouch(name: str) -> bool:
    """May a function be vouched for by this name? Those that differ in their digits are one in a shape."""
    return not any(map(str.isdigit, name))


def judge(shape: str | None, vouched: Iterable[bytes] = ()) -> Verdict:
    """May the texts of this shape share a line? `vouched` are functions, in lower case, without schema."""
    if shape is None or len(shape) > MAX_LENGTH:
        return UNREAD
    text = shape.encode("latin-1")
    if _has_odd_number(text):
        return UNREAD
    statement = classify(text)
    if not statement.is_single:
        return SEVERAL
    if statement.kind is Kind.SHOW:
        return UNREAD  # it speaks of the session
    if statement.kind is not Kind.READ:
        return WRITES
    return _judge_calls(text, frozenset(vouched))


def _judge_calls(text: bytes, vouched: frozenset[bytes]) -> Verdict:
    """By the word in front of each parenthesis. Key words that are functions without one speak of the session, and what
    follows a value and a dot may be any function: `(1).pg_sleep`."""
    earlier = before = b""  # the last two tokens
    is_word = is_qualified = False  # is the last one a word, behind a dot?
    for match in tokens(text):
        kind = match.lastindex or 0
        token = match[kind].lower()
        if kind == WORD and token in _OF_SESSION:
            return CALLS
        if token == b"(" and is_word and (is_qualified or not _is_harmless(before, earlier, vouched)):
            return CALLS
        if token == b"." and not is_word:
            return CALLS
        is_word = kind in (WORD, NAME)
        is_qualified = is_word and before == b"."
        earlier, before = before, token
    return FIT


_OF_SESSION: Final = frozenset(
    b"current_catalog current_role current_schema current_user session_user system_user user "
    b"pg_prepared_statements pg_cursors pg_settings pg_listening_channels pg_my_temp_schema pg_temp pg_temp_0 "
    b"pg_stat_activity pg_locks pg_prepared_xacts pg_file_settings pg_stat_xact_all_tables "
    b"pg_backend_memory_contexts".split()
)


def _is_harmless(word: bytes, earlier: bytes, vouched: frozenset[bytes]) -> bool:
    """Is `word`, which stands before a parenthesis and behind `earlier`, no call, or one of a harmless function?"""
    if word in _WORDS_BETWEEN and earlier in _WORDS_BETWEEN[word]:
        return True
    return word in _WORDS_BEFORE_PARENTHESES or word in HARMLESS or word in vouched
