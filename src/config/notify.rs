//! Whom we tell, by which channels, and who may answer there.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Check, Problem, Secret, check};
use crate::model::Severity;

/// All channels, and what holds for each of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Notify {
    /// IANA name of the zone that times in messages are shown in.
    pub timezone: String,
    /// A new incident is told of after this long at the latest; a diagnosis that comes sooner travels with it.
    #[serde(with = "humantime_serde")]
    pub first_delay: Duration,
    /// A change that could not be delivered for so long goes to the dead letters and raises an alarm.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// How long an approve, reject, acknowledge or resolve button may be pressed (an approval's own expiry comes first).
    #[serde(with = "humantime_serde")]
    pub button_ttl: Duration,
    pub stdout: Stdout,
    pub telegram: Telegram,
    pub slack: Slack,
    pub pagerduty: PagerDuty,
    pub email: Email,
}

impl Default for Notify {
    fn default() -> Self {
        Self {
            timezone: "UTC".into(),
            first_delay: Duration::from_secs(2),
            deadline: Duration::from_secs(6 * 3600),
            button_ttl: Duration::from_secs(24 * 3600),
            stdout: Stdout::default(),
            telegram: Telegram::default(),
            slack: Slack::default(),
            pagerduty: PagerDuty::default(),
            email: Email::default(),
        }
    }
}

crate::model::words!(
    /// When messages are also printed on standard output.
    StdoutWhen {
        Never = "never",
        /// Only if no other channel is configured.
        Alone = "alone",
        Always = "always",
    }
);

/// Prints messages: for first steps.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stdout {
    pub when: StdoutWhen,
    pub min_severity: Severity,
}

impl Default for Stdout {
    fn default() -> Self {
        Self { when: StdoutWhen::Alone, min_severity: Severity::Info }
    }
}

/// A Telegram bot that writes to one chat and obeys its buttons.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telegram {
    /// From @BotFather: `123456:ABC…`. Empty: no Telegram.
    pub token: Secret,
    /// Base URL of the Bot API; a self-hosted server has another one.
    pub api: String,
    /// The chat that is written to; groups are negative.
    pub chat_id: i64,
    /// Numeric ids of those whose buttons and commands count.
    pub allowed_users: Vec<i64>,
    /// Further chats whose commands count, such as private ones (a private chat has its user's id).
    pub allowed_chats: Vec<i64>,
    /// Whether buttons and commands are fetched (long polling).
    pub listen: bool,
    pub min_severity: Severity,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How long one poll waits for news.
    #[serde(with = "humantime_serde")]
    pub poll: Duration,
}

impl Default for Telegram {
    fn default() -> Self {
        Self {
            token: Secret::default(),
            api: "https://api.telegram.org".into(),
            chat_id: 0,
            allowed_users: Vec::new(),
            allowed_chats: Vec::new(),
            listen: true,
            min_severity: Severity::Info,
            timeout: Duration::from_secs(10),
            poll: Duration::from_secs(25),
        }
    }
}

/// A Slack app (bot token: messages are edited, buttons work), or an incoming webhook (one message for each change that matters).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Slack {
    /// `xoxb-…` with `chat:write`. Empty: no app.
    pub token: Secret,
    /// URL of an incoming webhook; a secret, because whoever has it can post. Empty: none.
    pub webhook: Secret,
    /// Base URL of the Web API.
    pub api: String,
    /// Channel id (`C0123…`), better than a name, which can change.
    pub channel: String,
    /// Of the app: proves that a button press comes from Slack. Empty: messages carry no buttons.
    pub signing_secret: Secret,
    /// Slack user ids (`U0123…`) whose buttons count.
    pub allowed_users: Vec<String>,
    pub min_severity: Severity,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for Slack {
    fn default() -> Self {
        Self {
            token: Secret::default(),
            webhook: Secret::default(),
            api: "https://slack.com/api".into(),
            channel: String::new(),
            signing_secret: Secret::default(),
            allowed_users: Vec::new(),
            min_severity: Severity::Info,
            timeout: Duration::from_secs(10),
        }
    }
}

/// A PagerDuty service, by Events API v2.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PagerDuty {
    /// The service's integration key, 32 characters. Empty: no PagerDuty.
    pub routing_key: Secret,
    /// Base URL of the Events API.
    pub api: String,
    pub min_severity: Severity,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for PagerDuty {
    fn default() -> Self {
        Self {
            routing_key: Secret::default(),
            api: "https://events.pagerduty.com".into(),
            min_severity: Severity::Critical,
            timeout: Duration::from_secs(10),
        }
    }
}

crate::model::words!(
    /// How the connection to the mail server is protected.
    SmtpTls {
        /// TLS from the first byte, usually port 465.
        Implicit = "implicit",
        /// STARTTLS, required, usually port 587.
        Starttls = "starttls",
        /// None: only to a server on loopback.
        None = "none",
    }
);

/// Mail, for what matters only: opened, approval needed, failed or needs a human, resolved.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Email {
    /// Name of the mail server. Empty: no mail.
    pub host: String,
    pub port: u16,
    pub tls: SmtpTls,
    /// A PEM file with the certificate of a private authority. Empty: the system's authorities only.
    pub ca_file: PathBuf,
    pub user: String,
    pub password: Secret,
    /// `aiops <aiops@example.org>`.
    pub from: String,
    pub to: Vec<String>,
    pub min_severity: Severity,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for Email {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: 587,
            tls: SmtpTls::Starttls,
            ca_file: PathBuf::new(),
            user: String::new(),
            password: Secret::default(),
            from: String::new(),
            to: Vec::new(),
            min_severity: Severity::Warning,
            timeout: Duration::from_secs(15),
        }
    }
}

impl Telegram {
    pub fn is_on(&self) -> bool {
        !self.token.is_empty()
    }
}

impl Slack {
    pub fn is_on(&self) -> bool {
        !self.token.is_empty() || !self.webhook.is_empty()
    }
    /// Whether messages can carry buttons.
    pub fn has_buttons(&self) -> bool {
        !self.token.is_empty() && !self.signing_secret.is_empty()
    }
}

impl PagerDuty {
    pub fn is_on(&self) -> bool {
        !self.routing_key.is_empty()
    }
}

impl Email {
    pub fn is_on(&self) -> bool {
        !self.host.is_empty()
    }
}

impl Check for Notify {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        if jiff::tz::TimeZone::get(&self.timezone).is_err() {
            let message =
                format!("{:?} is no time zone; write UTC or a name such as Europe/Moscow", self.timezone);
            problems.push(Problem::new(format!("{at}.timezone"), message));
        }
        if self.first_delay > Duration::from_secs(2) {
            problems
                .push(Problem::new(format!("{at}.first_delay"), "must be 2s at most: people wait for it"));
        }
        check::positive(&format!("{at}.deadline"), self.deadline, problems);
        check::positive(&format!("{at}.button_ttl"), self.button_ttl, problems);
        self.telegram.check(&format!("{at}.telegram"), problems);
        self.slack.check(&format!("{at}.slack"), problems);
        self.pagerduty.check(&format!("{at}.pagerduty"), problems);
        self.email.check(&format!("{at}.email"), problems);
    }
}

impl Check for Telegram {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        let mut wrong =
            |key: &str, message: &str| problems.push(Problem::new(format!("{at}.{key}"), message));
        if !self.is_on() {
            return;
        }
        if !is_bot_token(self.token.expose()) {
            wrong(
                "token",
                "is not a bot token: digits, a colon and at least 30 letters, digits, _ or -, as @BotFather gives it",
            );
        }
        if self.chat_id == 0 {
            wrong(
                "chat_id",
                "must name the chat to write to: send the bot a message and look at getUpdates, or ask @userinfobot",
            );
        }
        if self.allowed_users.is_empty() {
            wrong(
                "allowed_users",
                "is empty: name the numeric ids of those who may press buttons; without it anybody could",
            );
        }
        if self.allowed_users.iter().any(|id| *id <= 0) {
            wrong(
                "allowed_users",
                "holds something that is no user: user ids are positive (negative ones are groups)",
            );
        }
        outside_url(&format!("{at}.api"), &self.api, problems);
        check::positive(&format!("{at}.timeout"), self.timeout, problems);
        check::positive(&format!("{at}.poll"), self.poll, problems);
    }
}

impl Check for Slack {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        let mut wrong =
            |key: &str, message: &str| problems.push(Problem::new(format!("{at}.{key}"), message));
        if !self.token.is_empty() && !self.webhook.is_empty() {
            wrong("webhook", "is set beside a token: use one of them, or people get everything twice");
        }
        if !self.token.is_empty() {
            if !self.token.expose().starts_with("xox") || self.token.expose().len() < 20 {
                wrong("token", "is not a Slack token: it begins with xoxb- and has at least 20 characters");
            }
            if self.channel.is_empty() {
                wrong("channel", "must name the channel to write to, such as C0123456789");
            }
            outside_url(&format!("{at}.api"), &self.api, problems);
        }
        if !self.webhook.is_empty() && reqwest::Url::parse(self.webhook.expose()).is_err() {
            problems.push(Problem::new(
                format!("{at}.webhook"),
                "is not a URL such as https://hooks.slack.com/services/…",
            ));
        } else if !self.webhook.is_empty() {
            outside_secret_url(&format!("{at}.webhook"), self.webhook.expose(), problems);
        }
        let mut wrong =
            |key: &str, message: &str| problems.push(Problem::new(format!("{at}.{key}"), message));
        if !self.signing_secret.is_empty() && self.signing_secret.expose().len() < 16 {
            wrong("signing_secret", "is too short to be one: Slack's have 32 characters");
        }
        if self.has_buttons() && self.allowed_users.is_empty() {
            wrong(
                "allowed_users",
                "is empty: name the Slack user ids (U0123…) of those who may press buttons",
            );
        }
        check::positive(&format!("{at}.timeout"), self.timeout, problems);
    }
}

impl Check for PagerDuty {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        if !self.is_on() {
            return;
        }
        if self.routing_key.expose().len() != 32 {
            problems.push(Problem::new(
                format!("{at}.routing_key"),
                "must have 32 characters: the service's Events API v2 integration key",
            ));
        }
        outside_url(&format!("{at}.api"), &self.api, problems);
        check::positive(&format!("{at}.timeout"), self.timeout, problems);
    }
}

impl Check for Email {
    fn check(&self, at: &str, problems: &mut Vec<Problem>) {
        if !self.is_on() {
            return;
        }
        let mut wrong =
            |key: &str, message: String| problems.push(Problem::new(format!("{at}.{key}"), message));
        if self.tls == SmtpTls::None && !is_loopback(&self.host) {
            wrong(
                "tls",
                format!("none would send mail in clear text to {}: use implicit or starttls", self.host),
            );
        }
        if let Err(e) = self.from.parse::<lettre::message::Mailbox>() {
            wrong("from", format!("{:?}: {e}; write aiops <aiops@example.org>", self.from));
        }
        if self.to.is_empty() {
            wrong("to", "is empty: name at least one address".into());
        }
        for (i, to) in self.to.iter().enumerate() {
            if let Err(e) = to.parse::<lettre::message::Mailbox>() {
                wrong(&format!("to[{i}]"), format!("{to:?}: {e}"));
            }
        }
        if self.user.is_empty() != self.password.is_empty() {
            wrong("password", "and user belong together: set both or neither".into());
        }
        check::positive(&format!("{at}.timeout"), self.timeout, problems);
    }
}

fn is_bot_token(token: &str) -> bool {
    let Some((id, key)) = token.split_once(':') else { return false };
    let key_ok = key.len() >= 30 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()) && key_ok
}

/// True for `localhost` and loopback addresses.
fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Secrets travel there: beyond loopback it must be https.
fn outside_url(key: &str, value: &str, problems: &mut Vec<Problem>) {
    check::url(key, value, problems);
    outside_secret_url(key, value, problems);
}

fn outside_secret_url(key: &str, value: &str, problems: &mut Vec<Problem>) {
    if let Ok(url) = reqwest::Url::parse(value)
        && url.scheme() == "http"
        && !is_loopback(url.host_str().unwrap_or_default())
    {
        problems.push(Problem::new(
            key,
            "must begin with https:// (plain http only to loopback): a secret travels there",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(notify: &Notify) -> Vec<String> {
        let mut problems = Vec::new();
        notify.check("notify", &mut problems);
        problems.into_iter().map(|p| p.key).collect()
    }

    fn token() -> Secret {
        Secret::new(format!("123456:{}", "A".repeat(35)))
    }

    #[test]
    fn the_defaults_are_right() {
        assert_eq!(keys(&Notify::default()), Vec::<String>::new());
    }

    #[test]
    fn a_bot_without_an_allow_list_is_refused() {
        let telegram = Telegram { token: token(), chat_id: -5, ..Telegram::default() };
        assert_eq!(keys(&Notify { telegram, ..Notify::default() }), ["notify.telegram.allowed_users"]);
    }

    #[test]
    fn short_secrets_are_refused() {
        let notify = Notify {
            telegram: Telegram {
                token: Secret::new("1:a"),
                chat_id: 1,
                allowed_users: vec![1],
                ..Telegram::default()
            },
            slack: Slack { signing_secret: Secret::new("short"), ..Slack::default() },
            pagerduty: PagerDuty { routing_key: Secret::new("k"), ..PagerDuty::default() },
            ..Notify::default()
        };
        assert_eq!(
            keys(&notify),
            ["notify.telegram.token", "notify.slack.signing_secret", "notify.pagerduty.routing_key"]
        );
    }

    #[test]
    fn clear_text_is_for_loopback_only() {
        let mail = |host: &str| Email {
            host: host.into(),
            tls: SmtpTls::None,
            from: "a@example.org".into(),
            to: vec!["b@example.org".into()],
            ..Email::default()
        };
        assert_eq!(keys(&Notify { email: mail("127.0.0.1"), ..Notify::default() }), Vec::<String>::new());
        assert_eq!(
            keys(&Notify { email: mail("mail.example.org"), ..Notify::default() }),
            ["notify.email.tls"]
        );
        let telegram = Telegram {
            token: token(),
            chat_id: 1,
            allowed_users: vec![1],
            api: "http://example.org".into(),
            ..Telegram::default()
        };
        assert_eq!(keys(&Notify { telegram, ..Notify::default() }), ["notify.telegram.api"]);
    }
}
