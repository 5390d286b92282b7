//! What holds of connections whatever carries them: the same cases for every carrier. How QUIC does it is in its own tests.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

pub mod access;
pub mod lines;
pub mod members;

/// A test of each case, on the ground that `$run` gives it.
macro_rules! cases {
    ($run:path) => {
        $crate::suite::cases! { @ $run,
            access:
                every_role_can_send_what_the_table_says_and_nothing_else,
                certificates_that_are_not_good_open_nothing,
                without_a_certificate_one_can_only_ask_for_one,
                a_manager_with_another_root_is_not_joined,
                a_node_is_only_who_its_certificate_says,
                a_removed_node_is_cut_off_at_once_and_refused,
                renewing_drops_no_stream,
                peers_notice_a_node_that_was_killed_and_started_again,
                a_promoted_node_speaks_with_its_new_role,
                a_renewed_certificate_is_what_others_see_from_then_on,
                a_node_that_left_is_heard_no_more,
                who_meant_a_node_that_left_is_not_answered_by_the_one_in_its_place,
                calls_to_nobody_end_in_time,
                large_messages_pass_and_larger_are_refused_by_name,
                no_connection_is_ever_resumed;
            lines:
                both_ends_know_who_the_other_is,
                what_is_written_is_read_in_order_and_then_the_end,
                what_is_let_go_is_finished_and_the_other_way_goes_on,
                nothing_is_written_behind_the_end,
                a_read_that_is_given_up_loses_nothing,
                a_writer_waits_for_its_reader,
                a_writer_without_a_reader_is_told,
                streams_come_in_the_order_of_their_opening,
                who_has_too_many_streams_open_waits_for_some_to_end,
                the_other_end_is_told_why_a_line_is_closed,
                what_came_before_the_end_of_a_line_is_still_there,
                a_line_is_closed_with_the_last_that_is_held_of_it,
                a_line_hears_the_other_end,
                a_dial_that_is_given_up_leaves_nothing,
                without_a_certificate_nobody_is_accepted,
                a_closed_carrier_tells_everybody_and_opens_nothing,
                silence_is_noticed;
            members:
                nodes_find_each_other_hear_values_and_notice_a_dead_one,
                who_comes_back_is_known_by_its_new_incarnation,
                another_cluster_is_not_heard
        }
    };
    (@ $run:path, $($module:ident: $($case:ident),+);+) => {
        $($(
            #[test]
            fn $case() {
                $run($crate::suite::$module::$case);
            }
        )+)+
    };
}
pub(crate) use cases;
