//! Asks Prometheus one instant query and compares the answer. No answer is a failure, never a success.

use tokio_util::sync::CancellationToken;

use super::{Context, Ended, Outcome, Tools};
use crate::{
    model::{Expect, Labels},
    prometheus_api::PrometheusApi,
};

pub(super) async fn run(
    tools: &Tools,
    query: &str,
    expect: &Expect,
    context: &Context,
    stop: &CancellationToken,
) -> Outcome {
    let timeout = context.timeout.min(tools.prometheus.timeout);
    let answer = tokio::select! {
        () = stop.cancelled() => return Outcome::new(Ended::Stopped, "stopped while asking Prometheus"),
        answer = tokio::time::timeout(timeout, instant(tools, query)) => answer,
    };
    match answer {
        Ok(Ok(samples)) => judge(&samples, expect),
        Ok(Err(why)) => Outcome::failed(&format!("Prometheus gave no answer: it {why}")),
        Err(_) => Outcome::failed(&format!("Prometheus gave no answer within {timeout:?}")),
    }
}

/// One element of an instant vector.
struct Sample {
    series: String,
    value: f64,
}

async fn instant(tools: &Tools, query: &str) -> Result<Vec<Sample>, String> {
    let prometheus = PrometheusApi::new(&tools.http, &tools.prometheus);
    let found = prometheus.instant(query).await.map_err(|e| e.to_string())?;
    found.into_iter().map(|s| sample(name(&s.metric), &s.value.1)).collect()
}

fn sample(series: String, value: &str) -> Result<Sample, String> {
    let value = value.parse().map_err(|_| format!("{value:?} is not a number"))?;
    Ok(Sample { series, value })
}

/// `up{job="shop"}`.
fn name(metric: &Labels) -> String {
    let name = metric.get("__name__").map_or("", String::as_str);
    let labels: Vec<String> =
        metric.iter().filter(|(k, _)| *k != "__name__").map(|(k, v)| format!("{k}={v:?}")).collect();
    format!("{name}{{{}}}", labels.join(","))
}

/// NaN never holds.
fn judge(samples: &[Sample], expect: &Expect) -> Outcome {
    let every = |holds: &dyn Fn(f64) -> bool| !samples.is_empty() && samples.iter().all(|s| holds(s.value));
    let holds = match expect {
        Expect::Empty => samples.is_empty(),
        Expect::Present => !samples.is_empty(),
        Expect::Above(n) => every(&|v| v > *n),
        Expect::Below(n) => every(&|v| v < *n),
        Expect::Equals(n) => every(&|v| (v - n).abs() <= f64::EPSILON * n.abs().max(1.0)),
    };
    let mut seen: Vec<String> =
        samples.iter().take(5).map(|s| format!("{} = {}", s.series, s.value)).collect();
    match samples.len() {
        0 => seen.push("no series".into()),
        n if n > 5 => seen.push(format!("and {} more", n - 5)),
        _ => {}
    }
    let seen = seen.join(", ");
    if holds {
        Outcome::succeeded(&seen)
    } else {
        Outcome::failed(&format!("{seen}; expected {}", describe(expect)))
    }
}

/// `> 0`.
pub(super) fn describe(expect: &Expect) -> String {
    match expect {
        Expect::Empty => "gives no series".into(),
        Expect::Present => "gives a series".into(),
        Expect::Above(n) => format!("> {n}"),
        Expect::Below(n) => format!("< {n}"),
        Expect::Equals(n) => format!("= {n}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_nan_are_no_success() {
        let ended = |values: &[f64], expect| {
            let samples: Vec<_> = values.iter().map(|v| Sample { series: "x{}".into(), value: *v }).collect();
            judge(&samples, &expect).ended
        };
        assert_eq!(ended(&[1.0, 1.0], Expect::Above(0.0)), Ended::Succeeded);
        assert_eq!(ended(&[1.0, 0.0], Expect::Above(0.0)), Ended::Failed);
        assert_eq!(ended(&[], Expect::Above(0.0)), Ended::Failed);
        assert_eq!(ended(&[f64::NAN], Expect::Below(1.0)), Ended::Failed);
        assert_eq!(ended(&[f64::NAN], Expect::Equals(0.0)), Ended::Failed);
        assert_eq!(ended(&[], Expect::Empty), Ended::Succeeded);
        assert_eq!(ended(&[0.0], Expect::Present), Ended::Succeeded);
    }
}
