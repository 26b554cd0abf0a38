//! The newest versions that a room remembers, for members that are behind and clients that come back.

use std::collections::VecDeque;

use super::update::Update;

/// The newest versions of one location: ascending, without a gap. The last one is the head.
#[derive(Debug, Default)]
pub struct Recent {
    updates: VecDeque<Update>,
    /// The length of all frames in `updates`.
    bytes: usize,
}

impl Recent {
    /// Returns the newest version.
    pub fn head(&self) -> Option<&Update> {
        self.updates.back()
    }

    /// Returns the oldest version that is kept.
    pub fn first_version(&self) -> Option<u64> {
        self.updates.front().map(|first| first.version)
    }

    /// Adds the version that follows the head.
    pub fn push(&mut self, update: Update) {
        self.bytes += update.bytes();
        self.updates.push_back(update);
    }

    /// Adds older versions of `run`, which is ascending without a gap, if it reaches up to those that are kept.
    pub fn prepend(&mut self, mut run: Vec<Update>) {
        let first = self.first_version().unwrap_or(0);
        run.truncate(run.partition_point(|update| update.version < first));
        if run.last().is_some_and(|last| last.version + 1 == first) {
            for update in run.into_iter().rev() {
                self.bytes += update.bytes();
                self.updates.push_front(update);
            }
        }
    }

    /// Drops all versions.
    pub fn clear(&mut self) {
        self.updates.clear();
        self.bytes = 0;
    }

    /// Returns the length of all frames after a version.
    pub fn bytes_after(&self, version: u64) -> usize {
        self.updates.iter().rev().take_while(|update| update.version > version).map(Update::bytes).sum()
    }

    /// Checks whether more is kept than this.
    pub fn exceeds(&self, updates: usize, bytes: usize) -> bool {
        self.updates.len() > updates || self.bytes > bytes
    }

    /// Drops the oldest versions until no more than this is kept. The head always stays.
    pub fn trim(&mut self, updates: usize, bytes: usize) {
        while self.updates.len() > 1 && self.exceeds(updates, bytes) {
            self.bytes -= self.updates.pop_front().map_or(0, |update| update.bytes());
        }
        self.updates.shrink_to(2 * self.updates.len());
    }

    /// Returns all versions as one slice. They are moved in memory where they are not in one piece.
    pub fn as_slice(&mut self) -> &[Update] {
        self.updates.make_contiguous()
    }
}
