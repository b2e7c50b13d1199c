//! What comes next in a run, from its plan and its journal alone. No I/O: the same journal always gives the same answer.

use jiff::Timestamp;

use crate::{
    model::{Action, Phase, Phrase, Plan, PlanStep, Run, RunState, Said, StepRecord, StepState},
    steps,
};

/// One try of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub phase: Phase,
    pub position: usize,
    /// From 1.
    pub attempt: i64,
}

impl Place {
    pub fn step(self, plan: &Plan) -> &PlanStep {
        &list(plan, self.phase)[self.position]
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// Begin this try.
    Try(Place),
    /// A wait that was cut off goes on from when it began.
    Resume(Place, Timestamp),
    /// An intent without a result: nobody knows whether it was done.
    Lost {
        place: Place,
        since: Timestamp,
        repeatable: bool,
    },
    /// A step failed for good.
    RollBack {
        why: Said,
    },
    /// All steps are done.
    Verify,
    Finish {
        state: RunState,
        why: Said,
    },
    /// A human's turn.
    Waiting,
    Over,
}

/// So often is a repeatable step begun anew after its outcome was lost; a step that takes the service down with it each time
/// must not do so for ever.
const MAX_LOST: usize = 3;

pub(super) fn next(run: &Run) -> Next {
    let phase = match run.state {
        RunState::NeedsHuman => return Next::Waiting,
        RunState::Verifying => return Next::Verify,
        RunState::Running => Phase::Main,
        RunState::RollingBack => Phase::Rollback,
        _ => return Next::Over,
    };
    for (position, step) in list(&run.plan, phase).iter().enumerate() {
        let tries = run.steps.iter().filter(|r| r.phase == phase && r.position == position as i64).collect();
        if let Some(next) = at(phase, position, step, tries) {
            return next;
        }
    }
    match (phase, &run.plan.verify) {
        (Phase::Main, Some(_)) => Next::Verify,
        (Phase::Main, None) => {
            Next::Finish { state: RunState::Succeeded, why: Phrase::NothingToVerify {}.into() }
        }
        (Phase::Rollback, _) if run.plan.rollback.is_empty() => {
            Next::Finish { state: RunState::Failed, why: run.outcome.clone() }
        }
        (Phase::Rollback, _) => Next::Finish { state: RunState::RolledBack, why: run.outcome.clone() },
    }
}

fn list(plan: &Plan, phase: Phase) -> &[PlanStep] {
    match phase {
        Phase::Main => &plan.steps,
        Phase::Rollback => &plan.rollback,
    }
}

/// What to do about one step, or `None` if it is done.
fn at(phase: Phase, position: usize, step: &PlanStep, mut tries: Vec<&StepRecord>) -> Option<Next> {
    tries.sort_by_key(|r| r.attempt);
    let count = |state| tries.iter().filter(|r| r.state == state).count();
    let Some(last) = tries.last() else {
        return Some(Next::Try(Place { phase, position, attempt: 1 }));
    };
    let place = Place { phase, position, attempt: last.attempt };
    let again = Next::Try(Place { attempt: last.attempt + 1, ..place });
    match last.state {
        StepState::Succeeded => None,
        // A human said retry, or the step may be repeated: both write `Unknown` only before going on.
        StepState::Unknown => Some(again),
        StepState::Failed if step.idempotent && count(StepState::Failed) <= step.retries as usize => {
            Some(again)
        }
        StepState::Failed => {
            let end = last.output.lines().last().unwrap_or_default();
            let why = Said::from(Phrase::StepFailed { step: step.id.clone(), end: end.to_owned() });
            Some(match phase {
                Phase::Main => Next::RollBack { why },
                Phase::Rollback => {
                    Next::Finish { state: RunState::Failed, why: Phrase::RollbackFailedToo { why }.into() }
                }
            })
        }
        StepState::Intended if matches!(step.action, Action::Wait { .. }) => {
            Some(Next::Resume(place, last.started_at))
        }
        StepState::Intended => {
            let repeatable = steps::repeatable(step) && count(StepState::Unknown) < MAX_LOST;
            Some(Next::Lost { place, since: last.started_at, repeatable })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        clock,
        model::{Actor, Guards},
    };

    fn step(id: &str, idempotent: bool, retries: u32) -> PlanStep {
        let action = Action::Command { argv: vec!["/bin/x".into()] };
        PlanStep { id: id.into(), action, timeout: Duration::from_secs(1), idempotent, retries }
    }

    fn run(steps: Vec<PlanStep>, rollback: Vec<PlanStep>) -> Run {
        let plan = Plan {
            playbook: "p".into(),
            title: "t".into(),
            params: BTreeMap::new(),
            target: "x".into(),
            steps,
            verify: None,
            rollback,
            guards: Guards::default(),
            on_failure: String::new(),
        };
        Run {
            id: "r".into(),
            incident_id: None,
            state: RunState::Running,
            plan_hash: plan.hash(),
            plan,
            allowed_by: Actor::aiops("test"),
            started_at: clock::now(),
            finished_at: None,
            outcome: Said::default(),
            steps: Vec::new(),
        }
    }

    fn journal(run: &mut Run, place: Place, state: StepState) {
        run.steps.retain(|r| {
            (r.phase, r.position, r.attempt) != (place.phase, place.position as i64, place.attempt)
        });
        run.steps.push(StepRecord {
            phase: place.phase,
            position: place.position as i64,
            attempt: place.attempt,
            step_id: place.step(&run.plan).id.clone(),
            state,
            started_at: clock::now(),
            finished_at: None,
            output: "o".into(),
        });
    }

    proptest! {
        /// Whatever fails, gets lost or succeeds, and wherever a crash falls: the run ends, every step is done at most once
        /// unless declared harmless, and rollback steps follow their order.
        #[test]
        fn every_run_ends_and_repeats_only_what_is_harmless(
            shape in prop::collection::vec((any::<bool>(), 0..3u32), 1..5),
            undo in prop::collection::vec((any::<bool>(), 0..3u32), 0..4),
            fate in prop::collection::vec(0..4u8, 200),
        ) {
            let named = |prefix: &str, list: &[(bool, u32)]| {
                list.iter().enumerate().map(|(i, (idem, r))| step(&format!("{prefix}{i}"), *idem, *r)).collect()
            };
            let mut r = run(named("s", &shape), named("u", &undo));
            let mut done: Vec<(Phase, usize)> = Vec::new();
            let mut fate = fate.into_iter();
            loop {
                match next(&r) {
                    Next::Try(place) => {
                        journal(&mut r, place, StepState::Intended);
                        done.push((place.phase, place.position));
                        match fate.next() {
                            Some(0) => journal(&mut r, place, StepState::Failed),
                            // A crash: the intent is all there is.
                            Some(1) => {}
                            _ => journal(&mut r, place, StepState::Succeeded),
                        }
                    }
                    Next::Lost { place, repeatable, .. } => {
                        journal(&mut r, place, StepState::Unknown);
                        if !repeatable {
                            break;
                        }
                    }
                    Next::RollBack { .. } => r.state = RunState::RollingBack,
                    Next::Finish { state, .. } => {
                        prop_assert!(state.is_final());
                        break;
                    }
                    other => panic!("{other:?}"),
                }
                prop_assert!(done.len() < 100, "it does not end");
            }
            for (phase, position) in &done {
                let times = done.iter().filter(|d| *d == &(*phase, *position)).count();
                prop_assert!(times == 1 || list(&r.plan, *phase)[*position].idempotent);
            }
            prop_assert!(done.is_sorted(), "out of order: {done:?}");
        }
    }
}
