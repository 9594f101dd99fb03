"""Times, written and read."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potofs import times
from tests.journal.test_record_properties import quick

#: The years 1 to 9999, in seconds since 1970.
seconds = st.integers(-62_135_596_800, 253_402_300_799)


@quick
@given(seconds, st.integers(0, 999_999_999))
def test_a_time_comes_back_to_the_millisecond(second: int, rest: int) -> None:
    written = times.iso(second * 1_000_000_000 + rest)
    assert len(written) == 24
    assert times.nanoseconds(written) == second * 1_000_000_000 + rest // 1_000_000 * 1_000_000


@quick
@given(st.datetimes(), st.integers(-23 * 60, 23 * 60))
def test_a_time_in_any_zone_is_the_same_moment(moment: datetime, minutes: int) -> None:
    moment = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    try:
        expected = (moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    except OverflowError:
        assert times.nanoseconds(moment.isoformat()) is None
        return
    found = times.nanoseconds(moment.isoformat())
    assert found == expected
    # What was read can be written.
    assert times.nanoseconds(times.iso(found)) == found // 1_000_000 * 1_000_000


@quick
@given(st.text() | st.from_regex(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?", fullmatch=True))
def test_any_text_is_a_time_or_none_and_what_is_one_can_be_written(text: str) -> None:
    found = times.nanoseconds(text)
    assert found is None or times.nanoseconds(times.iso(found)) == found // 1_000_000 * 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-15T10:30:00.000Z",
        "2024-01-15T10:30:00Z",
        "2024-01-15t10:30z",
        "2024-01-15 10:30:00",
        "2024-01-15\t 10:30:00 Z",
        "2024-01-15T12:30:00+02:00",
        "2024-01-15T12:30:00.000 +0200",
        "2024-01-15 05:00:00,0 -05:30",
        "2024-01-15T12:30+02",
    ],
)
def test_every_form_of_rfc_3339_and_yaml_is_read(text: str) -> None:
    assert times.nanoseconds(text) == 1_705_314_600_000_000_000


def test_a_bare_date_is_midnight_and_nanoseconds_are_kept() -> None:
    assert times.nanoseconds("2024-01-15") == 1_705_276_800_000_000_000
    assert times.nanoseconds("2024-01-15T10:30:00.123456789Z") == 1_705_314_600_123_456_789


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "2024", "2024-1-5", "2024-13-01", "2024-02-30", "2024-01-15T25:00", "2024-01-15T10:30:00+99:00"),
        *("2024-01-15T10:30:00.000Zx", "2024-01-15T10:30:00.000Z\n", "2024-01-15T10:30:00\n", "20240115T103000Z"),
        *("２０２４-01-15", "0000-01-01", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-00:01", "-2024-01-15"),
    ],
)
def test_what_names_no_time_is_none(text: str) -> None:
    assert times.nanoseconds(text) is None


def test_a_year_of_three_digits_is_written_with_its_zero() -> None:
    assert times.iso(-30_641_760_000_000_000_000) == "0999-01-01T00:00:00.000Z"


def test_the_compact_form_has_no_character_that_a_file_name_had_better_not_have() -> None:
    assert times.compact(1_705_314_600_123_999_999) == "20240115T103000.123Z"


def test_now_is_between_before_and_after() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    assert before <= datetime.fromisoformat(times.now()) <= datetime.now(UTC)
