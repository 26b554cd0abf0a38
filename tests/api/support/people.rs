//! People with a token and a client each, and what reaches them beside positions.

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    TestServer,
    clients::{Client, Clients},
    tokens::{Pass, mint},
};

/// Somebody who listens.
pub struct Person {
    pub pass: Pass,
    pub client: Client,
}

impl Person {
    pub async fn new(
        server: &TestServer,
        clients: &Clients,
        kind: (&str, &str),
        (id, name, is_admin): (u64, Option<&str>, bool),
    ) -> Self {
        let pass = Pass::Token(mint(id, name, is_admin));
        Self { client: pass.connect_as(clients, kind, &server.gateway).await.hearing_all(), pass }
    }

    /// The bodies of the events of this name up to now; see [`settle`].
    pub async fn events(&mut self, name: &str) -> Vec<Value> {
        let seen = self.client.drain().await.into_iter();
        seen.filter(|saw| saw["event"] == name).map(|mut saw| saw["args"][0].take()).collect()
    }
}

/// Everything answered before this has gone to the sockets when this returns.
pub async fn settle(server: &TestServer) {
    // Its answer waits for that. Nobody listens to this owner.
    let owner = Pass::user(9_000_000);
    let id = owner.create(server).await;
    owner.grant(server, id, 9_000_001, "viewer").await;
}

/// Changes a location's properties; returns the Feature of the answer.
pub async fn patch(pass: &Pass, server: &TestServer, id: u64, properties: Value) -> Value {
    let body = json!({"properties": properties});
    let answer = pass.must(server, Method::PUT, &format!("/location/{id}"), Some(body)).await;
    answer["data"]["updatedLocationResult"].clone()
}

/// Ends a membership.
pub async fn expel(pass: &Pass, server: &TestServer, id: u64, member: u64) {
    pass.must(server, Method::DELETE, &format!("/location/{id}/members/{member}"), None).await;
}

/// Removes a location.
pub async fn delete(pass: &Pass, server: &TestServer, id: u64) {
    pass.must(server, Method::DELETE, &format!("/location/{id}"), None).await;
}
