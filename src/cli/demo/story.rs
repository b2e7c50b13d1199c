//! Plays the demo: breaks the shop, follows what the service does about it, answers its question, and asks the shop at the end.

use std::time::Duration;

use jiff::Timestamp;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};

use super::{Args, ask, screen::Screen, settings, stage::Stage, summary::Summary, words};
use crate::{
    cli::{Failure, approve, plan},
    model::{Approval, TimelineEntry, TimelineKind},
};

/// Once broken, or once approved, it must get on within this time.
const PATIENCE: Duration = Duration::from_secs(40);

/// What is known so far.
struct Story {
    screen: Screen,
    entries: Vec<TimelineEntry>,
    broke_at: Option<Timestamp>,
    paged_at: Option<Timestamp>,
    deadline: Instant,
    /// Whether a question was shown; it is asked once.
    asked: bool,
}

/// What waits for an answer from the terminal.
struct Question {
    approval: Approval,
    answer: oneshot::Receiver<bool>,
}

/// The answer, once; without a question, never.
async fn answered(asked: &mut Option<Question>) -> (Approval, bool) {
    let yes = match asked {
        Some(question) => (&mut question.answer).await.unwrap_or(false),
        None => std::future::pending().await,
    };
    let question = asked.take().expect("there was one to answer");
    (question.approval, yes)
}

/// True if the shop itself says at the end that it is well, and the incident is over.
pub async fn play(stage: &mut Stage, args: &Args) -> Result<bool, Failure> {
    let mut story = Story {
        screen: Screen::new(args.json, args.lang),
        entries: Vec::new(),
        broke_at: None,
        paged_at: None,
        deadline: Instant::now(),
        asked: false,
    };
    story.screen.intro()?;
    story.screen.world("shop_open", &words::OPEN)?;
    // A little longer than the detectors learn, so that a baseline stands.
    sleep(settings::WARM_UP + Duration::from_secs(3)).await;
    story.screen.world("coupons", &words::COUPONS)?;
    stage.customers.use_coupons().await;
    story.deadline = Instant::now() + PATIENCE;
    let resolved = story.follow(stage, args).await?;
    let healed = stage.supervisor.victim.is_healthy().await;
    story.screen.summary(&Summary::of(healed && resolved, story.broke_at, story.paged_at, &story.entries))?;
    Ok(healed && resolved)
}

impl Story {
    /// Until the incident is over (true), or nothing more will come (false).
    async fn follow(&mut self, stage: &mut Stage, args: &Args) -> Result<bool, Failure> {
        let mut health = stage.alerting.health.subscribe();
        let mut asked: Option<Question> = None;
        loop {
            tokio::select! {
                Ok(()) = health.changed() => {
                    let now = *health.borrow_and_update();
                    self.health(now.broke_at, now.healed_at)?;
                }
                Some(page) = stage.phone.pages.recv() => {
                    self.screen.page(page.at, &page.text, self.paged_at.is_none())?;
                    self.paged_at.get_or_insert(page.at);
                }
                Some(entry) = stage.entries.recv() => {
                    self.screen.entry(&entry)?;
                    let kind = entry.kind;
                    self.entries.push(entry);
                    match kind {
                        TimelineKind::Proposed if !self.asked => asked = self.ask(stage, args.yes).await?,
                        TimelineKind::Resolved | TimelineKind::Verified if self.is_over() => return Ok(true),
                        TimelineKind::Rejected | TimelineKind::Expired | TimelineKind::NeedsHuman => return Ok(false),
                        _ => {}
                    }
                }
                (approval, yes) = answered(&mut asked) => self.answer(stage, args, &approval, yes).await?,
                // A person may think as long as the approval is good for.
                () = sleep_until(self.deadline), if asked.is_none() => return Ok(false),
            }
        }
    }

    /// The alerts are gone, and a fix that was made has been verified: whichever comes last.
    fn is_over(&self) -> bool {
        let has = |kind| self.entries.iter().any(|e| e.kind == kind);
        has(TimelineKind::Resolved) && (has(TimelineKind::Verified) || !has(TimelineKind::RunStarted))
    }

    fn health(&mut self, broke_at: Option<Timestamp>, healed_at: Option<Timestamp>) -> Result<(), Failure> {
        // On a busy machine both may be news at once.
        if self.broke_at.is_none() && broke_at.is_some() {
            self.broke_at = broke_at;
            self.screen.world("shop_broke", &words::BROKE)?;
        }
        if healed_at.is_some() {
            self.screen.world("shop_healed", &words::HEALED)?;
        }
        Ok(())
    }

    /// The question that waits, shown with its exact plan.
    async fn ask(&mut self, stage: &Stage, unattended: bool) -> Result<Option<Question>, Failure> {
        let Some(approval) = approve::pending(&stage.client).await?.into_iter().next() else {
            return Ok(None);
        };
        self.asked = true;
        self.screen.question(&plan::describe(&approval.plan))?;
        let answer = if unattended { ask::unattended() } else { ask::yes() };
        Ok(Some(Question { approval, answer }))
    }

    async fn answer(
        &mut self,
        stage: &Stage,
        args: &Args,
        approval: &Approval,
        yes: bool,
    ) -> Result<(), Failure> {
        self.deadline = Instant::now() + PATIENCE;
        if args.yes {
            self.screen.unattended()?;
        } else {
            self.screen.answered()?;
        }
        let verb = if yes { "approve" } else { "reject" };
        approve::decide(&stage.client, approval, verb, None).await.map(drop)
    }
}
