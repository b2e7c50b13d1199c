//! The ingest stream: JSON that other producers `XADD`, to be spread over the partitions.

use std::sync::Arc;

use redis::{RedisResult, Value};

use super::{
    GROUP, Shared,
    reader::{Entry, entries},
};

/// Entries that are read at a time.
const AT_ONCE: usize = 256;

/// Reads the ingest stream, of which there must be one reader at a time.
pub struct Ingest {
    shared: Arc<Shared>,
    consumer: String,
    /// The id after which pending ones are read; none: they are done, and new ones are.
    pending_after: Option<String>,
}

/// An entry as it came.
pub struct Raw {
    pub id: String,
    /// The field that says what it is, `log` or `metric`, and the JSON in it; none if it has no such field.
    pub body: Option<(&'static str, Vec<u8>)>,
    entry: Entry,
}

/// The fields that are understood.
pub const FIELDS: [&str; 2] = ["log", "metric"];

impl Ingest {
    pub(super) fn new(shared: Arc<Shared>, owner: &str) -> Self {
        Self { shared, consumer: owner.to_owned(), pending_after: Some("0-0".into()) }
    }

    /// The next entries; those first that were read before and not done. Empty if there are none.
    pub async fn next(&mut self) -> RedisResult<Vec<Raw>> {
        let stream = self.shared.keys.ingest();
        let link = &self.shared.link;
        if self.pending_after.as_deref() == Some("0-0") {
            let mut create = redis::cmd("XGROUP");
            create.arg("CREATE").arg(&stream).arg(GROUP).arg("0").arg("MKSTREAM");
            match link.run::<Value>(&create).await {
                // Short of memory, Redis does not even look whether the group is there.
                Err(e) if !matches!(e.code(), Some("BUSYGROUP" | "OOM")) => return Err(e),
                _ => {}
            }
            self.claim_all(&stream).await?;
        }
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP")
            .arg(GROUP)
            .arg(&self.consumer)
            .arg("COUNT")
            .arg(AT_ONCE)
            .arg("STREAMS")
            .arg(&stream);
        read.arg(self.pending_after.as_deref().unwrap_or(">"));
        let answer: RedisResult<Option<Vec<(String, Value)>>> = link.run(&read).await;
        let found: Vec<Entry> = answer?.into_iter().flatten().flat_map(|(_, found)| entries(found)).collect();
        // Pending entries that somebody deleted: there is nothing to be done with them.
        let gone: Vec<String> =
            found.iter().filter(|entry| entry.fields.is_empty()).map(|entry| entry.id.clone()).collect();
        self.done(&gone).await?;
        if self.pending_after.is_some() {
            self.pending_after = found.last().map(|entry| entry.id.clone());
            if found.is_empty() {
                return Box::pin(self.next()).await;
            }
        }
        Ok(found.into_iter().filter(|entry| !entry.fields.is_empty()).map(Raw::new).collect())
    }

    /// Takes over what former readers left pending.
    async fn claim_all(&self, stream: &str) -> RedisResult<()> {
        let mut from = "0-0".to_owned();
        loop {
            let mut claim = redis::cmd("XAUTOCLAIM");
            claim.arg(stream).arg(GROUP).arg(&self.consumer).arg(0).arg(&from);
            claim.arg("COUNT").arg(1000).arg("JUSTID");
            let answer: Vec<Value> = self.shared.link.run(&claim).await?;
            match answer.into_iter().next().map(redis::from_redis_value::<String>).transpose()? {
                Some(next) if next != "0-0" => from = next,
                _ => return Ok(()),
            }
        }
    }

    /// They are on the partitions: takes them off.
    pub async fn done(&self, ids: &[String]) -> RedisResult<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let stream = self.shared.keys.ingest();
        let mut take_off = redis::pipe();
        take_off.cmd("XACK").arg(&stream).arg(GROUP).arg(ids).ignore();
        take_off.cmd("XDEL").arg(&stream).arg(ids).ignore();
        self.shared.link.run_all(&take_off).await
    }

    /// Nobody can use it: sets it aside.
    pub async fn bury(&self, raw: &Raw, reason: &str) -> RedisResult<()> {
        let data: Vec<u8> = match &raw.body {
            Some((_, body)) => body.clone(),
            None => raw
                .entry
                .fields
                .iter()
                .flat_map(|(name, value)| [name, &b"="[..], value, b"\n"].concat())
                .collect(),
        };
        self.shared.bury(&self.shared.link, &self.shared.keys.ingest(), &raw.id, &data, reason).await
    }
}

impl Raw {
    fn new(entry: Entry) -> Self {
        let body = FIELDS.iter().find_map(|field| {
            let body = entry.bytes(field);
            (!body.is_empty()).then(|| (*field, body.to_vec()))
        });
        Self { id: entry.id.clone(), body, entry }
    }
}
