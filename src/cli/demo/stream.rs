//! Follows the server's live stream of incident changes (server-sent events), from where it stands.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use reqwest::Method;
use tokio::sync::mpsc;

use crate::{cli::client::Client, model::TimelineEntry};

/// Hands on every timeline entry after `seq`; comes again where it stopped if the connection breaks, until nobody listens.
pub async fn follow(client: Client, mut seq: i64, entries: mpsc::Sender<TimelineEntry>) {
    while !entries.is_closed() {
        if let Err(e) = read(&client, &mut seq, &entries).await {
            tracing::debug!(error = format!("{e:#}"), "the live stream broke off");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn read(client: &Client, seq: &mut i64, entries: &mpsc::Sender<TimelineEntry>) -> anyhow::Result<()> {
    let request = client
        .request(Method::GET, "/events")
        .header("accept", "text/event-stream")
        .header("last-event-id", seq.to_string())
        .timeout(Duration::from_secs(600));
    let answer = request.send().await.context("opening the live stream")?;
    ensure!(answer.status().is_success(), "the live stream answered {}", answer.status());
    let mut chunks = answer.bytes_stream();
    let mut parser = Events::default();
    while let Some(chunk) = chunks.next().await {
        for data in parser.push(&chunk.context("reading the live stream")?) {
            let Ok(entry) = serde_json::from_str::<TimelineEntry>(&data) else { continue };
            if entry.seq > *seq {
                *seq = entry.seq;
                entries.send(entry).await.context("nobody listens any more")?;
            }
        }
    }
    Ok(())
}

/// Cuts a stream of bytes into the `data` of its events.
#[derive(Default)]
struct Events {
    bytes: Vec<u8>,
    data: Vec<String>,
}

impl Events {
    fn push(&mut self, chunk: &[u8]) -> Vec<String> {
        self.bytes.extend_from_slice(chunk);
        let mut complete = Vec::new();
        while let Some(end) = self.bytes.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            match line.trim_end_matches(['\r', '\n']) {
                "" if !self.data.is_empty() => complete.push(std::mem::take(&mut self.data).join("\n")),
                line => self.data.extend(line.strip_prefix("data:").map(|d| d.trim_start().to_owned())),
            }
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_wherever_the_bytes_break() {
        let mut events = Events::default();
        assert_eq!(events.push(b": hello\n\nid: 7\nevent: timeline\nda"), Vec::<String>::new());
        assert_eq!(events.push(b"ta: {\"a\":\r\ndata: 1}\r\n\r\ndata: x\n\n"), ["{\"a\":\n1}", "x"]);
    }
}
