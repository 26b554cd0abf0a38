//! A committed version, made into the WebSocket frame that all members of a room are sent, and the newest ones that a
//! room remembers.
//!
//! The frame is made once per version. A connection whose kernel buffer did not take all of it shares the rest.

use std::{collections::VecDeque, ops::Range, sync::OnceLock};

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::gateway::wire::frames;

#[derive(Debug)]
pub struct Update {
    pub version: u64,
    /// A WebSocket frame with the event `chat` and its body `{userId, message, roomName, version}`.
    pub frame: Bytes,
    body_range: Range<usize>,
    message_range: Range<usize>,
    /// The body alone, made when a transport other than our own frames needs it.
    body: OnceLock<Box<RawValue>>,
}

impl Update {
    /// Creates an update from the JSON text of its body in three parts: before the message, the message, after it.
    pub fn new(version: u64, parts: [&str; 3]) -> Self {
        let (event, end) = (r#"42["chat","#, "]");
        let [before, message, _] = parts.map(str::len);
        let length = event.len() + parts.map(str::len).iter().sum::<usize>() + end.len();
        let mut frame = frames::text_header(length);
        frame.reserve_exact(length);
        let body_range = frame.len() + event.len()..frame.len() + length - end.len();
        let message_start = body_range.start + before;
        for part in [event].into_iter().chain(parts).chain([end]) {
            frame.extend_from_slice(part.as_bytes());
        }
        Self {
            version,
            frame: frame.into(),
            body_range,
            message_range: message_start..message_start + message,
            body: OnceLock::new(),
        }
    }

    pub fn body(&self) -> &RawValue {
        self.body.get_or_init(|| {
            serde_json::from_slice(&self.frame[self.body_range.clone()]).expect("made of JSON")
        })
    }

    /// Returns the message of the body, which is the stored Feature.
    pub fn message(&self) -> &str {
        str::from_utf8(&self.frame[self.message_range.clone()]).expect("made of text")
    }

    pub fn bytes(&self) -> usize {
        self.frame.len()
    }
}

/// The newest versions of one location, for members that are behind and clients that come back: ascending, without a
/// gap. The last one is the head.
#[derive(Debug, Default)]
pub struct Recent {
    updates: VecDeque<Update>,
    /// The length of all frames in `updates`.
    bytes: usize,
}

impl Recent {
    pub fn head(&self) -> Option<&Update> {
        self.updates.back()
    }

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

    pub fn clear(&mut self) {
        self.updates.clear();
        self.bytes = 0;
    }

    pub fn bytes_after(&self, version: u64) -> usize {
        self.updates.iter().rev().take_while(|update| update.version > version).map(Update::bytes).sum()
    }

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
