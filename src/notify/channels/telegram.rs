//! Telegram: one HTML message for each incident, edited in place, with buttons.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Bell, Capabilities, Channel, ChannelKind, How, Letter, SendError, Sent};
use crate::{
    bot_api::{ApiError, BotApi},
    config,
    model::Verb,
    notify::render::{Answer, Block, Document, Html, plain},
};

/// UTF-16 units after the markup is taken away.
const MAX_UNITS: usize = 4096;

pub(super) const PRIVATE: &[(usize, Duration)] = &[(1, Duration::from_secs(1))];
pub(super) const GROUP: &[(usize, Duration)] = &[(1, Duration::from_secs(1)), (20, Duration::from_secs(60))];

/// One chat, written to by one bot.
pub struct Telegram {
    api: BotApi,
    /// A group may become a supergroup with another id while we run.
    chat: AtomicI64,
    listens: bool,
}

/// Where a message stands.
#[derive(Debug, Serialize, Deserialize)]
struct Reference {
    chat: i64,
    message: i64,
}

#[derive(Deserialize)]
struct Posted {
    message_id: i64,
}

impl Telegram {
    pub fn new(settings: &config::Telegram) -> Self {
        Self { api: BotApi::new(settings), chat: AtomicI64::new(settings.chat_id), listens: settings.listen }
    }

    async fn send(&self, letter: &Letter) -> Result<Sent, SendError> {
        let chat = self.chat.load(Ordering::Relaxed);
        match self.call("sendMessage", letter, json!({ "chat_id": chat })).await {
            Ok(posted) => Ok(sent(How::Posted, chat, posted.message_id)),
            Err(ApiError::Answered { migrated_to: Some(new), .. }) => {
                self.moved(chat, new);
                let posted =
                    self.call("sendMessage", letter, json!({ "chat_id": new })).await.map_err(classify)?;
                Ok(sent(How::Posted, new, posted.message_id))
            }
            Err(e) => Err(classify(e)),
        }
    }

    fn moved(&self, old: i64, new: i64) {
        tracing::warn!(
            old,
            new,
            "the Telegram group became a supergroup; set notify.telegram.chat_id to the new id"
        );
        self.chat.store(new, Ordering::Relaxed);
    }

    /// Sends HTML; where Telegram cannot read it (which would be an error of ours), the same as plain text.
    async fn call(&self, method: &str, letter: &Letter, mut parameters: Value) -> Result<Posted, ApiError> {
        let document = fit(letter.document.clone());
        parameters["text"] = html(&document.blocks).finish().into();
        parameters["parse_mode"] = "HTML".into();
        parameters["link_preview_options"] = json!({ "is_disabled": true });
        parameters["reply_markup"] = json!({ "inline_keyboard": keyboard(&document, letter) });
        match self.api.call(method, &parameters).await {
            Err(ApiError::Answered { code: 400, description, .. })
                if description.contains("can't parse entities") =>
            {
                tracing::error!(method, description, "Telegram cannot read our markup; sending plain text");
                parameters["text"] = plain_units(&document.blocks).into();
                parameters.as_object_mut().expect("built as an object").remove("parse_mode");
                self.api.call(method, &parameters).await
            }
            answer => answer,
        }
    }
}

#[async_trait]
impl Channel for Telegram {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Telegram
    }

    fn capabilities(&self) -> Capabilities {
        let answer = if self.listens { Answer::Buttons } else { Answer::Commands };
        let limits = if self.chat.load(Ordering::Relaxed) < 0 { GROUP } else { PRIVATE };
        Capabilities { edits: true, answer, limits, parallel: 1 }
    }

    async fn post(&self, letter: &Letter) -> Result<Sent, SendError> {
        self.send(letter).await
    }

    async fn update(&self, letter: &Letter, reference: &Value) -> Result<Sent, SendError> {
        let Ok(Reference { chat, message }) = Reference::deserialize(reference) else {
            return self.send(letter).await;
        };
        let place = json!({ "chat_id": chat, "message_id": message });
        match self.call("editMessageText", letter, place).await {
            Ok(_) => Ok(sent(How::Edited, chat, message)),
            Err(ApiError::Answered { description, .. })
                if description.contains("message is not modified") =>
            {
                Ok(sent(How::Unchanged, chat, message))
            }
            Err(ApiError::Answered { migrated_to: Some(new), description, .. }) => {
                self.moved(chat, new);
                Err(SendError::Gone(description))
            }
            Err(ApiError::Answered { description, .. })
                if ["message to edit not found", "message can't be edited", "MESSAGE_ID_INVALID"]
                    .iter()
                    .any(|gone| description.contains(gone)) =>
            {
                Err(SendError::Gone(description))
            }
            Err(e) => Err(classify(e)),
        }
    }

    fn bell(&self) -> Option<&dyn Bell> {
        Some(self)
    }

    async fn check(&self) -> Result<String, String> {
        let me = self.api.me().await.map_err(|e| e.to_string())?;
        let chat = self.chat.load(Ordering::Relaxed);
        let found: Result<Value, _> = self.api.call("getChat", &json!({ "chat_id": chat })).await;
        match found {
            Ok(_) => Ok(format!("@{} reaches chat {chat}", me.username)),
            Err(e) => {
                Err(format!("@{} does not reach chat {chat}: {e}; add the bot to the chat", me.username))
            }
        }
    }
}

#[async_trait]
impl Bell for Telegram {
    async fn ring(&self, letter: &Letter, reference: &Value) -> Result<(), SendError> {
        let chat = self.chat.load(Ordering::Relaxed);
        let mut place = json!({ "chat_id": chat });
        if let Some(main) = Reference::deserialize(reference).ok().filter(|r| r.chat == chat) {
            // Somebody may delete the message while we answer it.
            place["reply_parameters"] =
                json!({ "message_id": main.message, "allow_sending_without_reply": true });
        }
        match self.call("sendMessage", letter, place).await {
            Ok(_) => Ok(()),
            Err(ApiError::Answered { migrated_to: Some(new), description, .. }) => {
                self.moved(chat, new);
                Err(SendError::Again(description))
            }
            Err(e) => Err(classify(e)),
        }
    }
}

fn sent(how: How, chat: i64, message: i64) -> Sent {
    let reference = serde_json::to_value(Reference { chat, message }).expect("two numbers");
    Sent::new(how, reference, chat.to_string())
}

fn classify(error: ApiError) -> SendError {
    let why = error.to_string();
    match error {
        ApiError::Unreachable(_) => SendError::Again(why),
        ApiError::Answered { retry_after: Some(after), .. } => SendError::Slower { why, after },
        ApiError::Answered { code: 429, .. } => SendError::Slower { why, after: Duration::from_secs(5) },
        ApiError::Answered { code, .. } if code >= 500 => SendError::Again(why),
        ApiError::Answered { .. } => SendError::Refused(why),
    }
}

fn fit(document: Document) -> Document {
    document.fit(|d| html(&d.blocks).visible() <= MAX_UNITS)
}

fn html(blocks: &[Block]) -> Html {
    let mut out = Html::new();
    for (n, block) in blocks.iter().enumerate() {
        if n > 0 {
            out.newline();
        }
        // The headline and the facts stand together.
        if n > 1 {
            out.newline();
        }
        if let Some(title) = &block.title {
            out.tag("<b>").text(title).tag("</b>").newline();
        }
        for (n, line) in block.lines.iter().enumerate() {
            if n > 0 {
                out.newline();
            }
            out.text(&["", "• ", "   "][usize::from(line.indent.min(2))].into()).line(line);
        }
    }
    out
}

/// Plain text is the exception, so it may be cut.
fn plain_units(blocks: &[Block]) -> String {
    let mut units = 0;
    let fits = |c: &char| {
        units += c.len_utf16();
        units <= MAX_UNITS
    };
    plain(blocks).chars().take_while(fits).collect()
}

/// Answers to the question in one row, what concerns the incident in the next.
fn keyboard(document: &Document, letter: &Letter) -> Vec<Vec<Value>> {
    let row = |verbs: [Verb; 2]| -> Vec<Value> {
        let offers = document.offers.iter().filter(|o| verbs.contains(&o.verb));
        let button = |o: &crate::notify::render::Offer| {
            let id = letter.buttons.get(&o.verb)?;
            Some(json!({ "text": o.label.as_str(), "callback_data": id }))
        };
        offers.filter_map(button).collect()
    };
    let rows = [row([Verb::Approve, Verb::Reject]), row([Verb::Ack, Verb::Resolve])];
    rows.into_iter().filter(|r| !r.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Severity,
        notify::render::{Keep, Line, Part, Text},
    };
    use proptest::prelude::*;

    fn document(blocks: Vec<Block>) -> Document {
        Document { severity: Severity::Info, subject: Text::new("s"), blocks, offers: Vec::new() }
    }

    /// Takes the tags away and reads the entities back; fails on any tag that is not one of ours.
    fn visible_text(html: &str) -> String {
        let mut out = String::new();
        let mut rest = html;
        while let Some(at) = rest.find(['<', '&']) {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            let known = ["<b>", "</b>", "<code>", "</code>", "</a>", "&amp;", "&lt;", "&gt;", "&quot;"];
            let token =
                known.iter().find(|k| rest.starts_with(**k)).unwrap_or_else(|| panic!("unescaped: {rest}"));
            out.push_str(
                ["", "&", "<", ">", "\""][known.iter().skip(5).position(|k| k == token).map_or(0, |i| i + 1)],
            );
            rest = &rest[token.len()..];
        }
        out + rest
    }

    proptest! {
        #[test]
        fn whatever_the_text_it_never_becomes_markup(raw in "(?s).{0,200}") {
            let line = Line::new().plain(raw.as_str()).strong(raw.as_str()).code(raw.as_str());
            let markup = html(&[Block::new(Part::Facts, Keep::Always, vec![line])]);
            let units = markup.visible();
            let text = visible_text(&markup.finish());
            prop_assert_eq!(&text, &Text::new(&raw).as_str().repeat(3));
            prop_assert_eq!(units, text.encode_utf16().count());
        }

        #[test]
        fn whole_blocks_go_until_it_fits(sizes in prop::collection::vec(1usize..1500, 1..12)) {
            let block = |n: &usize| {
                Block::new(Part::Timeline, Keep::Timeline, vec![Line::new().plain("😀<".repeat(*n))])
            };
            let head = Block::new(Part::Headline, Keep::Always, vec![Line::new().plain("what broke")]);
            let blocks: Vec<Block> = std::iter::once(head).chain(sizes.iter().map(block)).collect();
            let fitted = fit(document(blocks.clone()));
            prop_assert!(html(&fitted.blocks).visible() <= MAX_UNITS);
            prop_assert!(fitted.blocks.iter().all(|b| blocks.contains(b)));
            prop_assert_eq!(&fitted.blocks[0], &blocks[0]);
        }
    }
}
