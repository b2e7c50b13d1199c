//! Series of our own making with one known anomaly each, or none: what a score may not fall below.

/// Small, deterministic (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn normal(&mut self) -> f64 {
        let (u, v) = (self.unit().max(1e-300), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

/// What happens to a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Nothing,
    Spike,
    Dip,
    /// Three values, half as far.
    SmallSpike,
    /// Zero for twelve values.
    Dropout,
    Level,
    SmallLevel,
    SwingsMore,
    Flat,
    Drift,
    /// Spikes that were rare come ten times as often.
    Bursts,
    /// A daily wave is higher, missing for a day, late by a quarter of a day, or three times as fast.
    WaveHigher,
    WaveMissing,
    WaveLate,
    WaveFaster,
}

impl Fault {
    pub const ALL: [Self; 15] = [
        Self::Nothing,
        Self::Spike,
        Self::Dip,
        Self::SmallSpike,
        Self::Dropout,
        Self::Level,
        Self::SmallLevel,
        Self::SwingsMore,
        Self::Flat,
        Self::Drift,
        Self::Bursts,
        Self::WaveHigher,
        Self::WaveMissing,
        Self::WaveLate,
        Self::WaveFaster,
    ];

    fn wave(self) -> bool {
        matches!(self, Self::WaveHigher | Self::WaveMissing | Self::WaveLate | Self::WaveFaster)
    }
}

pub struct Made {
    /// Seconds between values.
    pub step_s: i64,
    pub values: Vec<f64>,
    /// The first value of the anomaly.
    pub onset: Option<usize>,
}

const VALUES: usize = 3000;

/// Noise of three kinds (independent, heavy-tailed, autocorrelated) with or without a daily wave, and the fault.
pub fn make(fault: Fault, seed: u64) -> Made {
    let mut r = Random(seed.wrapping_mul(0x1234_5677) ^ (fault as u64).wrapping_mul(0x9e37_79b9));
    let period = [96.0, 144.0, 288.0][(seed % 3) as usize];
    let onset = 1200 + (r.unit() * 1400.0) as usize;
    let (base, sd, height) = (50.0 + 50.0 * r.unit(), 0.5 + 2.0 * r.unit(), 20.0 + 10.0 * r.unit());
    let (heavy, memory) = (seed % 3 == 1, [0.0, 0.6, 0.9][(seed / 3 % 3) as usize]);
    let wave = fault.wave() || (fault == Fault::Nothing && seed.is_multiple_of(2));
    let day = |t: f64| {
        let turn = t / period * std::f64::consts::TAU;
        turn.sin() + 0.4 * (2.0 * turn).cos()
    };
    let mut noise = 0.0;
    let mut value = |t: usize| {
        let shock = if heavy { r.normal() * (0.3 * r.normal()).exp() } else { r.normal() };
        noise = memory * noise + (1.0_f64 - memory * memory).sqrt() * shock;
        let (at, since) = (t as f64, t.saturating_sub(onset));
        let within = |values: usize| t >= onset && since < values;
        let calm = base + sd * noise;
        let usual = calm + if wave { height * day(at) } else { 0.0 };
        match fault {
            Fault::Spike if t == onset => usual + 12.0 * sd,
            Fault::Dip if t == onset => usual - 12.0 * sd,
            Fault::SmallSpike if within(3) => usual + 6.0 * sd,
            Fault::Dropout if within(12) => 0.0,
            Fault::Level if t >= onset => usual + 6.0 * sd,
            Fault::SmallLevel if t >= onset => usual + 2.5 * sd,
            Fault::SwingsMore if t >= onset => usual + 3.0 * sd * r.normal(),
            Fault::Flat if within(200) => base,
            Fault::Drift if t >= onset => usual + 8.0 * sd * (since as f64 / 200.0).min(1.0),
            Fault::Bursts if r.unit() < if within(300) { 0.2 } else { 0.02 } => usual + 20.0 * sd,
            Fault::WaveHigher if t >= onset => usual + 0.6 * height,
            Fault::WaveMissing if within(period as usize) => calm,
            Fault::WaveLate if t >= onset => calm + height * day(at + period / 4.0),
            Fault::WaveFaster if t >= onset => calm + height * day(3.0 * at),
            _ => usual,
        }
    };
    let values = (0..VALUES).map(&mut value).collect();
    Made { step_s: (86_400.0 / period) as i64, values, onset: (fault != Fault::Nothing).then_some(onset) }
}
