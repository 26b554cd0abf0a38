//! What becomes of a room after a panic over it: it is read anew, or given up; the others go on.
//!
//! A file of its own because none of this happens as long as there is no fault. Where panics are caught is said where
//! the work is done (`gateway/event_loop.rs`, `gateway/rooms`, `gateway/people/announcer.rs`, `gateway/client.rs`).

use tracing::{debug, warn};

use super::{Member, Rooms};
use crate::{
    domain::id::LocationId,
    gateway::wire::end_reason::EndReason,
    supervise::{Supervisor, Task},
};

/// The tasks that work on many rooms.
pub struct Tasks {
    pub forwarder: Task,
    pub sweep: Task,
    pub herald: Task,
    /// Reads for one room each.
    pub reads: Task,
    /// Events of one socket each.
    pub events: Task,
}

/// A room for which the handling of an event panicked.
#[derive(Debug)]
pub struct Broken {
    pub id: LocationId,
    /// The version that it may not have heard of.
    pub version: Option<u64>,
}

impl Tasks {
    /// Of one gateway.
    pub fn of(tasks: &Supervisor) -> Self {
        Self {
            forwarder: tasks.task("forwarder"),
            sweep: tasks.task("sweep"),
            herald: tasks.task("herald"),
            reads: tasks.task("room_reads"),
            events: tasks.task("socket_events"),
        }
    }
}

impl Rooms {
    /// A room cannot be brought up to date: its members are to connect again, and find another room of that name.
    pub(super) fn give_up(&self, id: LocationId) {
        let Some(shared) = self.rooms.lock().remove(&id) else { return };
        let members: Vec<_> = shared.room.lock().close().collect();
        warn!(room = %id, members = members.len(), "a room is given up after a panic: its members are to connect again");
        for (Member { outbox, session, .. }, _) in members {
            session.leave(id);
            outbox.abort(EndReason::StalledInReplay);
        }
    }

    /// After a panic over an event of a room: reads anew who may be in it, and the versions it may have missed.
    pub async fn heal(&self, Broken { id, version }: Broken) {
        let Some(shared) = self.room(id) else { return };
        if let Some(access) = &mut shared.door.lock().access {
            // If the read below fails, the sweep finds that rights have been changed since.
            access.grants = 0;
        }
        if let Some(version) = version {
            shared.room.lock().expect(version);
        }
        drop(shared);
        self.behind.lock().insert(id);
        if let Err(error) = self.refresh(id).await {
            debug!(room = %id, %error, "rights");
        }
        self.fill(id).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{env, path::PathBuf, process, sync::Arc};

    use super::super::Visit;
    use super::*;
    use crate::{
        config::Config,
        domain::{
            event::Event,
            location::{NewLocation, Update},
        },
        gateway::Gateway,
        service::Service,
        storage::Store,
    };

    /// A service on a database of its own, and how it is configured.
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
        assert_eq!(panics_of(&service, "forwarder"), "1");
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
        let id = service.create_location(NewLocation::from_body(body, None).unwrap()).await.unwrap().id;
        let rooms = Rooms::new(service.clone());
        let visit = Visit::new(&rooms, id, None);
        rooms.ask(&visit.shared, None).await.unwrap();
        assert_eq!(visit.shared.room.lock().head(), Some(1));
        for _ in 0..2 {
            service.update_location(Update::from_body(body, Some(id), None).unwrap()).await.unwrap();
        }
        rooms.heal(Broken { id, version: Some(3) }).await;
        assert_eq!(visit.shared.room.lock().head(), Some(3));
        // One that cannot be healed is left, and the next of that name begins anew.
        rooms.give_up(id);
        assert_eq!(rooms.len(), 0);
        drop(visit);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
