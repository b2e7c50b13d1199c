//! Whether a Redis is one to rely on.

use redis::Value;

use super::{Keys, brief, link::Link};
use crate::config;

/// What was found when Redis was asked: its own name for itself, what must be mended, and what should be known.
#[derive(Debug, Default, PartialEq)]
pub struct Reached {
    pub about: String,
    pub problems: Vec<String>,
    pub notes: Vec<String>,
}

/// Asks Redis whether it can be the telemetry bus.
pub async fn reach(settings: &config::Redis) -> Result<Reached, String> {
    let link = Link::new(settings).map_err(|e| format!("{e:#}"))?;
    let ask = async {
        let section = |name: &'static str| {
            let mut ask = redis::cmd("INFO");
            ask.arg(name);
            let link = link.clone();
            async move { link.run::<Value>(&ask).await.map(text) }
        };
        let info =
            [section("server").await?, section("memory").await?, section("persistence").await?].join("\n");
        let key = Keys { prefix: settings.prefix.clone() }.stream(0);
        let stream: Option<String> = match link.run(redis::cmd("TYPE").arg(&key)).await? {
            Value::SimpleString(kind) if kind != "stream" && kind != "none" => Some(kind),
            _ => None,
        };
        Ok::<_, redis::RedisError>((info, stream.map(|kind| (key, kind))))
    };
    let limit = settings.timeout * 2;
    match tokio::time::timeout(limit, ask).await {
        Ok(Ok((info, wrong_key))) => {
            let mut reached = judge(&info);
            if let Some((key, kind)) = wrong_key {
                reached
                    .problems
                    .push(format!("the key {key} is a {kind}, not ours; choose another redis.prefix"));
            }
            Ok(reached)
        }
        Ok(Err(e)) => Err(brief(&e)),
        Err(_) => Err(format!("did not answer within {}", humantime::format_duration(limit))),
    }
}

/// The text of `INFO`; of a Cluster's nodes, one after the other.
fn text(value: Value) -> String {
    match value {
        Value::Map(nodes) => nodes.into_iter().map(|(_, info)| text(info)).collect::<Vec<_>>().join("\n"),
        Value::Array(nodes) => nodes.into_iter().map(text).collect::<Vec<_>>().join("\n"),
        Value::VerbatimString { text, .. } => text,
        other => redis::from_redis_value(other).unwrap_or_default(),
    }
}

fn judge(info: &str) -> Reached {
    let all = |name: &str| -> Vec<&str> {
        let line = |line: &'_ str| line.split_once(':').filter(|(key, _)| *key == name).is_some();
        info.lines().filter(|l| line(l)).filter_map(|l| l.split_once(':')).map(|(_, v)| v.trim()).collect()
    };
    let mut reached = Reached::default();
    let version = all("redis_version").first().copied().unwrap_or_default();
    reached.about = format!("Redis {version} answers");
    let number = |part: Option<&str>| part.and_then(|p| p.parse::<u32>().ok()).unwrap_or(0);
    let mut parts = version.split('.');
    if (number(parts.next()), number(parts.next())) < (6, 2) {
        let message = format!("Redis {version} is too old: streams need 6.2 or newer");
        reached.problems.push(message);
    }
    if let Some(policy) = all("maxmemory_policy").into_iter().find(|policy| *policy != "noeviction") {
        reached.problems.push(format!(
            "maxmemory-policy is {policy}: Redis would throw streams away when memory is short; set noeviction"
        ));
    }
    if all("aof_enabled").contains(&"0") && info.contains("rdb_last_save_time") {
        reached.notes.push(
            "without appendonly, a restart of Redis loses telemetry that is not judged yet (diagnoses say so)".into(),
        );
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_or_forgetful_redis_is_a_problem() {
        let info = |version: &str, policy: &str, aof: u8| {
            judge(&format!(
                "# Server\r\nredis_version:{version}\r\nmaxmemory_policy:{policy}\r\nrdb_last_save_time:1\r\naof_enabled:{aof}\r\n"
            ))
        };
        assert_eq!(
            info("7.0.15", "noeviction", 1),
            Reached { about: "Redis 7.0.15 answers".into(), ..Reached::default() }
        );
        assert!(info("6.0.16", "noeviction", 1).problems[0].contains("too old"));
        assert!(info("7.2.0", "allkeys-lru", 1).problems[0].contains("set noeviction"));
        assert!(info("7.2.0", "noeviction", 0).notes[0].contains("appendonly"));
    }
}
