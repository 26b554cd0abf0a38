//! Members of a location: the routes as a client meets them.

use georoom::domain::error::Code;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    on_both_databases, on_one_database,
    support::{
        Db, TestServer,
        clients::PATIENCE,
        problem::Problem,
        tokens::{LOCKED, Pass, in_ms, mint},
    },
};

on_both_databases!(members_are_listed_in_the_order_they_were_added_with_the_names_they_go_by);

on_one_database!(what_is_no_member_is_refused_and_says_where, in_open_mode_everybody_manages_members,);

const OWNER: u64 = 10;

async fn members_are_listed_in_the_order_they_were_added_with_the_names_they_go_by(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    let path = format!("/location/{id}/members");
    let list = async |pass: &Pass| {
        let body = pass.must(&server, Method::GET, &path, None).await;
        assert_eq!(body.as_object().map(|body| body.len()), Some(1), "{body}");
        body["members"].as_array().expect("a list").clone()
    };
    assert_eq!(list(&owner).await, Vec::<Value>::new());

    // Their names are those of the last token seen; one has none, one has never called.
    for name in ["Zoé", "Zoë 🚲"] {
        Pass::Token(mint(30, Some(name), false)).must(&server, Method::GET, "/location", None).await;
    }
    Pass::user(20).must(&server, Method::GET, "/location", None).await;
    let mut added = Vec::new();
    for (user, role) in [(30, "viewer"), (20, "editor"), (25, "viewer")] {
        let put =
            owner.must(&server, Method::PUT, &format!("{path}/{user}"), Some(json!({"role": role}))).await;
        added.push(user);
        let members = put["members"].as_array().expect("the list");
        assert_eq!(
            members.iter().map(|member| member["userId"].as_u64().expect("an id")).collect::<Vec<_>>(),
            added
        );
        // Two of one millisecond would be in the order of their ids.
        let at = members.last().expect("a member")["addedAt"].clone();
        while in_ms(0).as_str() <= at.as_str().expect("a time") {
            tokio::task::yield_now().await;
        }
    }
    // Names are written every two seconds.
    let named = async {
        loop {
            let listed = list(&owner).await;
            if listed[0].get("userName").is_some() {
                break listed;
            }
        }
    };
    let listed = timeout(PATIENCE, named).await.expect("a name");
    let at = |n: usize| listed[n]["addedAt"].clone();
    let now = [
        json!({"userId": 30, "userName": "Zoë 🚲", "role": "viewer", "addedAt": at(0)}),
        json!({"userId": 20, "role": "editor", "addedAt": at(1)}),
        json!({"userId": 25, "role": "viewer", "addedAt": at(2)}),
    ];
    assert_eq!(listed, now);
    for n in 0..3 {
        let text = at(n).as_str().expect("a time").to_owned();
        assert!(text.len() == 24 && text.ends_with('Z'), "{text}");
    }
    // Another role is no other place in the list; the same one again changes nothing.
    for (user, role) in [(30, "editor"), (30, "editor"), (20, "viewer")] {
        owner.grant(&server, id, user, role).await;
    }
    let changed = list(&Pass::user(25)).await;
    let roles: Vec<_> = changed.iter().map(|member| member["role"].as_str().expect("a role")).collect();
    assert_eq!(roles, ["editor", "viewer", "viewer"]);
    assert_eq!(changed.iter().map(|member| &member["addedAt"]).collect::<Vec<_>>(), [&at(0), &at(1), &at(2)]);
    let versions = owner.get(&server, &format!("/location/{id}")).await.1;
    assert_eq!(versions["properties"]["version"], 1, "members do not count");

    // One's own end, and others'.
    let response = Pass::user(20).send(&server, Method::DELETE, &format!("{path}/20"), None).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(response.text().await.expect("no body"), "");
    owner.must(&server, Method::DELETE, &format!("{path}/30"), None).await;
    assert_eq!(list(&owner).await, [changed[2].clone()]);
    server.stop().await;
}

async fn what_is_no_member_is_refused_and_says_where(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    let path = format!("/location/{id}/members");
    let check =
        async |method: Method, path: &str, body: Option<&str>, status: u16, code: Code, at: Option<&str>| {
            let mut request = owner.on(server.http.request(method.clone(), format!("{}{path}", server.api)));
            if let Some(body) = body {
                request = request.header("Content-Type", "application/json").body(body.to_owned());
            }
            let answer = Problem::of(request.send().await.expect("an answer")).await;
            let about = format!("{method} {path} {body:?}");
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(Problem::check(answer, status, code, &about).pointer.as_deref(), at, "{about}");
        };
    for (body, status, code, at) in [
        ("", 400, Code::InvalidJson, None),
        ("{", 400, Code::InvalidJson, None),
        ("[]", 422, Code::InvalidBody, Some("")),
        (r#""viewer""#, 422, Code::InvalidBody, Some("")),
        ("{}", 422, Code::InvalidMember, Some("/role")),
        (r#"{"role":null}"#, 422, Code::InvalidMember, Some("/role")),
        (r#"{"role":"owner"}"#, 422, Code::InvalidMember, Some("/role")),
        (r#"{"role":"Viewer"}"#, 422, Code::InvalidMember, Some("/role")),
        (r#"{"role":["viewer"]}"#, 422, Code::InvalidMember, Some("/role")),
        (r#"{"role":"viewer","role":"editor"}"#, 422, Code::DuplicateMember, Some("/role")),
    ] {
        check(Method::PUT, &format!("{path}/20"), Some(body), status, code, at).await;
    }
    let good = Some(r#"{"role":"viewer"}"#);
    check(Method::PUT, &format!("{path}/{OWNER}"), good, 422, Code::InvalidMember, None).await;
    for user in ["ada", "-1", "1.5", "9007199254740992"] {
        check(Method::PUT, &format!("{path}/{user}"), good, 422, Code::InvalidUserId, None).await;
        check(Method::DELETE, &format!("{path}/{user}"), None, 422, Code::InvalidUserId, None).await;
    }
    check(Method::DELETE, &format!("{path}/20"), None, 404, Code::NotFound, None).await;
    let unknown = format!("/location/{}/members", id + 1);
    check(Method::GET, &unknown, None, 404, Code::NotFound, None).await;
    check(Method::PUT, &format!("{unknown}/20"), good, 404, Code::NotFound, None).await;
    check(Method::DELETE, &format!("{unknown}/20"), None, 404, Code::NotFound, None).await;
    check(Method::GET, &format!("{path}?page=1"), None, 422, Code::InvalidParameter, None).await;
    assert_eq!(owner.get(&server, &path).await.1, json!({"members": []}));
    server.stop().await;
}

async fn in_open_mode_everybody_manages_members(db: Db) {
    let server = TestServer::start(db).await;
    let anyone = Pass::Nothing;
    let id = anyone.create(&server).await;
    let path = format!("/location/{id}/members");
    anyone.grant(&server, id, 20, "viewer").await;
    anyone.grant(&server, id, 20, "editor").await;
    let (status, list) = anyone.get(&server, &format!("{path}?userId=99")).await;
    assert_eq!((status, &list["members"][0]["role"]), (StatusCode::OK, &json!("editor")), "{list}");
    anyone.must(&server, Method::DELETE, &format!("{path}/20?userId=99"), None).await;
    assert_eq!(anyone.get(&server, &path).await.1, json!({"members": []}));
    // User 1, as everybody is who does not say, has made it.
    let body = json!({"role": "viewer"});
    let refused =
        Problem::of(anyone.send(&server, Method::PUT, &format!("{path}/1"), Some(&body)).await).await;
    Problem::check(refused, StatusCode::UNPROCESSABLE_ENTITY, Code::InvalidMember, "the owner");
    server.stop().await;
}
