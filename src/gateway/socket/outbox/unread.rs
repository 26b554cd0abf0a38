//! The topics of which a socket may not have read everything that it was sent.
//!
//! When a socket loses the right to see a topic, this tells whether it must prove that it has read what was sent.

use super::queued::Topic;

/// Topics, each once, with a mark behind the last event about it. Topics that were read go whenever one is recorded, so
/// the window of the connection's flow bounds the list.
#[derive(Default)]
pub struct UnreadTopics(Vec<(Topic, u64)>);

impl UnreadTopics {
    /// Records that an event about a topic was sent, with a mark behind it.
    pub fn record(&mut self, topic: Topic, mark: u64, has_read_to: impl Fn(u64) -> bool) {
        let earlier = self.0.iter().find(|(known, _)| *known == topic).map_or(0, |(_, mark)| *mark);
        self.0.retain(|(known, mark)| *known != topic && !has_read_to(*mark));
        self.0.push((topic, mark.max(earlier)));
    }

    /// Returns a mark behind the last event about any of some topics.
    pub fn last_mark(&self, is_wanted: impl Fn(Topic) -> bool) -> Option<u64> {
        self.0.iter().filter(|(topic, _)| is_wanted(*topic)).map(|(_, mark)| *mark).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::LocationId;

    #[test]
    fn the_last_mark_of_a_topic_stays_until_it_is_read() {
        let room = |id| Topic::Room(LocationId::new(id).unwrap());
        let mut unread = UnreadTopics::default();
        unread.record(room(1), 20, |_| false);
        unread.record(room(1), 10, |_| false);
        unread.record(Topic::Users, 30, |_| false);
        assert_eq!(unread.last_mark(|topic| topic == room(1)), Some(20), "the later mark");
        assert_eq!(unread.last_mark(|_| true), Some(30));
        assert_eq!(unread.last_mark(|topic| topic == room(2)), None);
        unread.record(room(2), 40, |mark| mark <= 30);
        assert_eq!(unread.0.len(), 1, "topics that were read go");
    }
}
