//! The channel of events from whoever changes something to the gateway, and waiting until the gateway has handled them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{domain::event::Event, metrics::Metrics, supervise::watch_channel};

/// Events on their way to the gateway. Full: the writer waits, and with it new commits.
const MAX_EVENTS: usize = 1_024;
/// The longest time for which an answer waits for the gateway to handle the events before it.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends events to the gateway.
#[derive(Debug)]
pub struct EventSender {
    channel: mpsc::Sender<Event>,
    /// The number of the next [`Event::Mark`].
    next_mark: AtomicU64,
    /// The highest mark that the gateway has reported.
    settled: watch::Sender<u64>,
}

impl EventSender {
    /// Creates the channel; also returns its other end.
    pub fn new(metrics: &Metrics) -> (Self, mpsc::Receiver<Event>) {
        let (channel, events) = mpsc::channel(MAX_EVENTS);
        watch_channel(metrics, "forwarder", &channel);
        (Self { channel, next_mark: AtomicU64::new(1), settled: watch::Sender::default() }, events)
    }

    /// The channel, for the writer.
    pub fn channel(&self) -> &mpsc::Sender<Event> {
        &self.channel
    }

    /// Sends an event. At the end, when all sockets are disconnected, it is dropped.
    pub async fn send(&self, event: Event) {
        let _ = self.channel.send(event).await;
    }

    /// Waits until the gateway has handled every event sent so far, at most `SETTLE_TIMEOUT`. Whoever is then told that
    /// a location or a right has ended finds nobody in the room who should not be there.
    pub async fn wait_until_settled(&self) {
        // Numbered after the caller's own events were sent, so a mark comes after those of all lower numbers.
        let mark = self.next_mark.fetch_add(1, Ordering::AcqRel);
        let mut settled = self.settled.subscribe();
        let answer = async {
            // The channel is closed at the end, when all sockets are disconnected.
            if self.channel.send(Event::Mark(mark)).await.is_ok() {
                let _ = settled.wait_for(|settled| *settled >= mark).await;
            }
        };
        let _ = timeout(SETTLE_TIMEOUT, answer).await;
    }

    /// Records that the gateway has handled every event before a mark.
    pub fn record_settled(&self, mark: u64) {
        self.settled.send_if_modified(|settled| {
            let is_newer = mark > *settled;
            *settled = mark.max(*settled);
            is_newer
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_waits_goes_on_once_a_mark_sent_later_is_reported() {
        let (sender, mut events) = EventSender::new(&Metrics::default());
        let mut first = Box::pin(sender.wait_until_settled());
        assert!((&mut first).now_or_never().is_none());
        let mut second = Box::pin(sender.wait_until_settled());
        assert!((&mut second).now_or_never().is_none());
        let marks = [events.recv().await, events.recv().await];
        let [Some(Event::Mark(one)), Some(Event::Mark(two))] = marks else { panic!("{marks:?}") };
        sender.record_settled(one);
        assert!((&mut second).now_or_never().is_none());
        sender.record_settled(two);
        // Reports may come late.
        sender.record_settled(one);
        assert!(first.now_or_never().is_some() && second.now_or_never().is_some());
        drop(events);
        assert!(sender.wait_until_settled().now_or_never().is_some(), "nobody handles events any more");
    }
}
