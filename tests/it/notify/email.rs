//! What mail does of its own: several recipients, threads, TLS.

use super::*;

#[tokio::test]
async fn one_bad_address_does_not_fail_the_mail_for_the_rest() {
    let smtp = peers::Smtp::start().await;
    let to = ["ann@example.org", "fail550@example.org", "fail450@example.org", "bob@example.org"];
    let mut outbox = Outbox::sqlite(|s| to_email(s, smtp.port, &to)).await;
    let incident = outbox.open("slow\r\nBcc: everybody@example.org").await;
    outbox.deliver(0).await;
    let reached: Vec<_> = smtp.mails().into_iter().flat_map(|m| m.to).collect();
    assert_eq!(reached, ["ann@example.org", "bob@example.org"]);
    assert!(!smtp.mails()[0].text.contains("\nBcc:"), "{}", smtp.mails()[0].text);
    let m = outbox.message(&incident.id, "email").await;
    assert_eq!(m.state, MessageState::Due);
    let why = m.last_error.expect("a reason");
    assert!(why.starts_with("fail450@example.org not reached yet: "), "{why}");

    outbox.deliver(10).await;
    assert_eq!(smtp.mails().len(), 2, "only who is owed is tried again");
    outbox.settings.notify.deadline = Duration::from_secs(1);
    let impatient = Deps::new(outbox.store.clone(), &outbox.settings).expect("right settings");
    outbox.clock.deliver(&impatient, 30).await;
    assert_eq!(outbox.message(&incident.id, "email").await.state, MessageState::Dead);
}

fn header<'a>(mail: &'a str, name: &str) -> &'a str {
    let line = mail.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name} in {mail}")).trim()
}

#[tokio::test]
async fn mails_are_one_thread_and_only_of_what_matters() {
    let smtp = peers::Smtp::start_starttls().await;
    let mut outbox = Outbox::sqlite(|s| {
        to_email(s, smtp.port, &["ann@example.org"]);
        s.notify.email.host = "localhost".into();
        s.notify.email.tls = SmtpTls::Starttls;
        s.notify.email.ca_file = smtp.certificate.clone().expect("it speaks TLS");
    })
    .await;
    let incident = outbox.open("slow").await;
    outbox.deliver(0).await;
    outbox.diagnose(&incident.id).await;
    outbox.deliver(1).await;
    assert_eq!(smtp.mails().len(), 1, "a diagnosis alone is no mail");
    outbox.propose(&incident.id).await;
    outbox.deliver(1).await;
    outbox.resolve(&incident.id).await;
    outbox.deliver(1).await;
    let mails = smtp.mails();
    assert!(mails.iter().all(|m| m.tls));
    let subjects: Vec<_> = mails.iter().map(|m| header(&m.text, "Subject")).collect();
    assert_eq!(
        subjects,
        [
            "[CRITICAL] checkout: slow",
            "[CRITICAL] approval needed: checkout: slow",
            "[RESOLVED] checkout: slow"
        ]
    );
    let roots: std::collections::BTreeSet<_> = mails.iter().map(|m| header(&m.text, "References")).collect();
    let ids: std::collections::BTreeSet<_> = mails.iter().map(|m| header(&m.text, "Message-ID")).collect();
    assert_eq!((roots.len(), ids.len()), (1, 3));
    assert!(mails[0].text.contains("multipart/alternative"));
}

#[tokio::test]
async fn a_mail_server_without_tls_is_not_trusted() {
    let smtp = peers::Smtp::start().await;
    let mut outbox = Outbox::sqlite(|s| {
        to_email(s, smtp.port, &["ann@example.org"]);
        s.notify.email.tls = SmtpTls::Starttls;
    })
    .await;
    outbox.open("slow").await;
    outbox.deliver(0).await;
    assert_eq!(smtp.mails().len(), 0);
}
