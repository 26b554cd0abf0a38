//! The order in which versions come, and which are missing.

use super::Tally;

/// The versions of a location that have come to one subscriber, or that were answered.
#[derive(Default)]
pub struct Order {
    /// The highest version that has come.
    pub last: u64,
    /// Versions below that have not come.
    missing: Vec<u64>,
}

impl Order {
    /// Begins after a version.
    pub fn after(last: u64) -> Self {
        Self { last, missing: Vec::new() }
    }

    /// Records a version. Returns whether it had not come before.
    pub fn record(&mut self, version: u64, tally: &mut Tally) -> bool {
        if version > self.last {
            self.missing.extend(self.last + 1..version);
            self.last = version;
        } else if let Some(at) = self.missing.iter().position(|missing| *missing == version) {
            self.missing.swap_remove(at);
            tally.swapped += 1;
        } else {
            tally.repeated += 1;
            return false;
        }
        true
    }

    /// Gives up the versions up to `head` that have not come, and returns their number.
    pub fn give_up(&mut self, head: u64) -> u64 {
        let lost = self.missing.len() as u64 + head.saturating_sub(self.last);
        self.missing.clear();
        self.last = self.last.max(head);
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_are_missing_repeated_or_late_are_counted() {
        let (mut order, mut tally) = (Order::after(1), Tally::default());
        // 3 comes before 2, 4 twice, 5 and 8 do not come.
        let first = [3, 2, 4, 4, 6, 7].map(|version| order.record(version, &mut tally));
        assert_eq!(first, [true, true, true, false, true, true]);
        tally.lost += order.give_up(8);
        assert_eq!(tally, Tally { lost: 2, repeated: 1, swapped: 1, failed: 0 });
        // A version that was given up is not lost again.
        assert!(order.record(9, &mut tally));
        assert_eq!(order.give_up(9), 0);
    }
}
