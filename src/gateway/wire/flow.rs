//! How much of what one socket was sent is proved to have been read. Decisions only.
//!
//! The kernel and a proxy take whatever comes, so only the client's own answer counts: over WebSocket the pong that
//! repeats the payload of our ping (RFC 6455 §5.5.3), which nobody can know who has not read up to it; over
//! long-polling the next poll, once the answer to the last one has left the process.

use std::time::{Duration, Instant};

use super::frames::NONCE_BYTES;

/// A socket may have so many bytes unread, and leave a question after them unanswered for so long.
const WINDOW: u64 = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(3);
/// A question is asked after so many bytes, or so much time with fewer: whoever reads it wakes up and answers, and
/// each answer costs as much as a delivery. Together with [`PATIENCE`] it is how long what was sent may be unread.
const ASK_EVERY_BYTES: u64 = WINDOW / 4;
const ASK_EVERY: Duration = Duration::from_secs(2);

/// The bytes one socket was sent, and those it has read.
#[derive(Debug, Default)]
pub struct Flow {
    /// All that were ever sent.
    sent: u64,
    /// All that were proved to be read.
    read: u64,
    asked: Option<Question>,
    last_asked: Option<Instant>,
}

/// A question that is not answered yet.
#[derive(Debug)]
struct Question {
    at: Instant,
    /// What its answer proves to be read.
    mark: u64,
    /// What its answer has to repeat.
    nonce: [u8; NONCE_BYTES],
}

impl Flow {
    /// May more be sent?
    pub fn is_open(&self, now: Instant) -> bool {
        self.unread() < WINDOW && self.asked.as_ref().is_none_or(|asked| now - asked.at < PATIENCE)
    }

    /// May what was missed be sent? The other half of the window is for what is new.
    pub fn has_room(&self, now: Instant) -> bool {
        self.unread() < WINDOW / 2 && self.is_open(now)
    }

    /// A mark behind all that was sent, for [`Flow::has_read_to`].
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The number of bytes that are not proved to be read.
    pub fn unread(&self) -> u64 {
        self.sent - self.read
    }

    /// Is everything before this mark proved to be read?
    pub fn has_read_to(&self, mark: u64) -> bool {
        self.read >= mark
    }

    /// Has a question been unanswered for so long?
    pub fn is_unanswered_for(&self, time: Duration) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.at.elapsed() > time)
    }

    /// Counts bytes that are on their way.
    pub fn record_sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Is it time to ask? Everything that was sent must be before the question on the wire.
    pub fn is_due(&self, now: Instant) -> bool {
        self.asked.is_none()
            && self.unread() > 0
            && (self.unread() >= ASK_EVERY_BYTES
                || self.last_asked.is_none_or(|last| now - last >= ASK_EVERY))
    }

    /// Makes the next question due at once.
    pub fn hurry(&mut self) {
        self.last_asked = None;
    }

    /// Asks: returns what the answer has to repeat.
    pub fn ask(&mut self, now: Instant) -> [u8; NONCE_BYTES] {
        let nonce = rand::random();
        self.asked = Some(Question { at: now, mark: self.sent, nonce });
        self.last_asked = Some(now);
        nonce
    }

    /// Takes an answer. `false`: it repeats nothing that was asked.
    pub fn confirm(&mut self, payload: &[u8]) -> bool {
        let Some(asked) = self.asked.take_if(|asked| asked.nonce == payload) else { return false };
        self.read = self.read.max(asked.mark);
        true
    }

    /// Whoever polls is expected to poll again by themselves.
    pub fn expect_poll(&mut self, now: Instant) {
        let (mark, nonce) = (self.read, rand::random());
        self.asked.get_or_insert(Question { at: now, mark, nonce });
    }

    /// A poll has come: what was sent up to this mark is read.
    pub fn record_poll(&mut self, mark: u64, now: Instant) {
        self.read = self.read.max(mark.min(self.sent));
        self.asked = None;
        if self.unread() > 0 {
            self.expect_poll(now);
        }
    }

    /// Another way to confirm begins: what was asked before is not answered.
    pub fn forget_question(&mut self) {
        self.asked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_repeats_the_question_confirms_and_only_what_was_sent_before_it() {
        let (mut flow, now) = (Flow::default(), Instant::now());
        flow.record_sent(1_000);
        assert!(flow.is_due(now));
        let nonce = flow.ask(now);
        flow.record_sent(500);
        for forged in [&[][..], &[0; NONCE_BYTES], &nonce[..7]] {
            assert!(!flow.confirm(forged));
            assert_eq!(flow.unread(), 1_500);
        }
        assert!(flow.confirm(&nonce));
        assert_eq!(flow.unread(), 500, "what came after the question is not confirmed");
        assert!(flow.has_read_to(1_000) && !flow.has_read_to(1_001));
        assert!(!flow.confirm(&nonce), "an answer counts once");
    }

    #[test]
    fn whoever_confirms_nothing_is_sent_a_window_and_for_so_long() {
        let (mut flow, now) = (Flow::default(), Instant::now());
        flow.record_sent(WINDOW as usize - 1);
        assert!(flow.is_open(now) && !flow.has_room(now));
        flow.record_sent(1);
        assert!(!flow.is_open(now));
        let mut flow = Flow::default();
        flow.record_sent(1);
        flow.ask(now);
        assert!(flow.is_open(now) && !flow.is_open(now + PATIENCE));
    }

    #[test]
    fn a_poll_confirms_what_the_last_answer_held() {
        let (mut flow, now) = (Flow::default(), Instant::now());
        flow.record_sent(100);
        flow.expect_poll(now);
        flow.record_poll(60, now);
        assert_eq!(flow.unread(), 40);
        assert!(!flow.is_open(now + PATIENCE), "there is more to be fetched");
        flow.record_poll(200, now);
        assert_eq!(flow.unread(), 0, "never more than was sent");
        assert!(flow.is_open(now + PATIENCE));
    }
}
