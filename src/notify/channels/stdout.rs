//! Standard output: for first steps, and for those who pipe.

use std::io::Write;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Capabilities, Channel, ChannelKind, How, Letter, SendError, Sent};
use crate::notify::render::{Answer, plain};

/// Prints every version as a paragraph of its own.
pub struct Stdout;

#[async_trait]
impl Channel for Stdout {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Stdout
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { edits: false, answer: Answer::Commands, limits: &[], parallel: 1 }
    }

    async fn post(&self, letter: &Letter) -> Result<Sent, SendError> {
        let text = format!("{}\n\n", plain(&letter.document.blocks));
        // A pipe whose reader sleeps blocks; that must not hold up a worker thread.
        let written = tokio::task::spawn_blocking(move || {
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        });
        let written = written.await.map_err(std::io::Error::other).flatten();
        written.map_err(|e| SendError::Again(format!("writing to standard output: {e}")))?;
        Ok(Sent::new(How::Posted, json!({}), ""))
    }

    async fn update(&self, letter: &Letter, _reference: &Value) -> Result<Sent, SendError> {
        self.post(letter).await
    }

    async fn check(&self) -> Result<String, String> {
        Ok("prints messages on standard output".into())
    }
}
