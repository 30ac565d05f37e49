"""Functions that a `where` may call: those that look at their arguments, cost little, and reach nothing else.

A list of what is allowed, and not of what is dangerous, so that a newer DuckDB cannot add a way out. Left out on
purpose: whatever reads a file, a setting, a variable, the clock or chance, runs other SQL, aggregates, or builds values
far larger than its arguments, alone or nested (`repeat`, `lpad`, `range`, `replace`, `array_to_string`).
"""

_OPERATORS = (
    "! !~~ !~~* % & * ** + - -> ->> / // < << <@ ^@ > >> @> ^ | || ~ ~~ ~~* ~~~"
    " ilike_escape like_escape not_ilike_escape not_like_escape"
)

_NUMBERS = (
    "abs add bit_count ceil ceiling divide even exp fdiv floor fmod greatest isfinite isinf isnan least ln log"
    " log10 log2 mod multiply pow power round round_even sign signbit sqrt subtract trunc"
)

_TEXT = (
    "ascii bit_length char_length character_length concat contains damerau_levenshtein editdist3 ends_with hamming"
    " instr jaccard jaro_similarity jaro_winkler_similarity lcase left len length length_grapheme levenshtein lower"
    " ltrim mismatches nfc_normalize octet_length ord parse_dirname parse_dirpath parse_filename parse_path position"
    " prefix regexp_extract regexp_extract_all regexp_full_match regexp_matches regexp_split_to_array reverse right"
    " rtrim split split_part starts_with str_split string_split string_to_array strip_accents strlen strpos substr"
    " substring suffix translate trim ucase unicode upper"
)

_TIME = (
    "century date_add date_diff date_part date_sub date_trunc datediff datepart datesub datetrunc day dayname"
    " dayofmonth dayofweek dayofyear decade epoch epoch_ms epoch_ns epoch_us era hour isodow isoyear julian last_day"
    " make_date make_time make_timestamp microsecond millennium millisecond minute month monthname quarter second"
    " strftime strptime time_bucket to_days to_hours to_minutes to_months to_seconds to_timestamp to_weeks to_years"
    " try_strptime week weekday weekofyear year yearweek"
)

_NESTED = (
    "array_contains array_has array_has_all array_has_any array_length array_position array_value cardinality"
    " element_at flatten json_array_length json_contains json_exists json_extract json_extract_path"
    " json_extract_path_text json_extract_string json_keys json_type json_valid json_value list_any_value list_avg"
    " list_contains list_count list_distinct list_element list_extract list_first list_has list_has_all list_has_any"
    " list_indexof list_last list_max list_median list_min list_pack list_position list_sort list_sum list_unique"
    " list_value map map_contains map_extract map_extract_value map_keys map_values row struct_extract struct_pack"
)

_OTHERS = "constant_or_null if ifnull nullif typeof"

ALLOWED_FUNCTIONS = frozenset(" ".join((_OPERATORS, _NUMBERS, _TEXT, _TIME, _NESTED, _OTHERS)).split())
