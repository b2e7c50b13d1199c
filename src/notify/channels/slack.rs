//! Slack: one message for each incident, edited in place, with buttons; or, by an incoming webhook, one for each milestone.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Bell, Capabilities, Channel, ChannelKind, How, Letter, SendError, Sent, milestones::Told};
use crate::{
    config,
    model::Verb,
    notify::render::{Answer, Block, Document, Line, Span, Text},
    slack_api::{ApiError, SlackApi},
};

pub(super) const LIMITS: &[(usize, Duration)] = &[(1, Duration::from_secs(1))];
const MAX_BLOCKS: usize = 50;
const MAX_SECTION: usize = 3000;
/// Over all blocks; where Slack begins to refuse.
const MAX_TOTAL: usize = 13_000;

/// The form that the settings ask for.
pub fn build(settings: &config::Slack) -> Arc<dyn Channel> {
    let api = SlackApi::new(settings);
    if settings.token.is_empty() {
        return Arc::new(Webhook { api });
    }
    Arc::new(App { api, channel: settings.channel.clone(), has_buttons: settings.has_buttons() })
}

/// A Slack app with a bot token.
struct App {
    api: SlackApi,
    channel: String,
    has_buttons: bool,
}

/// Where a message stands: both are needed to edit it.
#[derive(Debug, Serialize, Deserialize)]
struct Reference {
    channel: String,
    ts: String,
}

#[async_trait]
impl Channel for App {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Slack
    }

    fn capabilities(&self) -> Capabilities {
        let answer = if self.has_buttons { Answer::Buttons } else { Answer::Commands };
        Capabilities { edits: true, answer, limits: LIMITS, parallel: 1 }
    }

    async fn post(&self, letter: &Letter) -> Result<Sent, SendError> {
        let mut message = message(letter);
        message["channel"] = self.channel.as_str().into();
        let answer = self.api.call("chat.postMessage", &message).await.map_err(classify)?;
        sent(How::Posted, &answer)
    }

    async fn update(&self, letter: &Letter, reference: &Value) -> Result<Sent, SendError> {
        let Ok(Reference { channel, ts }) = Reference::deserialize(reference) else {
            return self.post(letter).await;
        };
        let mut message = message(letter);
        message["channel"] = channel.into();
        message["ts"] = ts.into();
        match self.api.call("chat.update", &message).await {
            Ok(answer) => sent(How::Edited, &answer),
            Err(ApiError::Refused(error))
                if ["message_not_found", "edit_window_closed", "cant_update_message"]
                    .contains(&error.as_str()) =>
            {
                Err(SendError::Gone(format!("Slack answered {error}")))
            }
            Err(e) => Err(classify(e)),
        }
    }

    fn bell(&self) -> Option<&dyn Bell> {
        Some(self)
    }

    async fn check(&self) -> Result<String, String> {
        let answer = self.api.call("auth.test", &json!({})).await.map_err(|e| e.to_string())?;
        let name = |key: &str| answer[key].as_str().unwrap_or("?").to_owned();
        Ok(format!("{} in {} writes to {}", name("user"), name("team"), self.channel))
    }
}

#[async_trait]
impl Bell for App {
    /// In the message's thread, and shown in the channel too: a thread alone rings only those who follow it.
    async fn ring(&self, letter: &Letter, reference: &Value) -> Result<(), SendError> {
        let mut message = message(letter);
        message["channel"] = self.channel.as_str().into();
        if let Ok(main) = Reference::deserialize(reference) {
            message["channel"] = main.channel.into();
            message["thread_ts"] = main.ts.into();
            message["reply_broadcast"] = true.into();
        }
        self.api.call("chat.postMessage", &message).await.map(drop).map_err(classify)
    }
}

fn sent(how: How, answer: &Value) -> Result<Sent, SendError> {
    let reference = Reference::deserialize(answer)
        .map_err(|e| SendError::Again(format!("Slack's answer lacks the message's channel and ts: {e}")))?;
    let place = reference.channel.clone();
    Ok(Sent::new(how, serde_json::to_value(reference).expect("two strings"), place))
}

/// An incoming webhook: it cannot edit and shows no buttons.
struct Webhook {
    api: SlackApi,
}

#[async_trait]
impl Channel for Webhook {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Slack
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { edits: false, answer: Answer::Commands, limits: LIMITS, parallel: 1 }
    }

    async fn post(&self, letter: &Letter) -> Result<Sent, SendError> {
        self.update(letter, &Value::Null).await
    }

    async fn update(&self, letter: &Letter, reference: &Value) -> Result<Sent, SendError> {
        let mut told = Told::deserialize(&reference["told"]).unwrap_or_default();
        let Some(milestone) = told.next(&letter.view) else {
            return Ok(Sent::new(How::Unchanged, reference.clone(), ""));
        };
        self.api.webhook(&message(letter)).await.map_err(classify)?;
        told.add(&milestone, &letter.view);
        Ok(Sent::new(How::Posted, json!({ "told": told }), ""))
    }

    /// A webhook can only be tried by posting to it.
    async fn check(&self) -> Result<String, String> {
        Ok(format!("incoming webhook {} is set; only a message proves it", self.api.webhook_name()))
    }
}

fn classify(error: ApiError) -> SendError {
    let why = error.to_string();
    match error {
        ApiError::Unreachable(_) => SendError::Again(why),
        ApiError::Slower(after) => SendError::Slower { why, after },
        ApiError::Refused(e)
            if ["internal_error", "fatal_error", "service_unavailable"].contains(&e.as_str()) =>
        {
            SendError::Again(why)
        }
        ApiError::Status(500.., _) => SendError::Again(why),
        ApiError::Refused(_) | ApiError::Status(..) => SendError::Refused(why),
    }
}

/// The text is what notifications show; the blocks are what the channel shows.
fn message(letter: &Letter) -> Value {
    let document = fit(letter.document.clone());
    let mut blocks = sections(&document.blocks);
    blocks.extend(actions(&document, letter));
    json!({ "text": escaped(&document.subject), "blocks": blocks, "unfurl_links": false, "unfurl_media": false })
}

fn fit(document: Document) -> Document {
    document.fit(|d| {
        let sections = sections(&d.blocks);
        let sizes: Vec<usize> =
            sections.iter().map(|s| length(s["text"]["text"].as_str().unwrap_or_default())).collect();
        // One block is kept for the buttons.
        sections.len() < MAX_BLOCKS
            && sizes.iter().all(|n| *n <= MAX_SECTION)
            && sizes.iter().sum::<usize>() <= MAX_TOTAL
    })
}

fn length(text: &str) -> usize {
    text.encode_utf16().count()
}

/// One section for each block, more where its lines are too many for one.
fn sections(blocks: &[Block]) -> Vec<Value> {
    let mut sections = Vec::new();
    for block in blocks {
        let title = block.title.iter().map(|t| format!("*{}*", escaped(t)));
        let mut text = String::new();
        for line in title.chain(block.lines.iter().map(mrkdwn)) {
            if !text.is_empty() && length(&text) + 1 + length(&line) > MAX_SECTION {
                sections.push(section(&std::mem::take(&mut text)));
            }
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&line);
        }
        sections.push(section(&text));
    }
    sections
}

fn section(text: &str) -> Value {
    json!({ "type": "section", "text": { "type": "mrkdwn", "text": text, "verbatim": true } })
}

fn mrkdwn(line: &Line) -> String {
    let start = ["", "• ", "      "][usize::from(line.indent.min(2))];
    let spans = line.spans.iter().map(|span| match span {
        Span::Plain(t) => escaped(t),
        Span::Strong(t) => wrapped('*', t),
        // A backtick cannot be escaped, and would end the code.
        Span::Code(t) => wrapped('`', &Text::new(&t.as_str().replace('`', "ˋ"))),
        Span::Link { label, url } => format!("<{}|{}>", escaped(url).replace('|', "%7C"), escaped(label)),
    });
    std::iter::once(start.to_owned()).chain(spans).collect()
}

/// Slack reads the marks only around text that does not begin or end with a space.
fn wrapped(mark: char, text: &Text) -> String {
    let text = escaped(text);
    let inner = text.trim();
    if inner.is_empty() {
        return text;
    }
    let (before, after) = (text.len() - text.trim_start().len(), text.trim_end().len());
    format!("{}{mark}{inner}{mark}{}", &text[..before], &text[after..])
}

fn escaped(text: &Text) -> String {
    text.as_str().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn actions(document: &Document, letter: &Letter) -> Option<Value> {
    let offers = document.offers.iter().filter_map(|o| Some((o, letter.buttons.get(&o.verb)?)));
    let buttons: Vec<Value> = offers
        .map(|(offer, id)| {
            let mut button = json!({
                "type": "button",
                "text": { "type": "plain_text", "text": offer.label.as_str(), "emoji": true },
                "action_id": offer.verb.as_str(),
                "value": id,
            });
            match offer.verb {
                Verb::Approve => button["style"] = "primary".into(),
                Verb::Reject => button["style"] = "danger".into(),
                Verb::Ack | Verb::Resolve => {}
            }
            button
        })
        .collect();
    (!buttons.is_empty()).then(|| json!({ "type": "actions", "elements": buttons }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Severity,
        notify::render::{Keep, Part},
    };
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn outside_text_never_becomes_a_mention_or_a_link(raw in "(?s)[<>&`*!@#|a-z ]{0,80}") {
            let line = Line::new().plain(raw.as_str()).strong(raw.as_str()).code(raw.as_str());
            let text = mrkdwn(&line);
            prop_assert!(!text.contains(['<', '>']));
            let code = text.rsplit_once('`').map_or("", |(before, _)| before);
            prop_assert!(raw.trim().is_empty() || code.contains('`'));
        }

        #[test]
        fn limits_hold(sizes in prop::collection::vec((1usize..4, 1usize..700), 1..60)) {
            let block = |(lines, n): &(usize, usize)| {
                let line = Line::new().plain("&я".repeat(*n));
                Block::new(Part::Timeline, Keep::Timeline, vec![line; *lines])
            };
            let blocks = sizes.iter().map(block).collect();
            let document =
                fit(Document { severity: Severity::Info, subject: Text::new("s"), blocks, offers: Vec::new() });
            let sections = sections(&document.blocks);
            prop_assert!(sections.len() < MAX_BLOCKS);
            let sizes = sections.iter().map(|s| length(s["text"]["text"].as_str().expect("text")));
            prop_assert!(sizes.clone().all(|n| n <= MAX_SECTION) && sizes.sum::<usize>() <= MAX_TOTAL);
        }
    }
}
