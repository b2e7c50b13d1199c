//! Courses of the last values that were seen, as a few boxes (adaptive resonance: each box has grown around courses alike,
//! and no farther than it must; Carpenter, Grossberg & Rosen, "Fuzzy ART", 1991).

use serde::{Deserialize, Serialize};

use super::half::Half;

/// A course is so many points, each the mean of so many values.
const POINTS: usize = 8;
const STRIDE: u8 = 6;
const BOXES: usize = 3;
/// Values of a course.
pub const COURSE: u16 = POINTS as u16 * STRIDE as u16;

/// Lowest and highest value of each point.
type Bounds = [[Half; 2]; POINTS];

#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Patterns {
    /// Of the point that is being averaged.
    sum: f32,
    values: u8,
    points: u8,
    course: [Half; POINTS],
    boxes: [Bounds; BOXES],
    used: u8,
    novelty: f32,
}

impl Patterns {
    /// How far the course that ended last was from all before it, in units of the series.
    pub fn push(&mut self, x: f32) -> f32 {
        self.sum += x;
        self.values += 1;
        if self.values == STRIDE {
            self.course.copy_within(1.., 0);
            self.course[POINTS - 1] = Half::of(self.sum / f32::from(STRIDE));
            (self.sum, self.values) = (0.0, 0);
            self.points = (self.points + 1).min(POINTS as u8);
            if usize::from(self.points) == POINTS {
                self.novelty = self.learn();
            }
        }
        self.novelty
    }

    fn learn(&mut self) -> f32 {
        let used = usize::from(self.used);
        let new: Bounds = self.course.map(|x| [x, x]);
        let nearest =
            (0..used).map(|i| (i, distance(&self.boxes[i], &self.course))).min_by(|a, b| a.1.total_cmp(&b.1));
        if used < BOXES {
            self.boxes[used] = new;
            self.used += 1;
            return nearest.map_or(0.0, |(_, distance)| distance);
        }
        let Some((near, novelty)) = nearest.filter(|(_, distance)| *distance > 0.0) else { return 0.0 };
        self.make_room(near, new);
        novelty
    }

    /// Unites what grows least: the new course with its nearest box, or two other boxes, so that it gets one of its own.
    fn make_room(&mut self, near: usize, new: Bounds) {
        let mut least = (size(&self.boxes[near], &new), None);
        for i in 0..BOXES {
            for j in i + 1..BOXES {
                let grown = size(&self.boxes[i], &self.boxes[j]);
                if grown < least.0 {
                    least = (grown, Some((i, j)));
                }
            }
        }
        match least.1 {
            None => self.boxes[near] = united(&self.boxes[near], &new),
            Some((i, j)) => {
                self.boxes[i] = united(&self.boxes[i], &self.boxes[j]);
                self.boxes[j] = new;
            }
        }
    }
}

fn distance(bounds: &Bounds, course: &[Half; POINTS]) -> f32 {
    let outside =
        |([low, high], x): (&[Half; 2], &Half)| (low.get() - x.get()).max(x.get() - high.get()).max(0.0);
    bounds.iter().zip(course).map(outside).sum()
}

fn united(a: &Bounds, b: &Bounds) -> Bounds {
    std::array::from_fn(|i| [a[i][0].min(b[i][0]), a[i][1].max(b[i][1])])
}

fn size(a: &Bounds, b: &Bounds) -> f32 {
    united(a, b).iter().map(|[low, high]| high.get() - low.get()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_course_that_was_seen_is_not_new_and_another_one_is() {
        let mut patterns = Patterns::default();
        let wave = |row: u32| (f64::from(row % 48) / 48.0 * std::f64::consts::TAU).sin() as f32;
        (0..4800).for_each(|row| {
            patterns.push(wave(row));
        });
        let known = (4800..4848).map(|row| patterns.push(wave(row))).fold(0.0, f32::max);
        let new = (0..48).map(|_| patterns.push(0.7)).fold(0.0, f32::max);
        assert!(new > 0.5 && known < 0.2 * new, "{known} {new}");
    }
}
