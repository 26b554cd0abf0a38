//! Mending a room after a panic over it: it is read again, or given up; the other rooms go on.
//!
//! A file of its own, because none of this happens as long as there is no fault. Panics are caught where the work is
//! done (`turns.rs`, `sweep.rs`, `gateway/event_loop.rs`, `gateway/announcer.rs`).

use tracing::{debug, warn};

use super::registry::{Member, Rooms};
use crate::{domain::id::LocationId, gateway::wire::end_reason::EndReason};

/// A room for which the handling of an event panicked.
#[derive(Debug)]
pub struct Broken {
    pub id: LocationId,
    /// The version that it may not have been told of.
    pub version: Option<u64>,
}

impl Rooms {
    /// Removes a room that cannot be brought up to date. Its members are to connect again, and will find another room
    /// of that name.
    pub(super) fn give_up(&self, id: LocationId) {
        let Some(room) = self.rooms.lock().remove(&id) else { return };
        let members: Vec<_> = room.state.lock().close().collect();
        warn!(room = %id, members = members.len(), "a room was given up after a panic; its members have to reconnect");
        for (Member { subscriber, .. }, _) in members {
            subscriber.session.leave(id);
            subscriber.handle.outbox.abort(EndReason::StalledInReplay);
        }
    }

    /// Mends a room after a panic over an event for it: reads again who may be in it, and the versions that it may have
    /// missed.
    pub async fn heal(&self, Broken { id, version }: Broken) {
        let Some(room) = self.room(id) else { return };
        // If the read below fails, the next sweep reads rights again.
        room.rights.lock().distrust();
        if let Some(version) = version {
            room.state.lock().record_committed(version);
        }
        drop(room);
        self.behind.lock().insert(id);
        if let Err(error) = self.refresh_rights(id).await {
            debug!(room = %id, %error, "rights could not be read for a room");
        }
        self.backfill(id).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        path::PathBuf,
        process,
        sync::Arc,
        time::{Duration, Instant},
    };

    use tokio::time::{sleep, timeout};

    use super::{super::registry::Entrant, *};
    use crate::{
        config::Config,
        domain::{
            access::Payer,
            event::Event,
            id::UserId,
            location::{NewLocation, Update},
        },
        gateway::Gateway,
        service::Service,
        storage::Store,
    };

    /// Starts a service on a database of its own, and returns its configuration.
    async fn service(name: &str) -> (Arc<Service>, tokio::sync::mpsc::Receiver<Event>, Config, PathBuf) {
        let folder = env::temp_dir().join(format!("georoom_{name}_{}", process::id()));
        let url = format!("sqlite://{}/georoom.db?mode=rwc", folder.display());
        let config = Config::from_variables(|name| (name == "DATABASE_URL").then(|| url.clone()));
        let config = config.unwrap();
        let store = Store::connect(&url).await.unwrap();
        store.migrate().await.unwrap();
        let (service, events) =
            Service::start(store, config.history, config.notifications, None, &config.limits);
        (service, events, config, folder)
    }

    fn panics_of(service: &Service, task: &str) -> String {
        let name = format!("georoom_task_panics_total{{task=\"{task}\"}} ");
        let text = service.metrics.text();
        text.lines().find_map(|line| line.strip_prefix(&name)).expect("the counter").to_owned()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_event_that_panics_is_counted_and_the_next_is_forwarded() {
        let (service, events, config, folder) = service("bomb").await;
        let (mut gateway, _) = Gateway::start(
            service.clone(),
            events,
            config.heartbeat,
            &config.auth.origins,
            config.auth.trusted_proxies,
            &config.limits,
        );
        service.publish(Event::Panic).await;
        service.wait_until_settled().await;
        // To print a panic with its backtrace may take longer than that on a busy machine.
        let counted = async {
            while panics_of(&service, "forwarder") != "1" {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(30), counted).await.expect("the panic is counted");
        assert_eq!(service.tasks.failure(), None);
        service.tasks.stop();
        gateway.flush().await;
        assert_eq!(service.tasks.failure(), None, "its end is no failure then");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_room_is_healed_of_what_it_did_not_hear() {
        let (service, _events, _, folder) = service("healed").await;
        let body = br#"{"geometry":{"type":"Point","coordinates":[1,2]}}"#;
        let payer = Payer::User(UserId::DEFAULT);
        let id =
            service.create_location(NewLocation::from_body(body, None).unwrap(), payer).await.unwrap().id;
        let rooms = Rooms::new(service.clone(), Arc::default());
        let entrant = Entrant::new(&rooms, id, None);
        rooms.read_missing(&entrant.room, None).await.unwrap();
        assert_eq!(entrant.room.state.lock().head(), Some(1));
        for _ in 0..2 {
            service
                .update_location(Update::from_body(body, Some(id), None).unwrap(), payer, Instant::now())
                .await
                .unwrap();
        }
        rooms.heal(Broken { id, version: Some(3) }).await;
        assert_eq!(entrant.room.state.lock().head(), Some(3));
        // A room that cannot be healed is given up, and the next one of that name begins anew.
        rooms.give_up(id);
        assert_eq!(rooms.rooms.lock().len(), 0);
        drop(entrant);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
