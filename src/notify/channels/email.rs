//! Mail: one for each milestone of an incident, in one thread; every recipient's outcome is its own.

use std::time::{Duration, Instant};

use anyhow::Context;
use async_trait::async_trait;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    address::Envelope,
    message::{Mailbox, MultiPart, header},
    transport::smtp::{
        PoolConfig,
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Capabilities, Channel, ChannelKind, How, Letter, SendError, Sent, milestones::Told};
use crate::{
    config::{self, SmtpTls},
    model::sha256_hex,
    notify::render::{Answer, Block, Html, plain},
};

/// After this long the remaining recipients wait for the next try.
const BUDGET: Duration = Duration::from_secs(60);

/// One mail server, one sender, some recipients.
pub struct Email {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
    server: String,
}

/// What was mailed, and to whom a mail is still owed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Reference {
    told: Told,
    /// The milestone whose mail has not reached everybody.
    unfinished: Option<String>,
    /// Those whom it has to reach yet.
    owed: Vec<String>,
    /// How many it has reached.
    reached: usize,
}

/// What became of one milestone's mail.
#[derive(Default)]
struct Tally {
    taken: usize,
    owed: Vec<String>,
    refused: Vec<String>,
    why: Option<String>,
}

impl Email {
    pub fn new(settings: &config::Email) -> anyhow::Result<Self> {
        crate::http_client::install_tls();
        let to = settings.to.iter().map(|a| a.parse().with_context(|| format!("notify.email.to: {a:?}")));
        Ok(Self {
            transport: transport(settings)?,
            from: settings.from.parse().with_context(|| format!("notify.email.from: {:?}", settings.from))?,
            to: to.collect::<anyhow::Result<_>>()?,
            server: format!("{}:{}", settings.host, settings.port),
        })
    }

    async fn tell(&self, letter: &Letter, mut reference: Reference) -> Result<Sent, SendError> {
        let milestone = reference.told.next(&letter.view);
        let owed = match (&milestone, &reference.unfinished) {
            (Some(new), Some(old)) if new == old => reference.owed.clone(),
            // What was owed of an earlier milestone is superseded by the newer one.
            (Some(_), _) => {
                reference.reached = 0;
                self.to.iter().map(|m| m.email.to_string()).collect()
            }
            (None, _) => return Ok(Sent::new(How::Unchanged, to_value(&reference), "")),
        };
        let milestone = milestone.expect("matched above");
        let tally = self.send_each(letter, &milestone, &owed).await?;
        reference.reached += tally.taken;
        if reference.reached == 0 && tally.owed.is_empty() {
            return Err(SendError::Refused(format!(
                "refused for every recipient: {}",
                tally.refused.join("; ")
            )));
        }
        let rest = (!tally.owed.is_empty()).then(|| {
            format!(
                "{} not reached yet: {}",
                tally.owed.join(", "),
                tally.why.as_deref().unwrap_or("no time left")
            )
        });
        if rest.is_some() {
            reference.unfinished = Some(milestone);
            reference.owed = tally.owed;
        } else {
            reference.told.add(&milestone, &letter.view);
            (reference.unfinished, reference.owed) = (None, Vec::new());
        }
        let refused = (!tally.refused.is_empty()).then(|| tally.refused.join("; "));
        Ok(Sent { rest, refused, ..Sent::new(How::Posted, to_value(&reference), "") })
    }

    /// One SMTP transaction for each recipient, so that a bad address fails alone. All see the same headers.
    async fn send_each(&self, letter: &Letter, milestone: &str, owed: &[String]) -> Result<Tally, SendError> {
        let mail = self.compose(letter, milestone).map_err(|e| SendError::Refused(format!("{e:#}")))?;
        let bytes = mail.formatted();
        let started = Instant::now();
        let mut tally = Tally::default();
        for to in self.to.iter().filter(|m| owed.contains(&m.email.to_string())) {
            let address = to.email.to_string();
            if started.elapsed() > BUDGET {
                tally.owed.push(address);
                continue;
            }
            let envelope = Envelope::new(Some(self.from.email.clone()), vec![to.email.clone()])
                .map_err(|e| SendError::Refused(e.to_string()))?;
            match self.transport.send_raw(&envelope, &bytes).await {
                Ok(_) => tally.taken += 1,
                Err(e) if e.is_permanent() => tally.refused.push(format!("{address}: {}", reason(&e))),
                Err(e) => {
                    tally.why = Some(reason(&e));
                    tally.owed.push(address);
                }
            }
        }
        Ok(tally)
    }

    fn compose(&self, letter: &Letter, milestone: &str) -> anyhow::Result<Message> {
        let id = &letter.view.incident.id;
        let root = self.message_id(id);
        let mut builder = Message::builder()
            .from(self.from.clone())
            .subject(letter.document.subject.as_str())
            .header(header::MIME_VERSION_1_0)
            // The same over all tries and after a kill, so that mail clients show a second copy as the same mail.
            .message_id(Some(self.message_id(&format!("{id}.{milestone}"))))
            .references(root.clone())
            .in_reply_to(root);
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        let text = plain(&letter.document.blocks);
        builder
            .multipart(MultiPart::alternative_plain_html(text, html(&letter.document.blocks)))
            .context("composing a mail")
    }

    /// From what must be stable; nothing in it can break a header.
    fn message_id(&self, of: &str) -> String {
        format!("<{}@{}>", &sha256_hex(of.as_bytes())[..32], self.from.email.domain())
    }
}

fn to_value(reference: &Reference) -> Value {
    serde_json::to_value(reference).expect("strings and lists")
}

fn reason(error: &lettre::transport::smtp::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(c) = cause {
        text = format!("{text}: {c}");
        cause = c.source();
    }
    text.replace(['\r', '\n'], " ")
}

fn transport(settings: &config::Email) -> anyhow::Result<AsyncSmtpTransport<Tokio1Executor>> {
    let tls = || -> anyhow::Result<TlsParameters> {
        let mut parameters = TlsParameters::builder(settings.host.clone());
        if !settings.ca_file.as_os_str().is_empty() {
            let reading = || format!("notify.email.ca_file: {}", settings.ca_file.display());
            let pem = std::fs::read(&settings.ca_file).with_context(reading)?;
            parameters = parameters.add_root_certificate(Certificate::from_pem(&pem).with_context(reading)?);
        }
        Ok(parameters.build_rustls()?)
    };
    // "Dangerous" is only that it sets no TLS by itself: each arm below says which.
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&settings.host)
        .port(settings.port)
        .timeout(Some(settings.timeout))
        .pool_config(PoolConfig::new().max_size(2).idle_timeout(Duration::from_secs(30)))
        .tls(match settings.tls {
            SmtpTls::Implicit => Tls::Wrapper(tls()?),
            SmtpTls::Starttls => Tls::Required(tls()?),
            SmtpTls::None => Tls::None,
        });
    if !settings.user.is_empty() {
        let password = settings.password.expose().to_owned();
        builder = builder.credentials(Credentials::new(settings.user.clone(), password));
    }
    Ok(builder.build())
}

fn html(blocks: &[Block]) -> String {
    let mut out = Html::new();
    out.tag("<!doctype html><html><body style=\"font-family:sans-serif\">");
    for block in blocks {
        out.tag("<p>");
        if let Some(title) = &block.title {
            out.tag("<b>").text(title).tag("</b><br>");
        }
        for (n, line) in block.lines.iter().enumerate() {
            if n > 0 {
                out.tag("<br>");
            }
            out.tag(["", "&bull; ", "&emsp;"][usize::from(line.indent.min(2))]).line(line);
        }
        out.tag("</p>\n");
    }
    out.tag("</body></html>\n");
    out.finish()
}

#[async_trait]
impl Channel for Email {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Email
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { edits: false, answer: Answer::Commands, limits: &[], parallel: 1 }
    }

    async fn post(&self, letter: &Letter) -> Result<Sent, SendError> {
        self.tell(letter, Reference::default()).await
    }

    async fn update(&self, letter: &Letter, reference: &Value) -> Result<Sent, SendError> {
        self.tell(letter, Reference::deserialize(reference).unwrap_or_default()).await
    }

    /// Connects, protects the connection as set, signs in, and says EHLO and NOOP.
    async fn check(&self) -> Result<String, String> {
        match self.transport.test_connection().await {
            Ok(true) => Ok(format!("{} takes mail for {} recipients", self.server, self.to.len())),
            Ok(false) => Err(format!("{} answers, but not as a mail server should", self.server)),
            Err(e) => Err(format!("{}: {}", self.server, reason(&e))),
        }
    }
}
