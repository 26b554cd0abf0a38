//! The flow control of one connection: how much of what it was sent is proved to be read, and whether it may be sent
//! more.
//!
//! The kernel and a proxy accept bytes that the client never reads, so only the client's own answer counts. Over
//! WebSocket that is a pong that repeats the random payload of our ping (RFC 6455 §5.5.3): only a client that has read
//! up to the ping can know it. Over long-polling it is the next poll, once the last answer has left the process. This
//! file only decides; `connection/` sends the pings.

use std::time::{Duration, Instant};

use super::frames::NONCE_BYTES;

/// Unread bytes beyond which a connection is sent nothing more.
const WINDOW: u64 = 64 * 1024;
/// Time without an answer to a question after which a connection is sent nothing more.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Unread bytes after which the client is asked for confirmation. It is not asked after each event, because an answer
/// wakes the client and costs as much as a delivery.
const ASK_BYTES: u64 = WINDOW / 4;
/// Time after which the client is asked for confirmation of fewer bytes. Together with [`ANSWER_TIMEOUT`] it bounds how
/// long something may stay unread.
const ASK_INTERVAL: Duration = Duration::from_secs(2);

/// Counts the bytes that one connection was sent, and those that its client has confirmed.
#[derive(Debug, Default)]
pub struct Flow {
    /// Bytes that were sent since the connection began.
    sent: u64,
    /// Bytes that are proved to be read since the connection began.
    read: u64,
    question: Option<Question>,
    last_asked: Option<Instant>,
}

/// A request for confirmation that is not answered yet.
#[derive(Debug)]
struct Question {
    asked_at: Instant,
    /// The value of [`Flow::sent`] that an answer confirms.
    mark: u64,
    /// The payload that an answer has to repeat.
    nonce: [u8; NONCE_BYTES],
}

impl Flow {
    /// Returns whether the connection may be sent more.
    pub fn is_open(&self, now: Instant) -> bool {
        self.unread() < WINDOW
            && self.question.as_ref().is_none_or(|asked| now - asked.asked_at < ANSWER_TIMEOUT)
    }

    /// Returns whether the connection may be sent versions that it has missed. They may fill half of the window; the
    /// other half is for new versions.
    pub fn has_room(&self, now: Instant) -> bool {
        self.unread() < WINDOW / 2 && self.is_open(now)
    }

    /// Returns the number of bytes sent so far, which is a mark behind all of them for [`Flow::has_read_to`].
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Returns the number of bytes that are not proved to be read.
    pub fn unread(&self) -> u64 {
        self.sent - self.read
    }

    /// Returns whether everything before this mark is proved to be read.
    pub fn has_read_to(&self, mark: u64) -> bool {
        self.read >= mark
    }

    /// Returns whether a question has been unanswered for longer than this.
    pub fn is_unanswered_for(&self, time: Duration) -> bool {
        self.question.as_ref().is_some_and(|asked| asked.asked_at.elapsed() > time)
    }

    /// Counts bytes that are being sent.
    pub fn record_sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Returns whether it is time to ask for confirmation. The ping must go out behind all bytes that were counted.
    pub fn is_question_due(&self, now: Instant) -> bool {
        self.question.is_none()
            && self.unread() > 0
            && (self.unread() >= ASK_BYTES || self.last_asked.is_none_or(|last| now - last >= ASK_INTERVAL))
    }

    /// Makes the next question due at once.
    pub fn expedite_question(&mut self) {
        self.last_asked = None;
    }

    /// Begins a question, and returns the payload that its answer has to repeat.
    pub fn ask(&mut self, now: Instant) -> [u8; NONCE_BYTES] {
        let nonce = rand::random();
        self.question = Some(Question { asked_at: now, mark: self.sent, nonce });
        self.last_asked = Some(now);
        nonce
    }

    /// Takes the payload of a pong. Returns `false` if it does not answer the current question; it then confirms
    /// nothing.
    pub fn confirm(&mut self, payload: &[u8]) -> bool {
        let Some(asked) = self.question.take_if(|asked| asked.nonce == payload) else { return false };
        self.read = self.read.max(asked.mark);
        true
    }

    /// Begins waiting for the next poll, which is the answer of a client that polls.
    pub fn expect_poll(&mut self, now: Instant) {
        let (mark, nonce) = (self.read, rand::random());
        self.question.get_or_insert(Question { asked_at: now, mark, nonce });
    }

    /// Takes a poll, which confirms everything before this mark.
    pub fn record_poll(&mut self, mark: u64, now: Instant) {
        self.read = self.read.max(mark.min(self.sent));
        self.question = None;
        if self.unread() > 0 {
            self.expect_poll(now);
        }
    }

    /// Drops the current question, because the client changes to a transport on which it cannot answer it.
    pub fn drop_question(&mut self) {
        self.question = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pong_confirms_only_by_the_nonce_and_only_bytes_sent_before_the_ping() {
        let (mut flow, now) = (Flow::default(), Instant::now());
        flow.record_sent(1_000);
        assert!(flow.is_question_due(now));
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
    fn a_client_that_confirms_nothing_is_sent_one_window_and_for_a_bounded_time() {
        let (mut flow, now) = (Flow::default(), Instant::now());
        flow.record_sent(WINDOW as usize - 1);
        assert!(flow.is_open(now) && !flow.has_room(now));
        flow.record_sent(1);
        assert!(!flow.is_open(now));
        let mut flow = Flow::default();
        flow.record_sent(1);
        flow.ask(now);
        assert!(flow.is_open(now) && !flow.is_open(now + ANSWER_TIMEOUT));
    }

    #[test]
    fn a_poll_confirms_the_packets_of_the_last_answer() {
        let (mut flow, now) = (Flow::default(), Instant::now());
        flow.record_sent(100);
        flow.expect_poll(now);
        flow.record_poll(60, now);
        assert_eq!(flow.unread(), 40);
        assert!(!flow.is_open(now + ANSWER_TIMEOUT), "there is more to be fetched");
        flow.record_poll(200, now);
        assert_eq!(flow.unread(), 0, "never more than was sent");
        assert!(flow.is_open(now + ANSWER_TIMEOUT));
    }
}
