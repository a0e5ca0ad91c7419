//! One contract, kept by both back ends. `PostgreSQL` takes part when `TEST_POSTGRES_URL` names a
//! server where schemas and databases may be made.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod budgets;
mod changes;
mod erasure;
mod faults;
mod given;
mod health;
mod keys;
mod lead;
mod ledger;
mod log;
mod place;
mod postgres_only;
mod proxy;
mod prune;
mod rotations;
mod sequencing;
mod sqlite_only;
mod stale;
mod tree;
mod usage;
mod windows;

/// Each line becomes one test per back end.
macro_rules! contract {
    ($($room:ident::$test:ident,)*) => {
        mod sqlite {
            $(
                #[tokio::test]
                async fn $test() {
                    crate::$room::$test(&crate::place::Place::file()).await;
                }
            )*
        }

        mod postgres {
            $(
                #[tokio::test]
                async fn $test() {
                    if let Some(place) = crate::place::Place::server().await {
                        crate::$room::$test(&place).await;
                    }
                }
            )*
        }
    };
}

contract![
    log::indexes_are_contiguous_under_64_writers,
    log::the_frontier_is_that_of_the_leaf_hashes,
    log::a_batch_may_have_any_size,
    log::a_change_cannot_be_recorded_without_being_made,
    log::time_never_goes_back,
    log::records_come_in_pages,
    log::changes_are_found_among_other_records,
    log::a_lease_is_found_by_its_hash,
    log::live_leases_are_those_that_have_not_ended,
    log::a_lease_is_live_once_and_until_it_is_released_or_revoked,
    tree::nodes_are_kept_with_the_record_that_completes_them,
    tree::proofs_by_stored_nodes_hold,
    tree::a_failing_batch_leaves_no_node_behind,
    tree::a_lost_node_is_corrupt,
    log::the_checkpoint_of_the_largest_tree_stays,
    log::access_rules_are_kept_as_they_were_put_in,
    log::a_proposed_request_is_kept_until_its_time_is_up,
    log::approvals_are_all_that_is_kept_of_themselves,
    log::an_approval_is_spent_by_what_it_was_given_for,
    log::a_person_is_found_by_handle_and_by_commitment,
    health::how_a_credential_fares_is_told_to_all,
    health::what_is_known_of_a_later_rest_or_revision_stays,
    health::one_of_all_brokers_claims_a_probe,
    lead::one_holder_leads_until_its_time_is_up_or_it_resigns,
    lead::the_clock_of_the_database_is_told,
    lead::changes_of_one_kind_are_found,
    log::how_far_a_sink_is_stays_as_it_was_put,
    log::an_append_that_nobody_waits_for_is_finished,
    log::everything_is_there_after_reopening,
    log::a_closed_store_is_unavailable,
    prune::what_remains_of_a_pruned_log_is_whole,
    prune::only_whole_bundles_are_pruned_and_each_once,
    prune::a_pruned_log_needs_a_fifth_of_the_storage,
    stale::what_was_decided_before_a_change_is_stale,
    stale::a_change_of_another_tenant_makes_nothing_stale,
    stale::a_change_in_the_same_batch_makes_its_tenant_stale,
    stale::a_change_that_names_no_tenant_is_every_tenants,
    stale::what_was_decided_too_many_changes_ago_is_stale,
    stale::what_was_decided_by_a_log_that_is_gone_is_stale,
    changes::every_row_reads_back_as_written,
    changes::the_last_test_of_a_credential_is_kept_as_long_as_it,
    changes::a_name_is_taken_once,
    changes::an_update_needs_the_revision_before,
    changes::a_deleted_credential_takes_its_versions_along,
    rotations::a_rotation_reads_back_in_each_of_its_states,
    rotations::what_is_due_is_found_by_name_in_pages,
    rotations::a_version_is_dropped_with_the_change_that_says_so,
    changes::a_failing_change_leaves_nothing_behind,
    changes::a_failing_record_leaves_no_change_behind,
    changes::lists_are_ordered_by_the_bytes_of_names,
    usage::a_call_is_counted_once,
    usage::a_version_has_served_once_a_call_was_answered_well,
    usage::sums_are_exact,
    usage::sums_are_told_apart_by_what_is_asked_for,
    usage::calls_are_listed_the_latest_first,
    usage::what_does_not_fit_is_refused_whole,
    usage::calls_counted_at_once_by_two_brokers_are_all_in_the_sum,
    usage::what_is_old_is_forgotten,
    usage::prices_are_kept_as_they_were_put_in,
    budgets::a_budget_reads_back_as_written_and_changes_by_its_revision,
    budgets::an_allowance_is_reserved_in_all_of_its_budgets_or_in_none,
    budgets::a_settlement_counts_once_and_contradicts_nothing,
    budgets::only_an_attempt_that_nobody_heard_of_is_undone,
    budgets::what_expires_is_unknown_until_it_is_reconciled,
    budgets::what_has_ended_is_recorded_once_and_then_forgotten,
    budgets::a_race_for_a_cap_gives_out_all_of_it_and_no_more,
    budgets::managed_spend_is_a_part_of_what_was_spent,
    budgets::a_shadow_says_once_that_a_hard_budget_would_have_refused,
    budgets::an_alert_is_raised_again_when_its_window_had_emptied,
    windows::a_window_that_ends_under_load_loses_no_update,
    windows::a_new_day_has_all_of_its_cap_whatever_is_open_of_the_old_one,
    windows::what_a_dead_proxy_held_is_back_after_its_time_and_outlives_brokers,
    ledger::the_store_says_what_the_ledger_says,
    erasure::a_share_is_kept_until_it_is_destroyed_and_never_again,
    erasure::a_tenant_is_erased_with_all_that_it_owns_and_nothing_else,
    erasure::an_erased_credential_waits_for_its_receipt,
    erasure::columns_that_find_a_record_are_held_against_it,
    erasure::a_row_that_is_nobodys_is_a_stray,
    keys::every_row_under_an_old_version_is_found_and_replaced,
    keys::a_change_that_comes_before_a_replacement_stays,
    keys::a_version_is_deleted_when_nothing_is_under_it,
    keys::nothing_is_written_under_a_version_that_is_gone,
    keys::a_key_is_wrapped_anew_in_the_place_of_what_was_read,
    keys::keys_are_listed_by_id_and_those_due_by_name,
    keys::work_on_keys_is_kept_until_it_is_done,
    faults::a_corrupt_value_is_named,
    faults::a_corrupt_head_stops_the_log,
    faults::a_locked_database_is_unavailable_and_records_nothing,
];
