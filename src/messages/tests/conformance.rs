//! What any log must do: the suite that every kind of log is put under, and the kinds that are.
//!
//! A test is a function over how its log is made. Its name is the promise; `every!` lists them all.

use super::*;
use crate::messages::retention::Rule;

mod consumers;
mod gaps;
mod live;
mod publish;
mod purge;
mod snapshot;
mod start;
mod time;
mod topics;

/// A kind of log: how one is made, opened again, and moved through time.
pub(super) trait Kind: Sized {
    /// An empty log. Its clock moves only by `pass`, and retention runs only by `keep`.
    async fn make(set: impl FnOnce(&mut Config)) -> Self;

    /// The log.
    fn log(&self) -> &Log;

    /// Ends the log, and opens it with what it held.
    async fn reopen(&mut self);

    /// Lets time pass.
    fn pass(&self, time: Duration);

    /// Sets the wall clock.
    fn set_clock(&self, wall: SystemTime);

    /// The wall clock.
    fn now(&self) -> SystemTime;

    /// Starts the machine again, with another wall clock.
    async fn reboot(&mut self, wall: SystemTime);

    /// Enforces retention, and frees what it removed.
    async fn keep(&self);
}

impl Kind for retention::Bed {
    async fn make(set: impl FnOnce(&mut Config)) -> Self {
        Self::with(&[], set).await
    }

    fn log(&self) -> &Log {
        &self.log
    }

    async fn reopen(&mut self) {
        Self::reopen(self).await;
    }

    fn pass(&self, time: Duration) {
        self.config.clock.advance(time);
    }

    fn set_clock(&self, wall: SystemTime) {
        self.config.clock.set(wall);
    }

    fn now(&self) -> SystemTime {
        self.config.clock.now()
    }

    async fn reboot(&mut self, wall: SystemTime) {
        self.log.close().await;
        self.config.clock.reboot(Duration::ZERO);
        self.config.clock.set(wall);
        self.log = Self::open(&self.config).await;
    }

    async fn keep(&self) {
        self.enforce().await;
    }
}

async fn make<K: Kind>() -> K {
    K::make(|_| ()).await
}

/// A log with rules of retention.
async fn make_with<K: Kind>(rules: &[&str]) -> K {
    let rules = rules.iter().map(|rule| rule.parse::<Rule>().unwrap()).collect();
    K::make(|config| config.retention = rules).await
}

async fn publish(log: &Log, topic: &str, content: &str) -> u64 {
    log.publish(text(topic, content)).await.unwrap().sequence.get()
}

/// Publishes one message for each pair of topic and text.
async fn publish_all(log: &Log, messages: &[(&str, &str)]) -> Vec<u64> {
    let mut sequences = Vec::new();
    for (topic, content) in messages {
        sequences.push(publish(log, topic, content).await);
    }
    sequences
}

fn with_ttl(topic: &str, content: &str, milliseconds: u64) -> NewMessage {
    NewMessage { ttl: Some(Duration::from_millis(milliseconds)), ..text(topic, content) }
}

/// A stream that does not end by itself.
fn live(topics: &[&str], start: Start) -> Query {
    Query { stop: Stop::default(), ..query(topics, start) }
}

/// As a query, one message a batch.
fn one_by_one(query: Query) -> Query {
    Query { batching: Batching { max_items: 1, ..query.batching }, ..query }
}

fn with_limit(query: Query, limit: u64) -> Query {
    Query { batching: Batching { limit: Some(limit), ..query.batching }, ..query }
}

async fn error(log: &Log, query: Query) -> Error {
    subscribe(log, query).await.err().expect("no stream")
}

/// The next batch that has messages or events.
async fn news(batches: &mut Batches) -> Batch {
    loop {
        let batch = next(batches).await.expect("the stream goes on");
        if batch.count > 0 || !batch.events.is_empty() {
            return batch;
        }
    }
}

fn texts_in(batch: &Batch) -> Vec<String> {
    decode(batch).iter().map(text_of).collect()
}

/// Where a query that ends leaves its reader.
async fn position(log: &Log, query: Query) -> Position {
    let mut batches = subscribe(log, query).await.unwrap();
    let mut position = None;
    while let Some(batch) = next(&mut batches).await {
        position = Some(batch.position);
    }
    position.unwrap()
}

/// A reader that takes messages until one of a topic comes, so that it has surely read all before it.
async fn until_text(batches: &mut Batches, last: &str) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.last().is_none_or(|seen| seen != last) {
        seen.extend(texts_in(&news(batches).await));
    }
    seen
}

macro_rules! suite {
    ($kind:ty; $($file:ident { $($name:ident)* })*) => {
        $(mod $file {
            $(#[tokio::test]
            async fn $name() {
                super::super::$file::$name::<$kind>().await;
            })*
        })*
    };
}

macro_rules! every {
    ($kind:ty) => {
        suite! { $kind;
            topics {
                a_topic_is_tokens_joined_by_dots
                users_cannot_publish_to_topics_of_the_server
                wildcards_do_not_match_topics_of_the_server
                a_pattern_subscription_gets_each_message_once
                one_sequence_numbers_all_topics_and_is_never_reused
                topics_are_listed_with_what_they_hold
                topics_are_listed_page_by_page
                topics_of_the_server_are_listed_only_by_name
                a_topic_more_than_the_limit_is_refused
            }
            publish {
                a_message_is_read_as_it_was_published
                an_acknowledged_message_is_there_after_a_restart
                each_limit_of_a_message_is_an_error_with_its_numbers
                a_ttl_is_from_a_millisecond_to_ten_years
                an_id_is_scoped_to_its_topic_and_known_for_the_window
                an_id_is_checked_before_the_expected_sequence
                the_ids_of_a_topic_are_limited_also_after_a_restart
                an_expected_sequence_is_that_of_the_topics_last_message
                an_expected_sequence_ignores_expired_messages
                a_batch_is_published_as_neighbours
                a_batch_is_refused_as_a_whole
                an_id_that_was_refused_with_its_batch_is_not_known
                a_flow_is_answered_message_by_message
            }
            start {
                each_start_is_where_it_says
                the_last_messages_are_counted_after_the_patterns
                each_stop_is_where_it_says
                a_sequence_to_stop_at_is_reached_by_messages_of_others
                the_first_stop_that_is_reached_holds
                a_limit_ends_the_stream
                a_stream_continues_after_exactly_the_batch_whose_position_it_is_given
                a_stream_continues_with_other_patterns
                a_sequence_to_come_is_waited_for
                a_position_of_another_log_is_refused
                a_position_ahead_of_the_log_is_refused
                a_query_without_patterns_or_with_a_bad_one_is_refused
            }
            time {
                the_publish_time_is_the_wall_clock_as_it_was_read
                time_selects_and_does_not_position
                a_start_time_selects_up_to_the_head_and_then_everything_comes
                a_position_keeps_its_start_time_until_it_is_past_the_head_of_the_start
                a_time_to_stop_at_selects_up_to_the_head_when_the_clock_has_passed_it
                a_time_selects_from_one_topic_of_many
                a_time_selects_from_the_last_messages_of_topics
                a_ttl_lasts_as_long_whatever_the_clock_shows
                an_id_is_known_as_long_whatever_the_clock_shows
                a_message_is_kept_as_long_whatever_the_clock_shows
                an_early_time_takes_no_message_before_it_along
            }
            live {
                the_first_batch_is_ready_at_once
                history_continues_into_live_messages
                caught_up_is_set_at_the_head
                a_heartbeat_carries_the_head_and_moves_over_messages_of_others
                a_stream_wakes_for_its_own_messages_while_others_are_published
                a_slow_reader_loses_nothing
                a_time_to_stop_at_is_waited_for
                a_dropped_stream_frees_what_it_held
            }
            snapshot {
                the_last_message_of_each_topic_comes_in_order_before_live_messages
                a_snapshot_can_be_resumed_after_every_batch
                a_topic_that_changes_comes_with_its_change
                a_topic_whose_last_message_has_expired_comes_with_the_one_before
                a_snapshot_continues_after_topics_were_purged
                a_resumed_snapshot_reports_messages_lost_since
                a_snapshot_of_nothing_is_empty
                a_snapshot_ends_at_its_limit_and_stops
            }
            gaps {
                a_reader_sees_a_gap_for_its_own_messages_that_it_could_not_read
                a_reader_that_asked_to_fail_fails_at_once
                a_reader_that_asked_to_fail_fails_on_the_way
                a_start_reports_no_gap_for_messages_removed_before_its_first_batch
                a_gap_is_reported_once_also_after_a_resume
                a_caught_up_reader_of_a_quiet_topic_never_sees_a_gap
                a_start_reports_no_gap_for_messages_removed_before_it
                a_topic_trimmed_after_the_start_is_a_gap_also_below_what_others_had_lost
                an_expired_message_is_not_a_gap
                a_superseded_message_is_not_a_gap
                a_gap_is_reported_after_a_restart
                a_topic_that_is_trimmed_after_the_start_has_a_gap_also_for_a_cursor
                a_topic_without_messages_has_its_gap_still
                an_expired_message_is_read_neither_live_nor_from_disk
                the_first_rule_that_matches_holds_and_others_do_not
            }
            purge {
                all_of_a_topic_is_purged_and_counted
                a_topic_is_purged_up_to_a_sequence
                a_topic_that_never_had_a_message_cannot_be_purged
                only_a_topic_of_users_is_purged
                ids_of_purged_messages_can_be_published_again
                a_purged_message_is_a_gap_for_a_reader_that_had_not_read_it
                a_purged_message_stays_purged_after_a_restart
            }
            consumers {
                a_consumer_continues_where_it_has_committed
                a_position_wins_over_the_commit
                a_commit_behind_is_refused_unless_it_rewinds
                a_commit_is_checked_as_a_position_is
                a_waiting_subscription_ends_when_another_takes_its_consumer
                a_busy_subscription_ends_when_another_takes_its_consumer
                a_request_that_fails_takes_nothing_over
                a_consumer_is_connected_while_someone_reads
                consumers_are_listed_page_by_page
                a_deleted_consumer_starts_again
                a_consumer_survives_restarts_and_retention
                a_consumer_continues_within_a_snapshot
                a_consumer_has_a_name_like_a_topic
                a_consumer_is_set_to_any_start
                a_consumer_that_is_set_to_now_misses_nothing_later
                a_consumer_that_is_set_sees_the_gaps_after_the_call_only
                a_consumer_is_not_set_while_a_reader_is_connected
                consumers_have_a_limit_that_holds_after_a_restart
            }
        }
    };
}

mod embedded {
    every!(crate::messages::tests::retention::Bed);
}

#[cfg(feature = "jetstream")]
macro_rules! cluster {
    ($kind:ty; $($file:ident { $($name:ident)* })*) => {
        $(mod $file {
            $(#[tokio::test]
            #[ignore = "needs nats-server"]
            async fn $name() {
                super::super::$file::$name::<$kind>().await;
            })*
        })*
    };
}

/// Without the tests of what differs, of clocks that are set, and of sequences without gaps.
#[cfg(feature = "jetstream")]
mod jetstream {
    cluster! { crate::messages::tests::cluster::Bed;
        topics {
            a_topic_is_tokens_joined_by_dots
            users_cannot_publish_to_topics_of_the_server
            a_pattern_subscription_gets_each_message_once
            topics_are_listed_with_what_they_hold
            topics_are_listed_page_by_page
        }
        publish {
            a_message_is_read_as_it_was_published
            an_acknowledged_message_is_there_after_a_restart
            each_limit_of_a_message_is_an_error_with_its_numbers
            a_ttl_is_from_a_millisecond_to_ten_years
            an_id_is_checked_before_the_expected_sequence
        }
        start {
            the_last_messages_are_counted_after_the_patterns
            a_limit_ends_the_stream
            a_stream_continues_after_exactly_the_batch_whose_position_it_is_given
            a_stream_continues_with_other_patterns
            a_position_of_another_log_is_refused
            a_query_without_patterns_or_with_a_bad_one_is_refused
        }
        live {
            the_first_batch_is_ready_at_once
            history_continues_into_live_messages
            a_stream_wakes_for_its_own_messages_while_others_are_published
            a_slow_reader_loses_nothing
        }
        snapshot {
            a_topic_that_changes_comes_with_its_change
            a_snapshot_of_nothing_is_empty
        }
        consumers {
            a_consumer_continues_where_it_has_committed
            a_position_wins_over_the_commit
            a_commit_behind_is_refused_unless_it_rewinds
            a_waiting_subscription_ends_when_another_takes_its_consumer
            a_busy_subscription_ends_when_another_takes_its_consumer
            a_consumer_is_connected_while_someone_reads
            consumers_are_listed_page_by_page
            a_deleted_consumer_starts_again
            a_consumer_has_a_name_like_a_topic
            a_consumer_is_not_set_while_a_reader_is_connected
            consumers_have_a_limit_that_holds_after_a_restart
        }
    }
}
