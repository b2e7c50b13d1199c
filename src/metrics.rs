//! Every metric of the program, declared once: its name, its help, its labels. Labels come from enums, never from free text.

use std::sync::LazyLock;

use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, TextEncoder,
    register_histogram, register_histogram_vec, register_int_counter, register_int_counter_vec,
    register_int_gauge, register_int_gauge_vec,
};

/// Declares metrics: the doc comment is the help text. `name: Kind["label", …] = "metric_name", buckets […]`.
macro_rules! metrics {
    (@make IntCounter, $n:literal, $h:expr, [], []) => { register_int_counter!($n, $h) };
    (@make IntGauge, $n:literal, $h:expr, [], []) => { register_int_gauge!($n, $h) };
    (@make IntCounterVec, $n:literal, $h:expr, [$($l:literal),+], []) => { register_int_counter_vec!($n, $h, &[$($l),+]) };
    (@make IntGaugeVec, $n:literal, $h:expr, [$($l:literal),+], []) => { register_int_gauge_vec!($n, $h, &[$($l),+]) };
    (@make Histogram, $n:literal, $h:expr, [], [$($b:literal),+]) => { register_histogram!($n, $h, vec![$($b),+]) };
    (@make HistogramVec, $n:literal, $h:expr, [$($l:literal),+], [$($b:literal),+]) => { register_histogram_vec!($n, $h, &[$($l),+], vec![$($b),+]) };
    ($(#[doc = $help:literal] $name:ident: $kind:ident[$($label:literal),*] = $metric:literal $(, buckets [$($bucket:literal),+])?;)+) => {
        $(#[doc = $help]
        pub static $name: LazyLock<$kind> = LazyLock::new(|| {
            metrics!(@make $kind, $metric, $help.trim(), [$($label),*], [$($($bucket),+)?])
                .expect(concat!("metric ", $metric, " is declared once"))
        });)+
        /// Makes every metric exist, so that `/metrics` shows zeros instead of nothing.
        fn touch_all() { $(LazyLock::force(&$name);)+ }
    };
}

metrics! {
    /// Deliveries taken by the intake, by source kind.
    INTAKE_DELIVERIES: IntCounterVec["kind"] = "aiops_intake_deliveries_total";
    /// Items (alerts, records, samples) taken by the intake, by source kind.
    INTAKE_ITEMS: IntCounterVec["kind"] = "aiops_intake_items_total";
    /// Items refused by the intake because they were malformed, by source kind.
    INTAKE_REJECTED: IntCounterVec["kind"] = "aiops_intake_rejected_total";
    /// Items not taken because the service was under pressure; the sender was told 503.
    INTAKE_SHED: IntCounterVec["kind"] = "aiops_intake_shed_total";
    /// Records that were left out because the service was overloaded and judges only some services, by source kind.
    INTAKE_SAMPLED_OUT: IntCounterVec["kind"] = "aiops_intake_sampled_out_total";
    /// How overloaded the service is: 0 normal, 1 strained, 2 shedding telemetry, 3 taking critical alerts only, 4 taking nothing.
    OVERLOAD_LEVEL: IntGauge[] = "aiops_overload_level";
    /// Changes of that level, by the level entered.
    OVERLOAD_CHANGES: IntCounterVec["level"] = "aiops_overload_changes_total";
    /// Deliveries that were told 503 because of that level, by source kind.
    OVERLOAD_REFUSED: IntCounterVec["kind"] = "aiops_overload_refused_deliveries_total";
    /// Work of our own that was put off because of that level, by kind.
    OVERLOAD_POSTPONED: IntCounterVec["work"] = "aiops_overload_postponed_total";
    /// Invalid UTF-8 sequences that were replaced in telemetry, by source kind.
    INTAKE_REPLACED: IntCounterVec["kind"] = "aiops_intake_replaced_sequences_total";
    /// Log messages that were cut to the limit, by source kind.
    INTAKE_CUT: IntCounterVec["kind"] = "aiops_intake_cut_messages_total";
    /// Requests answered, by class of status.
    HTTP_RESPONSES: IntCounterVec["class"] = "aiops_http_responses_total";
    /// Requests whose handler panicked.
    HTTP_PANICS: IntCounter[] = "aiops_http_panics_total";
    /// Bearer tokens that are none, or were revoked.
    AUTH_FAILURES: IntCounter[] = "aiops_auth_failures_total";
    /// Clients of the live stream.
    STREAM_CLIENTS: IntGauge[] = "aiops_stream_clients";
    /// Alerts and resolutions that the reconciler repaired, by what it did.
    RECONCILED: IntCounterVec["repair"] = "aiops_reconciled_total";
    /// Polls of an Alertmanager that failed.
    RECONCILE_FAILURES: IntCounter[] = "aiops_reconcile_failures_total";
    /// Seconds from a durable intake's parse to its commit.
    INTAKE_COMMIT_SECONDS: Histogram[] = "aiops_intake_commit_seconds", buckets [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];
    /// Alerts and anomalies in the inbox that wait for correlation.
    INBOX_DEPTH: IntGauge[] = "aiops_inbox_depth";
    /// Age in milliseconds of the oldest inbox delivery that waits.
    INBOX_AGE_MS: IntGauge[] = "aiops_inbox_age_milliseconds";
    /// How long a delivery that is taken now will wait, in milliseconds, at the pace of correlation; 0 while that is not known.
    INBOX_WAIT_MS: IntGauge[] = "aiops_inbox_wait_milliseconds";
    /// Alerts and anomalies that correlation has taken off the inbox.
    INBOX_TAKEN: IntCounter[] = "aiops_inbox_taken_total";
    /// Inbox rows that could not be read back and were set aside.
    INBOX_DEAD: IntCounter[] = "aiops_inbox_dead_total";
    /// Incidents that are not resolved.
    INCIDENTS_OPEN: IntGauge[] = "aiops_incidents_open";
    /// Incident state changes, by the state entered.
    INCIDENT_TRANSITIONS: IntCounterVec["state"] = "aiops_incident_transitions_total";
    /// Jobs finished, by kind.
    JOBS_DONE: IntCounterVec["kind"] = "aiops_jobs_done_total";
    /// Jobs that failed and will be tried again, by kind.
    JOBS_RETRIED: IntCounterVec["kind"] = "aiops_jobs_retried_total";
    /// Jobs whose lease was lost to another owner before they finished, by kind.
    JOBS_LOST: IntCounterVec["kind"] = "aiops_jobs_lease_lost_total";
    /// Names (of pollers, schedules, partitions) that this process came to own.
    LEASES_TAKEN: IntCounter[] = "aiops_leases_taken_total";
    /// Names that this process owned and lost: another took them over, or the store could not be asked in time.
    LEASES_LOST: IntCounter[] = "aiops_leases_lost_total";
    /// Names that this process owns.
    LEASES_OWNED: IntGauge[] = "aiops_leases_owned";
    /// Age in milliseconds of the oldest due job.
    JOBS_AGE_MS: IntGauge[] = "aiops_jobs_age_milliseconds";
    /// Seconds that a job took, by kind.
    JOB_SECONDS: HistogramVec["kind"] = "aiops_job_seconds", buckets [0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0];
    /// How often the wall clock was set by more than five seconds, by direction.
    CLOCK_STEPS: IntCounterVec["direction"] = "aiops_clock_steps_total";
    /// Internal alarms that are active (1) or not (0), by alarm.
    ALARMS: IntGaugeVec["alarm"] = "aiops_alarm_active";
    /// Circuit breakers: 0 closed, 1 half-open, 2 open.
    BREAKER_STATE: IntGaugeVec["dependency"] = "aiops_breaker_state";
    /// Changes of a circuit breaker's state, by the state entered.
    BREAKER_TRANSITIONS: IntCounterVec["dependency", "state"] = "aiops_breaker_transitions_total";
    /// Calls that a circuit breaker refused.
    BREAKER_REJECTED: IntCounterVec["dependency"] = "aiops_breaker_rejected_total";
    /// Questions to a language model, by provider and what became of them.
    LLM_ATTEMPTS: IntCounterVec["provider", "result"] = "aiops_llm_attempts_total";
    /// Seconds that a language model took, answers and failures alike.
    LLM_SECONDS: HistogramVec["provider"] = "aiops_llm_seconds", buckets [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0];
    /// Tokens spent on language models, by provider and direction (in, out).
    LLM_TOKENS: IntCounterVec["provider", "direction"] = "aiops_llm_tokens_total";
    /// Evidence sources asked, by source and whether they answered (ok), failed or were too slow (missing).
    EVIDENCE: IntCounterVec["source", "result"] = "aiops_evidence_total";
    /// Facts left out because a source gave more than its limit, by source.
    EVIDENCE_DROPPED: IntCounterVec["source"] = "aiops_evidence_dropped_total";
    /// Seconds from a diagnosis job's start to its result, by tier.
    DIAGNOSE_SECONDS: HistogramVec["tier"] = "aiops_diagnose_seconds", buckets [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0];
    /// Questions of the watches to Prometheus, by what became of them (answered, empty, failed).
    WATCH_PULLS: IntCounterVec["result"] = "aiops_watch_pulls_total";
    /// Log lines that were taken into the embedded search.
    LOG_LINES_KEPT: IntCounter[] = "aiops_log_lines_kept_total";
    /// Log lines that the detectors saw and the embedded search did not keep, by reason.
    LOG_LINES_LEFT_OUT: IntCounterVec["reason"] = "aiops_log_lines_left_out_total";
    /// Questions to the log search, by backend and by what became of them.
    LOG_SEARCHES: IntCounterVec["backend", "result"] = "aiops_log_searches_total";
    /// Copies of our own records in a search index, by kind and by what became of them (sent, refused, later).
    EXPORTED: IntCounterVec["kind", "result"] = "aiops_exported_total";
    /// Changes of our own records whose copies are still to be made.
    EXPORT_WAITING: IntGauge[] = "aiops_export_waiting";
    /// Changes of our own records that the index refused, until somebody mends that.
    EXPORT_REFUSED: IntGauge[] = "aiops_export_refused";
    /// Records that wait on the telemetry bus.
    BUS_DEPTH: IntGauge[] = "aiops_bus_depth";
    /// Records that wait on the telemetry bus, by partition.
    BUS_WAITING: IntGaugeVec["partition"] = "aiops_bus_partition_waiting_records";
    /// Entries of the stream that were read and whose effects are not saved yet, by partition.
    BUS_PENDING: IntGaugeVec["partition"] = "aiops_bus_partition_pending_entries";
    /// Entries of the stream that no reader has taken yet, by partition.
    BUS_LAG: IntGaugeVec["partition"] = "aiops_bus_partition_lag_entries";
    /// Partitions that this process reads.
    BUS_OWNED: IntGauge[] = "aiops_bus_partitions_owned";
    /// Whether Redis answers (1) or not (0), where it is the telemetry bus.
    BUS_UP: IntGauge[] = "aiops_bus_up";
    /// Times that telemetry was lost on its way through Redis.
    BUS_GAPS: IntCounter[] = "aiops_bus_gaps_total";
    /// Records that could not be sent to Redis before the program ended.
    BUS_LOST: IntCounter[] = "aiops_bus_lost_records_total";
    /// Stream entries that nobody could read; they are in the dead-letter stream.
    BUS_DEAD: IntCounter[] = "aiops_bus_dead_letters_total";
    /// Records on the bus whose kind only a newer version knows; skipped.
    BUS_SKIPPED: IntCounter[] = "aiops_bus_skipped_records_total";
    /// States of the detectors that were saved.
    DETECT_SAVES: IntCounter[] = "aiops_detect_saves_total";
    /// Bytes of the detectors' states that were saved.
    DETECT_SAVED_BYTES: IntCounter[] = "aiops_detect_saved_bytes_total";
    /// Times that a partition was given up because its reader panicked.
    DETECT_PANICS: IntCounter[] = "aiops_detect_panics_total";
    /// Log records and metric samples that the detectors judged.
    DETECT_RECORDS: IntCounter[] = "aiops_detect_records_total";
    /// Log records and metric samples that the detectors could not judge, by reason.
    DETECT_UNJUDGED: IntCounterVec["reason"] = "aiops_detect_unjudged_total";
    /// Metric series that were forgotten after long silence, to make room for others.
    DETECT_FORGOTTEN_SERIES: IntCounter[] = "aiops_detect_forgotten_series_total";
    /// Spans and traced log lines that are in memory, for rankings.
    TRACES_KEPT: IntGauge[] = "aiops_detect_traces_kept_items";
    /// Spans and traced log lines that the sample of requests left out: it is bounded by detect.max_spans.
    TRACES_LEFT_OUT: IntCounter[] = "aiops_detect_traces_left_out_items_total";
    /// Calls between services that were learned from spans: pairs that are kept.
    CALLS_KEPT: IntGauge[] = "aiops_detect_calls_kept";
    /// Learned pairs of caller and callee that made room for others.
    CALLS_FORGOTTEN: IntGauge[] = "aiops_detect_calls_forgotten";
    /// Calls between services that were saved: pairs, each time that their count was.
    CALLS_SAVED: IntCounter[] = "aiops_detect_calls_saved_total";
    /// Anomalies that began, by kind.
    DETECT_ONSETS: IntCounterVec["kind"] = "aiops_detect_onsets_total";
    /// Services that the detectors keep state of.
    DETECT_SERVICES: IntGauge[] = "aiops_detect_services";
    /// Log templates that the detectors keep state of.
    DETECT_TEMPLATES: IntGauge[] = "aiops_detect_templates";
    /// Log templates that were forgotten to make room for newer ones (`detect.max_templates`).
    DETECT_FORGOTTEN: IntCounter[] = "aiops_detect_templates_forgotten_total";
    /// States of the detectors that could not be used; learning began anew.
    DETECT_STATES_REFUSED: IntCounter[] = "aiops_detect_states_refused_total";
    /// Metric series that the detectors keep state of.
    DETECT_SERIES: IntGauge[] = "aiops_detect_series";
    /// Services whose telemetry is incomplete at the moment, so that silence about them means nothing.
    DETECT_UNKNOWN: IntGauge[] = "aiops_detect_unknown_services";
    /// Messages handled by the outbox, by channel and by what came of it.
    NOTIFY_OUTCOMES: IntCounterVec["channel", "outcome"] = "aiops_notify_outcomes_total";
    /// Deliveries that some recipients refused for good, by channel.
    NOTIFY_REFUSED: IntCounterVec["channel"] = "aiops_notify_refused_total";
    /// Buttons and commands from chats, by channel and by what came of it.
    CHAT_EVENTS: IntCounterVec["channel", "outcome"] = "aiops_chat_events_total";
    /// Questions to humans that were closed, by how.
    APPROVALS: IntCounterVec["state"] = "aiops_approvals_total";
    /// Runs that entered a state, by state.
    RUNS: IntCounterVec["state"] = "aiops_runs_total";
    /// Tries of steps, by kind and how they ended.
    STEPS: IntCounterVec["kind", "ended"] = "aiops_steps_total";
    /// Questions that verification asked, by how they were answered.
    PROBES: IntCounterVec["ended"] = "aiops_probes_total";
    /// Rows deleted by retention.
    RETENTION_DELETED: IntCounter[] = "aiops_retention_deleted_total";
}

/// Everything in Prometheus' text format.
pub fn render() -> Result<String, prometheus::Error> {
    touch_all();
    TextEncoder::new().encode_to_string(&prometheus::gather())
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_metric_has_help_and_a_type() {
        crate::metrics::JOBS_DONE.with_label_values(&["run"]).inc();
        let text = super::render().expect("metrics encode");
        assert!(text.contains("# HELP aiops_jobs_done_total Jobs finished, by kind.\n"));
        assert!(text.contains("aiops_inbox_depth 0\n"));
    }
}
