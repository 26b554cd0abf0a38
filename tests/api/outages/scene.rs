//! A server with writers that never pause and followers that check what they are sent.

use super::*;

/// A server whose database is in for trouble, those who write and those who follow.
pub(super) struct Scene {
    pub(super) site: Site,
    pub(super) server: Process,
    pub(super) http: reqwest::Client,
    pub(super) clients: Clients,
    pub(super) locations: Vec<u64>,
    pub(super) followers: Followers,
    pub(super) writers: Option<Writers>,
    pub(super) written: Written,
    pub(super) users: Range<u32>,
}

impl Scene {
    pub(super) async fn new(site: Site, writers: u32) -> Self {
        noise::expect(&DATABASE_AWAY);
        let server = site.start().await;
        let locations = site.create(6).await;
        let mut followers = Followers::start(1, &site.gateway);
        for n in 0..12 {
            // In three rooms each; from the beginning, or from now on.
            let since = (n % 2 == 0).then_some(0);
            let rooms: Vec<Entry> = (0..3).map(|at| (locations[(n + at * 2) % 6], since)).collect();
            followers.add(KINDS[n % KINDS.len()], &rooms);
        }
        followers.reach(&BTreeMap::new()).await;
        let mut scene = Self {
            site,
            server,
            http: reqwest::Client::new(),
            clients: Clients::start(),
            locations,
            followers,
            writers: None,
            written: Written::default(),
            users: 0..writers,
        };
        scene.write();
        scene.writers().wrote(30).await;
        scene
    }

    /// Has new writers begin.
    pub(super) fn write(&mut self) {
        let users = self.users.clone();
        self.users = users.end..users.end + users.len() as u32;
        let (api, locations) = (&self.site.api, &self.locations);
        self.writers = Some(Writers::start(api, locations, users, Outage::Refused, None));
    }

    pub(super) fn writers(&mut self) -> &mut Writers {
        self.writers.as_mut().expect("writers")
    }

    /// Lets everybody wait for the last answer.
    pub(super) async fn pause(&mut self) {
        let written = self.writers.take().expect("writers").stop().await;
        self.keep(written);
    }

    pub(super) fn keep(&mut self, written: Written) {
        self.written.answered.extend(written.answered);
        self.written.unanswered.extend(written.unanswered);
        self.written.refused += written.refused;
        self.written.slowest = self.written.slowest.max(written.slowest);
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.site.api))
    }

    /// Not to a location that is followed: it might be committed after all.
    pub(super) fn post(&self) -> RequestBuilder {
        self.request(Method::POST, "/location").json(&json!({"geometry": point(1.0, 2.0)}))
    }

    /// What no room knows.
    pub(super) fn read(&self) -> RequestBuilder {
        self.request(Method::GET, &format!("/location/{}/history", self.locations[0]))
    }

    /// What needs the database is refused, in time; the rest goes on.
    pub(super) async fn is_away(&self) {
        tokio::join!(
            refused(self.read()),
            refused(self.request(Method::GET, "/location")),
            refused(self.request(Method::GET, "/readyz")),
            self.cannot_be_written(),
            self.goes_on(),
        );
    }

    pub(super) async fn cannot_be_written(&self) {
        join_all((0..8).map(|_| refused(self.post()))).await;
    }

    /// Live rooms are joined and read from memory.
    pub(super) async fn goes_on(&self) {
        let mut client =
            timeout(AT_ONCE * 2, self.clients.connect(&self.site.gateway)).await.expect("a socket");
        let mut other =
            timeout(AT_ONCE * 2, self.clients.connect(&self.site.gateway)).await.expect("a socket");
        let joins = async {
            for id in &self.locations {
                let head = client.join(*id).await["version"].clone();
                let ack = other.ask("join_room", json!({"locationId": id, "since": head})).await;
                assert_eq!(ack, json!({"roomName": id.to_string(), "version": head, "recovered": true}));
            }
            // Side by side: a database that says nothing is given a second.
            let read = async |id: &u64| {
                answer(self.request(Method::GET, &format!("/location/{id}")).send().await.unwrap()).await
            };
            for (status, feature) in join_all(self.locations.iter().map(read)).await {
                assert_eq!(status, StatusCode::OK, "{feature}");
            }
            assert_eq!(other.drain().await, Vec::<Value>::new());
        };
        timeout(AT_ONCE, joins).await.expect("live rooms can be joined without the database");
        let healthy = timeout(AT_ONCE, self.request(Method::GET, "/healthz").send());
        assert_eq!(healthy.await.expect("at once").unwrap().status(), StatusCode::OK);
        client.disconnect();
        other.disconnect();
    }

    /// Writes and reads are done again, in time.
    pub(super) async fn resumes(&mut self, ended: Instant) {
        let again = timeout_at(ended + RESUMED_WITHIN, self.writers().wrote(1)).await;
        again.unwrap_or_else(|_| panic!("no write within {RESUMED_WITHIN:?}"));
        println!("written again after {:?}", ended.elapsed());
        let until = ended + RESUMED_WITHIN;
        let answered = timeout_at(until, succeeded(|| self.read(), StatusCode::OK)).await;
        answered.unwrap_or_else(|_| panic!("no read within {RESUMED_WITHIN:?}"));
    }

    /// Service goes on and everybody has what was committed; then there are new writers.
    pub(super) async fn recovers(&mut self, ended: Instant) {
        self.resumes(ended).await;
        self.pause().await;
        self.converges(ended).await;
        self.write();
    }

    /// Everybody comes to have what was committed, though nobody writes any more.
    pub(super) async fn converges(&mut self, ended: Instant) {
        assert!(self.writers.is_none());
        let until = ended + CONVERGED_WITHIN;
        let answered = timeout_at(until, succeeded(|| self.read(), StatusCode::OK)).await;
        answered.unwrap_or_else(|_| panic!("no read within {CONVERGED_WITHIN:?}"));
        let heads = self.site.heads(&self.locations).await;
        self.followers.reach_within(until.saturating_duration_since(Instant::now()), &heads).await;
        println!("all there after {:?}", ended.elapsed());
    }

    /// All is as it should be, and was.
    pub(super) async fn end(mut self) {
        if self.writers.is_none() {
            self.write();
        }
        // Also what was committed last is followed by something, in order.
        self.writers().wrote_all(CONVERGED_WITHIN).await;
        self.pause().await;
        let heads = self.site.heads(&self.locations).await;
        self.followers.reach_within(CONVERGED_WITHIN, &heads).await;
        let followed = self.followers.summary().await;
        for follower in &followed {
            assert_eq!((follower.connects, follower.reasons.len()), (1, 0), "sockets stay: {follower:#?}");
        }
        let Written { answered, refused, slowest, .. } = &self.written;
        println!("{} written, {refused} refused, each within {slowest:?}", answered.len());
        check_promises(&self.site, &self.written, &followed).await;
        self.server.stop().await;
        self.site.drop().await;
    }
}

/// 503 with `Retry-After`, within the time that this may take.
pub(super) async fn refused(request: RequestBuilder) {
    let started = Instant::now();
    let said = timeout(REFUSED_WITHIN, request.send()).await;
    let said = said.unwrap_or_else(|_| panic!("no answer within {REFUSED_WITHIN:?}")).expect("an answer");
    let retry_after = said.headers().contains_key(RETRY_AFTER);
    let (status, body) = answer(said).await;
    assert_eq!(
        (status, &body["code"], retry_after),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("storage_unavailable"), true),
        "{body} after {:?}",
        started.elapsed()
    );
}

/// Again and again until it is, every other answer being 503.
pub(super) async fn succeeded(request: impl Fn() -> RequestBuilder, status: StatusCode) {
    loop {
        let (said, body) = answer(request().send().await.expect("an answer")).await;
        if said == status {
            return;
        }
        assert_eq!(said, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        sleep(Duration::from_millis(10)).await;
    }
}
