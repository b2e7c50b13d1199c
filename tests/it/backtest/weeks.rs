//! Series of our own making that run for weeks: office hours, quiet weekends, weekly jobs, and a day that is really wrong.

use super::series::Random;

/// Who uses what is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Users {
    /// From nine to six on weekdays, a sixth of it at weekends.
    Offices,
    /// The same, and a job of two hours on Sunday night.
    OfficesAndJob,
    /// In the evening, and more at weekends.
    Homes,
    /// All days alike.
    Machines,
}

/// What happens on one day of the last week.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wrong {
    Nothing,
    /// Monday is twice as busy from ten on.
    High,
    /// Monday falls to a twentieth at eleven, for three hours.
    Collapse,
    /// Monday is as quiet as Sunday was.
    Quiet,
    /// Saturday is as busy as Friday was.
    BusySaturday,
}

impl Users {
    pub const ALL: [Self; 4] = [Self::Offices, Self::OfficesAndJob, Self::Homes, Self::Machines];
}

pub const WEEK_S: i64 = 7 * 86_400;
/// A Monday, midnight UTC.
pub const MONDAY: i64 = 1_772_409_600;

pub struct Weeks {
    pub step_s: i64,
    pub values: Vec<f64>,
    /// Seconds by which the people's day begins earlier than in UTC.
    pub east_s: i64,
    /// Seconds after `MONDAY` of what is wrong.
    pub wrong_s: Option<i64>,
}

/// `weeks` weeks with a value each `step_s` seconds.
pub fn make(users: Users, wrong: Wrong, weeks: i64, step_s: i64, seed: u64) -> Weeks {
    let mut r = Random(seed.wrapping_mul(0x5851_f42d) ^ (users as u64) << 8 ^ (step_s as u64) << 16);
    let east_s = [0, 8, -7][(seed % 3) as usize] * 3600;
    let level = 100.0 + 900.0 * r.unit();
    let (share, memory) = (0.02 + 0.04 * r.unit(), [0.0, 0.7][(seed / 3 % 2) as usize]);
    let (floor, weekend) = (0.05 + 0.1 * r.unit(), 0.1 + 0.15 * r.unit());
    let last = (weeks - 1) * WEEK_S;
    let wrong_s = match wrong {
        Wrong::Nothing => None,
        Wrong::High => Some(last + 10 * 3600),
        Wrong::Collapse => Some(last + 11 * 3600),
        Wrong::Quiet => Some(last + 8 * 3600),
        Wrong::BusySaturday => Some(last + 5 * 86_400 + 8 * 3600),
    };
    // Usage without noise at a local time since the first Monday.
    let usage = |at: i64| {
        let (day, hour) = (at.div_euclid(86_400).rem_euclid(7), at.rem_euclid(86_400) as f64 / 3600.0);
        let between = |from: f64, to: f64| {
            let edge = |x: f64| 1.0 / (1.0 + (-2.5 * x).exp());
            edge(hour - from) * edge(to - hour)
        };
        let free = day >= 5;
        match users {
            Users::Offices | Users::OfficesAndJob => {
                let busy = between(8.5, 18.0) * (1.0 - 0.2 * between(12.0, 13.0));
                let job = users == Users::OfficesAndJob && day == 6 && (2.0..4.0).contains(&hour);
                floor + if free { weekend * busy } else { busy } + if job { 0.8 } else { 0.0 }
            }
            Users::Homes => {
                let evening = between(17.0, 23.0) + if free { 0.7 * between(10.0, 17.0) } else { 0.2 };
                floor + evening
            }
            Users::Machines => floor + 0.3 + between(1.0, 5.0),
        }
    };
    let mut noise = 0.0;
    let value = |k: i64| {
        noise = memory * noise + (1.0_f64 - memory * memory).sqrt() * r.normal();
        let at = k * step_s + east_s;
        let hour_of_last = (at - last) as f64 / 3600.0;
        let usual = usage(at);
        let usage = match wrong {
            Wrong::High if (10.0..24.0).contains(&hour_of_last) => 2.0 * usual,
            Wrong::Collapse if (11.0..14.0).contains(&hour_of_last) => 0.05 * usual,
            Wrong::Quiet if (0.0..24.0).contains(&hour_of_last) => usage(at - 86_400),
            Wrong::BusySaturday if (120.0..144.0).contains(&hour_of_last) => usage(at - 86_400),
            _ => usual,
        };
        level * (usage * (1.0 + share * noise) + 0.01 * r.unit()).max(0.0)
    };
    let values = (0..weeks * WEEK_S / step_s).map(value).collect();
    Weeks { step_s, values, east_s, wrong_s: wrong_s.map(|at| at - east_s) }
}
