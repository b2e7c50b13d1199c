//! How often an incident is diagnosed anew while signals keep coming: at once first, then less and less often.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;

use crate::clock;

/// After the first diagnosis; each further one waits twice as long as the one before.
const FIRST: Duration = Duration::from_millis(125);
const LONGEST: Duration = Duration::from_secs(2);
/// An incident that was left alone for so long is a new one here.
const FORGOTTEN: Duration = Duration::from_secs(8);
/// So many are remembered before the forgotten ones are thrown out.
const MANY: usize = 1024;

/// What one process remembers of the diagnoses that it asked for. Another replica remembers its own: that is harmless.
#[derive(Default)]
pub struct Pace {
    asked: HashMap<String, Asked>,
    swept: usize,
}

/// The last diagnosis of an incident: when it was or is due, and how long the next one waits after that.
struct Asked {
    due: Timestamp,
    wait: Duration,
}

impl Pace {
    /// When a diagnosis is due that is asked for now.
    pub fn due(&mut self, incident: &str, now: Timestamp) -> Timestamp {
        let Some(asked) = self.asked.get_mut(incident).filter(|a| clock::after(a.due, FORGOTTEN) > now)
        else {
            self.sweep(now);
            self.asked.insert(incident.to_owned(), Asked { due: now, wait: FIRST });
            return now;
        };
        // One that is still to come will see the new signals too.
        if asked.due <= now {
            asked.due = clock::after(asked.due, asked.wait).max(now);
            asked.wait = (asked.wait * 2).min(LONGEST);
        }
        asked.due
    }

    fn sweep(&mut self, now: Timestamp) {
        if self.asked.len() >= self.swept.max(MANY / 2) * 2 {
            self.asked.retain(|_, a| clock::after(a.due, FORGOTTEN) > now);
            self.swept = self.asked.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_000_000 + ms).expect("in range")
    }

    #[test]
    fn the_first_is_at_once_and_those_of_a_flood_come_ever_more_seldom() {
        let mut pace = Pace::default();
        let mut due: Vec<i64> =
            (0..20_000).step_by(10).map(|ms| pace.due("a", at(ms)).as_millisecond()).collect();
        due.dedup();
        let waits: Vec<i64> = due.windows(2).map(|w| w[1] - w[0]).collect();
        assert_eq!(due[0], 1_000_000);
        assert_eq!(waits[..5], [125, 250, 500, 1000, 2000]);
        assert!(waits[5..].iter().all(|w| (2000..=2010).contains(w)), "{waits:?}");
    }

    #[test]
    fn after_a_while_of_quiet_it_is_at_once_again() {
        let mut pace = Pace::default();
        assert_eq!(pace.due("a", at(0)), at(0));
        assert_eq!(pace.due("a", at(1)), at(125));
        assert_eq!(pace.due("b", at(1)), at(1), "others do not wait for it");
        assert_eq!(pace.due("a", at(3000)), at(3000), "long since due");
        assert_eq!(pace.due("a", at(20_000)), at(20_000));
        assert_eq!(pace.due("a", at(20_001)), at(20_125));
    }

    #[test]
    fn what_is_forgotten_is_not_kept() {
        let mut pace = Pace::default();
        for i in 0..100_000 {
            pace.due(&i.to_string(), at(i * 100));
        }
        assert!(pace.asked.len() <= 2 * MANY, "{}", pace.asked.len());
    }
}
