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
begin behind such an opener, which is then left over.
"""

import enum
from collections.abc import Iterable
from typing import Final

from protocol.statements import Kind, classify
from protocol.tokens import MARK, NAME, WORD, tokens

MAX_LENGTH: Final = 1_000  # bytes of a text that is looked at
_ENCODINGS: Final = frozenset({"utf8", "sql_ascii", "latin1", "latin9", "win1252"})  # in which a quote is a quote

ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
"""A message in which each digit is a `0`: alike only for texts of one shape, and of one length."""


class Verdict(enum.Enum):
    """Whether texts of a shape may share a line; else why not."""

    FIT = "fit"
    SEVERAL = "not a single statement"
    WRITES = "not a read"
    CALLS = "calls a function that is not known to be harmless"
    UNREAD = "not understood"


FIT, SEVERAL, WRITES, CALLS, UNREAD = Verdict

_WORDS_BEFORE_PARENTHESES: Final = frozenset(
    b"all and any array as between by case cast cross cube distinct else except exists filter from full group grouping "
    b"having ilike in inner intersect interval into is join lateral left like limit materialized natural not offset "
    b"on or order outer over partition right rollup row rows select sets similar some symmetric then union unique "
    b"using values when where window with within "
    # types with a size
    b"bit char character dec decimal float nchar numeric time timestamp varbit varchar varying".split()
)

HARMLESS: Final = frozenset(
    b"abs acos age array_agg array_append array_cat array_dims array_length array_lower array_position array_positions "
    b"array_prepend array_remove array_replace array_to_json array_to_string array_upper ascii asin atan atan2 avg "
    b"bit_and bit_length bit_or bool_and bool_or btrim cardinality cbrt ceil ceiling char_length character_length chr "
    b"coalesce concat concat_ws corr cos cot count covar_pop covar_samp cume_dist date date_bin date_part date_trunc "
    b"decode degrees dense_rank div encode every exp extract first_value float4 float8 floor format format_type gcd "
    b"greatest initcap int2 int4 int8 isfinite json_agg json_array_elements json_array_elements_text json_array_length "
    b"json_build_array json_build_object json_each json_each_text json_extract_path json_extract_path_text "
    b"json_object json_object_agg json_object_keys json_strip_nulls json_to_record json_to_recordset json_typeof "
    b"jsonb_agg jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object "
    b"jsonb_each jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_agg "
    b"jsonb_object_keys jsonb_path_exists jsonb_path_match jsonb_path_query jsonb_path_query_array "
    b"jsonb_path_query_first jsonb_pretty jsonb_set jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_typeof "
    b"justify_days justify_hours justify_interval lag last_value lcm lead least left length ln log log10 lower lpad "
    b"ltrim make_date make_interval make_time make_timestamp make_timestamptz max md5 min mod mode nth_value ntile "
    b"nullif num_nonnulls num_nulls octet_length overlay percent_rank percentile_cont percentile_disc pi "
    b"plainto_tsquery position power quote_ident quote_literal quote_nullable radians rank regexp_count regexp_instr "
    b"regexp_like regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table "
    b"regexp_substr repeat replace reverse right round row_number row_to_json rpad rtrim sha224 sha256 sha384 sha512 "
    b"sign sin split_part sqrt starts_with stddev stddev_pop stddev_samp string_agg string_to_array strpos substr "
    b"substring sum tan text timezone to_char to_date to_hex to_json to_jsonb to_number to_timestamp to_tsquery "
    b"to_tsvector translate trim trunc ts_headline ts_rank ts_rank_cd unnest upper var_pop var_samp variance "
    b"width_bucket".split()
)


def is_readable(encoding: str) -> bool:
    """Does an ASCII byte always mean itself in texts of this client_encoding?"""
    return encoding.lower().replace("-", "") in _ENCODINGS


def fold(text: bytes) -> str | None:
    """The shape of `text`: alike for texts that differ in their values. None: it has none that is cheap and certain.

    Linear, 0.5 us. The text is that of a client with standard_conforming_strings on and a readable encoding. Looks at a
    str, since `in` takes a fifth there.
    """
    zeros = text.translate(ZEROS).replace(b"00000000", b"0").replace(b"0000", b"0").replace(b"00", b"0")
    shape = zeros.replace(b"00", b"0").decode("latin-1")
    if "\\" in shape:
        return None
    if "'" in shape:
        parts = shape.split("'")
        if len(parts) % 2 == 0:
            return None
        shape = "'?'".join(parts[::2])
    return None if '"' in shape or "$" in shape or "--" in shape or "/*" in shape else shape


def judge(shape: str | None, vouched: Iterable[bytes] = ()) -> Verdict:
    """May the texts of this shape share a line? `vouched` are functions, in lower case, without schema."""
    if shape is None or len(shape) > MAX_LENGTH:
        return UNREAD
    text = shape.encode("latin-1")
    statement = classify(text)
    if not statement.is_single:
        return SEVERAL
    if statement.kind is Kind.SHOW:
        return UNREAD  # it speaks of the session
    if statement.kind is not Kind.READ:
        return WRITES
    return _judge_calls(text, frozenset(vouched))


def _judge_calls(text: bytes, vouched: frozenset[bytes]) -> Verdict:
    """By the word in front of each parenthesis. Key words that are functions without one speak of the session."""
    before = b""
    is_name = is_qualified = False
    for match in tokens(text):
        kind = match.lastindex or 0
        token = match[kind].lower()
        if kind == WORD and token in _OF_SESSION:
            return CALLS
        if token == b"(" and (is_name or is_qualified or not _is_harmless(before, vouched)):
            return CALLS
        if kind in (WORD, NAME):
            is_qualified = before == b"."
            is_name = kind == NAME
        elif kind == MARK and token == b".":
            is_name = is_qualified = False
        else:
            is_name = is_qualified = False
        before = token if kind in (WORD, NAME, MARK) else b""
    return FIT


_OF_SESSION: Final = frozenset(
    b"current_catalog current_role current_schema current_user session_user system_user user "
    b"pg_prepared_statements pg_cursors pg_settings pg_listening_channels pg_my_temp_schema pg_temp pg_stat_activity "
    b"pg_locks pg_prepared_xacts pg_file_settings pg_stat_xact_all_tables pg_backend_memory_contexts".split()
)


def _is_harmless(word: bytes, vouched: frozenset[bytes]) -> bool:
    """Is what stands before a parenthesis no call, or one of a harmless function?"""
    return not word[:1].isalpha() or word in _WORDS_BEFORE_PARENTHESES or word in HARMLESS or word in vouched
