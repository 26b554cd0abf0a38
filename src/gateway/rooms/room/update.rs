//! A committed version, made into the WebSocket frame that all members of a room are sent.
//!
//! The frame is made once per version. A connection whose kernel buffer did not take all of it shares the rest.

use std::{ops::Range, sync::OnceLock};

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::gateway::wire::frames;

/// A committed version, as a room sends it.
#[derive(Debug)]
pub struct Update {
    pub version: u64,
    /// A WebSocket frame with the event `chat` and its body `{userId, message, roomName, version}`.
    frame: Bytes,
    /// The position of the body in the frame.
    body_range: Range<usize>,
    /// The position of the body's `message` in the frame.
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

    /// Returns the finished WebSocket frame.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// Returns the body of the event.
    pub fn body(&self) -> &RawValue {
        self.body.get_or_init(|| {
            serde_json::from_slice(&self.frame[self.body_range.clone()]).expect("made of JSON")
        })
    }

    /// Returns the message of the body, which is the stored Feature.
    pub fn message(&self) -> &str {
        str::from_utf8(&self.frame[self.message_range.clone()]).expect("made of text")
    }

    /// Returns the length of the frame.
    pub fn bytes(&self) -> usize {
        self.frame.len()
    }
}
