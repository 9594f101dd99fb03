"""The conformance suite as the author of a plug-in has it: an installed backend passes, and a broken one does not."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from potofs import open_journal
from potofs.config import Where
from potofs.testing import BackendConformance, OpenBackend
from tests import broken
from tests.shelf import ShelfBackend

pytest_plugins = ["pytester"]

places = itertools.count()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package whose entry point offers the backend of `tests.shelf`."""
    information = tmp_path / "site/potofs_shelf-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: potofs-shelf\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[potofs.backends]\nshelf = tests.shelf:ShelfBackend\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


class TestShelf(BackendConformance):
    """A plug-in's own tests."""

    @pytest.fixture
    def open_backend(self, installed: None) -> OpenBackend:
        place = str(next(places))
        return lambda **settings: open_journal(Where("shelf", place, settings)).backend


# A broken backend fails

MODEL = "it_holds_what_a_plain_model_holds_after_every_step"

#: What each broken shelf fails, of what the suite asks for.
FAILS: dict[type[ShelfBackend], tuple[str, ...]] = {
    broken.DropsTheSeam: (
        "nothing_is_glued_to_a_torn_tail",
        "what_others_append_to_it_afterwards_is_not_glued_to_it",
    ),
    broken.AppendsInFront: ("what_was_appended_is_read_back_byte_by_byte",),
    broken.CutsLargeRecords: ("a_record_of_a_megabyte_is_stored_whole",),
    broken.StoresABatchInPieces: (
        "a_conversation_is_archived_once_the_whole_batch_that_reached_the_threshold_is_in_it",
        "appends_of_several_threads_are_all_stored_each_whole_and_in_its_writers_order",
    ),
    broken.LosesAppendsOfOthers: (
        "a_restored_conversation_goes_on",
        "appends_of_several_threads_are_all_counted",
    ),
    broken.LeavesOutWhoIsNotThere: ("of_many_users_it_tells_at_once_when_they_changed_and_who_is_not_there",),
    broken.LeavesOutArchivesThatAreNotThere: ("of_many_archives_it_tells_at_once_what_they_are_and_which_are_missing",),
    broken.LeavesOutWhatIsNotSetAside: ("of_many_it_tells_at_once_what_they_are_and_which_are_not_there",),
    broken.NeverWorksWithoutWaiting: ("an_append_without_waiting_succeeds_where_nobody_else_writes",),
    broken.ReadsTheWholeRest: (
        "a_compressed_archive_is_read_by_several_threads_at_once",
        "any_range_of_a_compressed_archive_can_be_read",
        "any_range_of_bytes_can_be_read",
        "whoever_reads_an_archive_goes_on_when_it_is_compressed",
    ),
    broken.ReadsACopy: ("a_reader_sees_what_is_appended_while_it_is_open",),
    broken.ReadsByName: (
        "whoever_reads_a_conversation_goes_on_when_it_is_archived",
        "whoever_reads_an_archive_goes_on_when_it_is_renamed",
        "whoever_reads_goes_on_when_conversations_are_swapped",
        "a_compressed_archive_can_be_renamed_and_restored_and_goes_on",
    ),
    broken.FindsEmptyConversations: ("what_is_not_there_is_not_found",),
    broken.PutsNothing: ("a_copy_of_nothing_is_no_conversation",),
    broken.MakesUsersWhenItSyncs: ("sync_is_for_any_user_with_a_conversation_or_without",),
    broken.ArchivesWhenItSyncs: ("sync_is_for_what_was_archived_too",),
    broken.HasOneNumberForAll: (
        "a_conversation_keeps_its_number_while_it_grows",
        "an_archive_keeps_bytes_number_and_time",
    ),
    broken.StoresSecondTries: (
        "a_second_try_is_known_whichever_server_stored_or_archived_the_first",
        "opaque_bytes_are_nothing_to_a_backend",
        "a_second_try_is_stored_once",
    ),
    broken.TakesAllForSecondTries: ("a_message_that_is_no_second_try_is_stored_again",),
    broken.KnowsWhatOthersSaid: ("a_second_try_is_of_the_same_user",),
    broken.ForgetsWhatItScanned: (
        "copies_are_counted_as_what_they_hold",
        "a_second_try_is_known_in_what_was_copied",
    ),
    broken.TakesTheFirstArchiveForTheNewest: (
        "a_second_try_is_known_in_the_newest_archive_and_not_in_older_ones",
        "a_second_try_is_known_in_the_newest_archive_whatever_its_name",
        "the_newest_archive_is_the_one_that_was_appended_to_last",
    ),
    broken.TakesAlikeIdsForOne: (
        "a_user_may_have_any_id",
        "a_user_of_any_id_has_archives",
        "users_of_hostile_ids_are_apart",
    ),
    broken.HasOnlyOneUser: ("conversations_of_users_are_apart",),
    broken.TakesAnyName: (
        "a_name_that_no_archive_can_have_changes_nothing",
        "no_archive_gets_a_name_that_none_can_have",
        "an_id_that_no_user_can_have_is_refused",
        "a_name_that_no_archive_can_have_is_told_also_where_there_is_nothing_to_call_so",
    ),
    broken.LooksAtANameLast: ("a_name_that_no_archive_can_have_is_told_also_where_there_is_nothing_to_call_so",),
    broken.MakesUsersAnew: (
        "a_user_is_created_once_with_a_profile",
        "whoever_is_appended_to_or_copied_is_a_user",
    ),
    broken.HidesUsersWithoutProfile: ("another_server_sees_everything_at_once",),
    broken.ChangesUsersAllTheTime: ("a_user_changes_when_a_conversation_comes_and_not_when_it_grows",),
    broken.NeverChangesUsers: (
        "a_user_changes_when_a_conversation_is_archived",
        "a_user_changes_when_an_archive_is_renamed",
    ),
    broken.Replaces: (
        "a_compressed_archive_is_not_replaced",
        "a_running_conversation_is_never_replaced",
        "an_archive_is_never_replaced",
        "no_archive_is_replaced_by_a_renamed_one",
    ),
    broken.TidiesCopies: (
        "a_copy_is_stored_as_it_is_with_its_time",
        "archives_are_copied_as_they_are_with_their_time",
        "copies_are_counted_as_what_they_hold",
    ),
    broken.HasOnlySeconds: (
        "the_time_of_an_archive_can_be_set",
        "times_can_be_set_and_an_append_sets_them_anew",
    ),
    broken.NeverSetsTimesByItself: ("size_and_time_follow_every_append",),
    broken.KeepsTheFirstProfile: ("a_profile_takes_the_place_of_another_with_its_time",),
    broken.MakesUsersWithTheirProfile: ("who_is_no_user_gets_no_profile_and_who_has_none_may_get_one",),
    broken.PutsProfilesBehindTheFence: ("nothing_is_changed_by_any_server_until_it_is_open_again",),
    broken.SetsChangesInSeconds: (
        "when_a_user_changed_can_be_set_until_the_next_change_or_stays",
        "when_users_were_added_can_be_set_until_the_next_or_stays",
    ),
    broken.MakesUsersByTheirTime: ("nobody_becomes_a_user_by_a_time",),
    broken.RemembersArchivesByTheirTime: ("what_is_known_of_archives_goes_by_no_time_that_can_be_set",),
    broken.ExtendsWithASeam: (
        "a_copy_goes_on_where_it_ended_wherever_that_was",
        "nothing_is_put_between_or_left_out",
    ),
    broken.ExtendsWithoutCounting: (
        "a_copy_goes_on_where_it_ended_wherever_that_was",
        "a_message_that_goes_on_is_known_as_what_it_has_become",
    ),
    broken.ExtendsAtThePresentTime: ("nothing_is_put_between_or_left_out",),
    broken.ExtendsWhateverIsThere: ("only_what_was_seen_goes_on",),
    broken.ExtendsWhatIsNotThere: ("what_is_not_there_does_not_go_on",),
    broken.ExtendsAsFarAsItLooked: ("whoever_is_first_goes_on_and_the_other_is_told",),
    broken.ExtendsBehindTheFence: ("what_not_every_backend_can_change_is_not_changed_behind_it",),
    broken.ReplacesWhatWasSetAside: ("a_copy_is_kept_under_its_name_and_time_and_never_replaced",),
    broken.SetsAsideUnderAnyName: ("no_copy_is_set_aside_under_a_name_that_none_can_have",),
    broken.SetsCopiesAsideBehindTheFence: ("nothing_is_changed_by_any_server_until_it_is_open_again",),
    broken.SetsAsideUnderOneName: (
        "each_is_called_by_the_time_and_none_is_replaced",
        "what_is_set_aside_can_be_listed_read_and_removed",
    ),
    broken.SetsAsideAsMessages: (
        "it_belongs_to_no_conversation_and_no_other_user",
        "what_is_set_aside_is_not_counted",
    ),
    broken.Clears: (
        "a_conversation_can_be_cleared_only_where_it_cannot_be_archived",
        "clearing_is_refused_too",
    ),
    broken.CopiesWhatMoves: (
        "a_renamed_archive_keeps_bytes_number_and_time",
        "an_archive_becomes_the_running_conversation_with_bytes_number_and_time",
    ),
    broken.LeavesWhatMoves: (
        "an_archive_may_get_any_name",
        "an_archive_of_any_name_can_be_restored",
        "archives_may_have_hostile_names",
        "the_old_name_is_free_again",
        "without_a_swap_an_archive_is_restored_where_nothing_runs",
    ),
    broken.LosesWhatMoves: (
        "an_archive_may_get_any_name",
        MODEL,
    ),
    broken.ArchivesNothing: (
        "a_conversation_that_nothing_was_appended_to_is_none",
        "nothing_can_be_archived_where_nothing_runs",
    ),
    broken.ArchivesWhatGoesOn: ("what_was_appended_to_meanwhile_is_not_archived_as_idle",),
    broken.NamesByNumber: (
        "a_running_conversation_becomes_an_archive_called_by_the_time",
        "an_archive_without_a_name_is_called_by_the_time_and_none_is_replaced",
        "restoring_to_and_fro_replaces_nothing",
    ),
    broken.SharesArchives: ("an_archive_is_of_one_user",),
    broken.ArchivesTooLate: (
        "a_threshold_of_0_never_archives",
        "threads_that_cross_the_threshold_together_archive_once",
    ),
    broken.CountsItsOwnMessagesOnly: ("the_threshold_is_reached_once_whoever_crosses_it",),
    broken.ArchivesWhatIsRestored: ("a_restored_conversation_is_archived_at_its_threshold_by_the_next_append",),
    broken.SwapsAlways: (
        "refused_changes_are_not_counted",
        "without_a_swap_nothing_is_restored_over_a_running_conversation",
    ),
    broken.SwapsNever: ("a_second_try_of_what_was_swapped_out_is_known",),
    broken.SwapsBeforeItLooks: (
        "another_server_sees_what_was_restored",
        "what_is_not_there_is_not_restored_and_nothing_changes",
    ),
    broken.RenamesWhatIsNotThere: ("what_is_not_there_cannot_be_renamed",),
    broken.CompressesForNothing: (
        "what_is_compressed_is_not_compressed_again",
        "what_would_not_get_smaller_stays_as_it_is",
    ),
    broken.CompressesIntoAnother: ("a_compressed_archive_takes_less_and_is_otherwise_the_same",),
    broken.CompressesLossily: ("a_compressed_archive_is_read_by_several_threads_at_once",),
    broken.CompressesWhatIsNotThere: ("what_is_not_there_cannot_be_compressed",),
    broken.SavesNothing: (
        "a_compressed_archive_takes_less_and_is_otherwise_the_same",
        "a_second_try_is_known_in_a_compressed_archive",
    ),
    broken.ForgetsEverything: ("what_was_stored_is_there_when_it_is_opened_again_where_it_lasts",),
    broken.HasAPlaceOfItsOwn: (
        "a_second_try_at_the_same_time_is_stored_once",
        "a_second_try_is_known_whichever_server_stored_the_first",
    ),
    broken.IsPreparedAnew: ("a_place_may_be_prepared_again",),
    broken.IsFull: ("the_place_says_how_full_it_is",),
    broken.CountsOnce: (
        "appends_are_counted_and_second_tries_are_not",
        "moving_conversations_changes_only_what_is_counted_as_running_or_archived",
    ),
    broken.CountsSomebodyMore: (
        "appends_of_several_threads_are_all_counted",
        "archives_by_themselves_are_counted",
        "nothing_is_counted_where_nothing_is",
        "what_is_cleared_is_not_counted",
    ),
    broken.CountsWhatItWasAskedFor: ("copies_are_counted_as_what_they_hold",),
    broken.CountsWhatFitsInto64Bits: ("messages_of_any_year_are_counted",),
    broken.CountsUncompressed: ("compressing_changes_only_the_bytes",),
    broken.ForgetsTheFence: (
        "no_archive_is_changed_by_any_server_until_it_is_open_again",
        "nothing_is_compressed_until_it_is_open_again",
        "nothing_is_changed_by_any_server_until_it_is_open_again",
    ),
    broken.LooksAtTheFenceTooEarly: ("once_it_is_set_no_change_is_under_way_that_did_not_see_it",),
    broken.FindsFaultsEverywhere: ("nothing_is_wrong_with_a_place_in_use_and_nothing_is_changed",),
    broken.RewritesNothing: ("other_bytes_take_the_place_of_a_conversations_or_it_says_that_it_cannot",),
    broken.RewritesWhateverIsThere: ("only_what_was_seen_gets_other_bytes",),
    broken.RewritesAtTheTimeThatItHad: ("other_bytes_come_at_once_with_the_time_that_is_given",),
    broken.RewritesToNothing: ("without_any_bytes_there_is_no_running_conversation",),
    broken.RewritesBehindTheFence: (
        "no_conversation_gets_other_bytes_behind_a_fence",
        "what_not_every_backend_can_change_is_not_changed_behind_it",
    ),
    broken.RewritesWhateverIsStoredOfAUser: ("what_is_stored_of_a_user_is_replaced_only_as_it_was_seen",),
    broken.LogsInFront: ("lines_are_added_at_its_end",),
    broken.LogsAsFarAsItLooked: ("lines_of_several_threads_are_all_there_and_whole",),
    broken.LogsNothingWhileItIsFrozen: ("the_log_can_be_written_behind_it",),
    broken.RefusesWhatWasRefusedWhileItIsFrozen: ("what_was_refused_is_kept_behind_it_and_not_removed",),
    broken.LogsForAUser: ("it_is_nothing_that_is_counted",),
    broken.IsFrozenForReadersToo: ("everything_can_be_read_behind_it",),
    broken.IsFrozenFromTheStart: ("the_fence_is_open_in_the_beginning",),
}

BEHAVIOURS = {name.removeprefix("test_") for name in dir(BackendConformance) if name.startswith("test_")}


@pytest.fixture
def without_shrinking() -> Iterator[None]:
    """Hypothesis reports what it finds first: looking for the simplest takes it half a minute."""
    before = settings.get_current_profile_name()
    settings.register_profile("without shrinking", settings(), phases=[Phase.generate])
    settings.load_profile("without shrinking")
    yield
    settings.load_profile(before)


@pytest.mark.usefixtures("without_shrinking")
@pytest.mark.parametrize("kind", FAILS, ids=lambda kind: kind.__name__)
def test_a_broken_backend_does_not_pass(pytester: pytest.Pytester, kind: type[ShelfBackend]) -> None:
    pytester.makepyfile(
        test_broken=f"""
        import pytest
        from potofs.testing import BackendConformance
        from tests import broken

        class TestBroken(BackendConformance):
            @pytest.fixture
            def open_backend(self):
                return broken.opener(broken.{kind.__name__})
        """
    )
    chosen = [f"test_broken.py::TestBroken::test_{behaviour}" for behaviour in FAILS[kind]]
    # One place is enough for the model.
    nodes = [f"{node}[0]" if node.endswith(MODEL) else node for node in chosen]
    reports = pytester.inline_run("-p", "no:cacheprovider", *nodes).getreports("pytest_runtest_logreport")
    failed = {report.nodeid.partition("[")[0] for report in reports if report.failed and report.when == "call"}
    assert failed == set(chosen)


def test_every_behaviour_is_failed_by_some_broken_backend() -> None:
    assert {behaviour for failed in FAILS.values() for behaviour in failed} == BEHAVIOURS


def test_every_broken_backend_is_tried() -> None:
    assert set(FAILS) == {kind for kind in ShelfBackend.__subclasses__() if kind.__module__ == broken.__name__}


def test_no_part_of_the_suite_hides_a_behaviour_of_another() -> None:
    defined = [name for part in BackendConformance.__bases__ for name in vars(part) if name.startswith("test_")]
    assert len(defined) == len(set(defined)) == len(BEHAVIOURS)


# What whoever uses it is told


def test_whoever_lacks_what_it_needs_is_told_which_extra_to_install() -> None:
    code = "import sys; sys.modules['hypothesis'] = None; import potofs.testing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ImportError: potofs.testing needs hypothesis" in done.stderr
    assert "pip install 'potofs[testing]'" in done.stderr


def test_whoever_forgets_the_fixture_is_told_to_write_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("from potofs.testing import BackendConformance\nclass TestNothing(BackendConformance): pass\n")
    result = pytester.runpytest("-p", "no:cacheprovider", "-k", "nothing_is_counted")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*NotImplementedError: define a fixture `open_backend` in this class*"])
