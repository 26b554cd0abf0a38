//! What must not get in, by either door, and what nobody may be told.

use reqwest::{
    Method, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Value, json};

use georoom::domain::error::Code;

use crate::{
    on_both_databases, on_one_database,
    support::{
        Db, TestServer, answer,
        clients::{Clients, KINDS},
        point,
        problem::Problem,
        process::Process,
        tokens::{
            ED25519, LOCKED, Pass, SECRET, code, encoded, in_ms, in_seconds, knock, mint, refusal, signed,
            token,
        },
    },
};

on_both_databases!(a_share_link_opens_nothing_but_its_location);

on_one_database!(forged_members_of_bodies_and_payloads_change_nothing, an_id_that_is_almost_one_is_none,);

const OWNER: u64 = 10;
const MALLORY: u64 = 66;

/// Names and values.
type Headers<'a> = &'a [(&'a str, &'a [u8])];

/// A token tried at all doors; returns what each said.
async fn tried(server: &TestServer, id: u64, token: &str) -> Vec<Result<(), String>> {
    let none = HeaderMap::new();
    let mut header = HeaderMap::new();
    let request = server.http.get(format!("{}/location/{id}", server.api));
    let mut said = Vec::new();
    if let Ok(value) = HeaderValue::from_str(&format!("Bearer {token}")) {
        header.insert(AUTHORIZATION, value);
        let answer = request.headers(header.clone()).send().await.expect("an answer");
        said.push(match answer.status() {
            StatusCode::OK => Ok(()),
            _ => {
                let problem = Problem::of(answer).await.expect("a problem");
                assert_eq!(problem.status, StatusCode::UNAUTHORIZED, "{problem:?}");
                assert!(token.is_empty() || !problem.detail.contains(token), "{problem:?}");
                Err(problem.code)
            }
        });
        said.push(knock(server, &[], &header, "").await);
    }
    // Longer ones fit in no URL.
    if token.len() < 60_000 {
        said.push(knock(server, &[("token", token)], &none, "").await);
    }
    said.push(knock(server, &[], &none, &json!({"token": token}).to_string()).await);
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_token_signed_here_and_valid_now_opens_any_door() {
    let server = TestServer::start_with(Db::Sqlite, LOCKED).await;
    let id = Pass::user(OWNER).create(&server).await;
    let secret = SECRET.as_bytes();
    let hs256 = json!({"alg": "HS256", "typ": "JWT"});
    let exp = in_seconds(3_600);
    let claims = json!({"sub": OWNER, "exp": exp});
    let good = signed(&hs256, &claims, secret);
    let (message, signature) = good.rsplit_once('.').expect("a token");
    let (header, _) = message.split_once('.').expect("a token");
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        signed(&hs256, &claims, secret)
    };
    let headed = |name: &str, value: Value, secret: &[u8]| {
        let mut header = hs256.clone();
        header[name] = value;
        signed(&header, &claims, secret)
    };
    let other = b"another-another-another-another-";

    for (about, token) in [
        ("as it should be", good.clone()),
        ("a sub in digits", with("sub", json!(OWNER.to_string()))),
        ("nbf within the leeway", with("nbf", json!(in_seconds(20)))),
        ("exp within the leeway", with("exp", json!(in_seconds(-10)))),
        ("members nobody knows", with("__proto__", json!({"role": "admin"}))),
    ] {
        assert_eq!(tried(&server, id, &token).await, [Ok(()), Ok(()), Ok(()), Ok(())], "{about}");
    }

    let mut flipped = signature.to_owned();
    let first = if signature.starts_with('A') { "B" } else { "A" };
    flipped.replace_range(..1, first);
    let unsigned = |alg: Value| format!("{}.{}.", encoded(&json!({"alg": alg})), encoded(&claims));
    let mut refused = vec![
        ("nothing", String::new()),
        ("a dot", ".".to_owned()),
        ("dots", "..".to_owned()),
        ("no JSON", "a.b.c".to_owned()),
        ("null", "null".to_owned()),
        ("the secret itself", SECRET.to_owned()),
        ("another secret", signed(&hs256, &claims, other)),
        ("the start of the secret", signed(&hs256, &claims, &secret[..31])),
        ("no secret", signed(&hs256, &claims, b"")),
        ("a kid that is a path", headed("kid", json!("../../dev/null"), b"")),
        ("its own key", headed("jwk", json!({"kty": "oct", "k": encoded(&"another")}), other)),
        ("a key from elsewhere", headed("jku", json!("https://evil.example/jwks"), other)),
        ("a critical extension", headed("crit", json!(["b64"]), secret)),
        ("other claims", format!("{header}.{}.{signature}", encoded(&json!({"sub": 11, "exp": exp})))),
        (
            "more claims",
            format!("{header}.{}.{signature}", encoded(&json!({"sub": OWNER, "exp": exp, "role": "admin"}))),
        ),
        ("another signature", format!("{message}.{flipped}")),
        ("no signature", format!("{message}.")),
        ("two parts", message.to_owned()),
        ("half a signature", format!("{message}.{}", &signature[..20])),
        ("a longer signature", format!("{good}AA")),
        ("a padded signature", format!("{good}=")),
        ("four parts", format!("{good}.{signature}")),
        ("a part before", format!("{header}.{good}")),
        ("Bearer twice", format!("Bearer {good}")),
        ("two at once", format!("{good},{good}")),
        ("no exp", signed(&hs256, &json!({"sub": OWNER}), secret)),
        ("exp null", with("exp", Value::Null)),
        ("exp as text", with("exp", json!(exp.to_string()))),
        ("exp true", with("exp", json!(true))),
        ("exp in an array", with("exp", json!([exp]))),
        ("nbf ahead", with("nbf", json!(in_seconds(120)))),
        ("nbf as text", with("nbf", json!("0"))),
        ("no sub", signed(&hs256, &json!({"exp": exp}), secret)),
        ("sub twice", signed(&hs256, &format!(r#"{{"sub":11,"sub":{OWNER},"exp":{exp}}}"#), secret)),
        ("alg twice", signed(&r#"{"alg":"none","alg":"HS256"}"#, &claims, secret)),
        ("claims in an array", signed(&hs256, &json!([claims]), secret)),
        ("claims as text", signed(&hs256, &json!(claims.to_string()), secret)),
        ("a long one", with("padding", json!("x".repeat(48 * 1024)))),
        ("long nonsense", "x".repeat(64 * 1024)),
        ("deep", signed(&hs256, &format!("{}{}", "[".repeat(3_000), "]".repeat(3_000)), secret)),
    ];
    for alg in ["none", "None", "NONE", "nOnE", "", "HS384", "HS512", "RS256", "ES256", "EdDSA", "hs256"] {
        refused.push(("alg unsigned", unsigned(json!(alg))));
        if alg != "HS256" {
            refused.push(("alg signed", headed("alg", json!(alg), secret)));
        }
    }
    for alg in [Value::Null, json!(0), json!(["HS256"]), json!({"HS256": true})] {
        refused.push(("an odd alg unsigned", unsigned(alg.clone())));
        refused.push(("an odd alg", headed("alg", alg, secret)));
    }
    for sub in [
        json!(null),
        json!(-1),
        json!(1.5),
        json!("010"),
        json!("+10"),
        json!(" 10"),
        json!("10 "),
        json!("1e1"),
        json!("0xa"),
        json!(""),
        json!("ten"),
        json!(9_007_199_254_740_992_u64),
        json!([OWNER]),
        json!({"id": OWNER}),
        json!(true),
        json!("9223372036854775808"),
        json!("10\u{0}"),
        json!("１０"),
    ] {
        refused.push(("an odd sub", with("sub", sub)));
    }
    for (about, token) in refused {
        for said in tried(&server, id, &token).await {
            assert_eq!(said, Err("invalid_token".to_owned()), "{about}: {:.200}", token);
        }
    }
    for (about, token) in [
        ("expired", with("exp", json!(in_seconds(-31)))),
        ("long expired", with("exp", json!(0))),
        ("before there was time", with("exp", json!(-1e300))),
        ("an expired admin", signed(&hs256, &json!({"sub": 1, "role": "admin", "exp": 1}), secret)),
    ] {
        for said in tried(&server, id, &token).await {
            assert_eq!(said, Err("token_expired".to_owned()), "{about}");
        }
    }
    // Not an admin, whatever is like it.
    for role in
        [json!("Admin"), json!("admin "), json!(["admin"]), json!({"admin": true}), json!(true), json!(1)]
    {
        let like = Pass::Token(signed(&hs256, &json!({"sub": MALLORY, "role": role, "exp": exp}), secret));
        assert_eq!(like.get(&server, &format!("/location/{id}")).await.0, StatusCode::NOT_FOUND, "{role}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_key_is_no_secret() {
    let path = std::env::temp_dir().join(format!("georoom_confused_{}", std::process::id()));
    std::fs::write(&path, ED25519).expect("a file");
    let settings = [("JWT_PUBLIC_KEY_FILE", path.to_str().expect("UTF-8"))];
    let server = TestServer::start_with(Db::Sqlite, &settings).await;
    let claims = json!({"sub": OWNER, "role": "admin", "exp": in_seconds(3_600)});
    let line = ED25519.lines().nth(1).expect("a key");
    let der = {
        use base64::{Engine, engine::general_purpose::STANDARD};
        STANDARD.decode(line).expect("base64")
    };
    let keys = [ED25519.as_bytes(), ED25519.trim().as_bytes(), line.as_bytes(), &der, &der[12..], b""];
    for key in keys {
        for alg in ["HS256", "EdDSA", "RS256", "ES256", "none"] {
            let token = signed(&json!({"alg": alg}), &claims, key);
            for said in tried(&server, 1, &token).await {
                assert_eq!(said, Err("invalid_token".to_owned()), "{alg}");
            }
        }
    }
    server.stop().await;
    std::fs::remove_file(path).expect("the file");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_unfit_or_twice_there_are_refused() {
    let server = TestServer::start_with(Db::Sqlite, LOCKED).await;
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    let (good, other) = (format!("Bearer {}", token(OWNER)), format!("Bearer {}", token(MALLORY)));
    let share = owner.share(&server, id, json!({"password": "correct horse"})).await;
    let share = share["token"].as_str().expect("a token").to_owned();
    let (token, shared, password) = ("authorization", "x-share-token", "x-share-password");
    let [lower, glued, tabbed, other_scheme] =
        [("Bearer", "bEARER"), (" ", ""), (" ", "\t"), ("Bearer", "Token")]
            .map(|(from, to)| good.replace(from, to));
    let cases: [(Headers<'_>, Option<&str>); 24] = [
        (&[(token, good.as_bytes())], None),
        (&[(token, lower.as_bytes())], None),
        (&[(shared, share.as_bytes()), (password, b"correct horse")], None),
        (&[(token, b"")], Some("invalid_token")),
        (&[(token, b"Bearer")], Some("invalid_token")),
        (&[(token, b"Bearer ")], Some("invalid_token")),
        (&[(token, b"Basic MTA6MTA=")], Some("invalid_token")),
        (&[(token, glued.as_bytes())], Some("invalid_token")),
        (&[(token, tabbed.as_bytes())], Some("invalid_token")),
        (&[(token, other_scheme.as_bytes())], Some("invalid_token")),
        (&[(token, &[good.as_bytes(), b"\xff"].concat())], Some("invalid_token")),
        (&[(token, "Bearer п".as_bytes())], Some("invalid_token")),
        (&[(token, good.as_bytes()), (token, good.as_bytes())], Some("invalid_token")),
        (&[(token, good.as_bytes()), (token, other.as_bytes())], Some("invalid_token")),
        (&[(token, other.as_bytes()), (token, good.as_bytes())], Some("invalid_token")),
        (&[(token, good.as_bytes()), (token, b"Bearer x")], Some("invalid_token")),
        (&[(token, b"Bearer x"), (token, good.as_bytes())], Some("invalid_token")),
        (
            &[(token, b"Bearer x"), (shared, share.as_bytes()), (password, b"correct horse")],
            Some("invalid_token"),
        ),
        (&[(shared, b"")], Some("invalid_share")),
        (&[(shared, &[share.as_bytes(), b"\xff"].concat())], Some("invalid_share")),
        (&[(shared, share.as_bytes()), (shared, b"x"), (password, b"correct horse")], Some("invalid_share")),
        (&[(shared, share.as_bytes()), (password, b"\xff")], Some("invalid_share_password")),
        (
            &[(shared, share.as_bytes()), (password, b"correct horse"), (password, b"x")],
            Some("invalid_share_password"),
        ),
        (&[(password, b"correct horse")], Some("unauthorized")),
    ];
    for (headers, refused) in cases {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a name");
            all.append(name, HeaderValue::from_bytes(value).expect("a value"));
        }
        let about = format!("{all:?}");
        let url = format!("{}/location/{id}", server.api);
        let answer = server.http.get(url).headers(all.clone()).send().await.expect("an answer");
        match refused {
            None => assert_eq!(answer.status(), StatusCode::OK, "{about}"),
            Some(code) => {
                let problem = Problem::of(answer).await.expect("a problem");
                assert_eq!((problem.status, &*problem.code), (StatusCode::UNAUTHORIZED, code), "{about}");
            }
        }
        // Share links have no header there.
        if headers.iter().all(|(name, _)| *name == token) {
            let said = knock(&server, &[], &all, "").await;
            assert_eq!(said, refused.map_or(Ok(()), |code| Err(code.to_owned())), "{about}");
        }
    }
    for query in [format!("?share={share}&share={share}"), format!("?share=x&share={share}")] {
        let answer = server.send(Method::GET, &format!("/location/{id}{query}"), None).await;
        let problem = Problem::of(answer).await;
        Problem::check(problem, StatusCode::UNPROCESSABLE_ENTITY, Code::InvalidParameter, &query);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auth_payload_of_odd_type_lets_nobody_in() {
    let server = TestServer::start_with(Db::Sqlite, LOCKED).await;
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    let (good, none) = (token(OWNER), HeaderMap::new());
    let share = owner.share(&server, id, json!({})).await;
    let share = share["token"].as_str().expect("a token");
    let odd = |good: &str| {
        [
            json!([good]),
            json!({"token": good}),
            json!({"value": good}),
            json!(1),
            json!(true),
            json!([]),
            json!({}),
        ]
    };
    let mut cases = vec![
        (json!({"token": good}), Ok(())),
        (json!({"token": good, "share": "x", "__proto__": {}}), Ok(())),
        (json!({"share": share, "token": null}), Ok(())),
        (json!({"share": share, "token": "x"}), Err("invalid_token")),
        (json!({"share": "x", "token": null}), Err("invalid_share")),
        (json!({"share": good}), Err("invalid_share")),
        (json!({"token": share}), Err("invalid_token")),
    ];
    for value in odd(&good) {
        cases.push((json!({"token": value}), Err("invalid_token")));
    }
    for value in odd(share) {
        cases.push((json!({"share": value}), Err("invalid_share")));
    }
    for auth in [
        json!({}),
        json!({"Token": good}),
        json!({"auth": {"token": good}}),
        json!({"__proto__": {"token": good}}),
        json!({"constructor": {"prototype": {"token": good}}}),
        json!({"token ": good}),
        json!({"authorization": format!("Bearer {good}")}),
        json!({"userId": OWNER}),
        json!({"sub": OWNER, "role": "admin"}),
    ] {
        cases.push((auth, Err("unauthorized")));
    }
    for (auth, expected) in cases {
        let said = knock(&server, &[], &none, &auth.to_string()).await;
        assert_eq!(said, expected.map_err(str::to_owned), "{auth}");
    }
    // No object, or no JSON.
    for auth in [
        json!(good).to_string(),
        json!([good]).to_string(),
        json!([{"token": good}]).to_string(),
        "12".to_owned(),
        "true".to_owned(),
        "null".to_owned(),
        "{".to_owned(),
        format!(r#"{{"token":"{good}""#),
        format!(r#"{{"token":{good}}}"#),
        good.clone(),
        format!("{}{}", "[".repeat(5_000), "]".repeat(5_000)),
    ] {
        assert!(knock(&server, &[], &none, &auth).await.is_err(), "{auth:.200}");
    }
    for query in [("Token", &*good), ("userId", "10"), ("sub", "10"), ("auth[token]", &good), ("auth", &good)]
    {
        assert_eq!(knock(&server, &[query], &none, "").await, Err("unauthorized".to_owned()), "{query:?}");
    }
    // The server is well.
    assert_eq!(knock(&server, &[("share", share)], &none, "").await, Ok(()));
    server.stop().await;
}

async fn forged_members_of_bodies_and_payloads_change_nothing(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let clients = Clients::start();
    let (owner, mallory) = (Pass::user(OWNER), Pass::user(MALLORY));
    let id = owner.create(&server).await;
    let (path, room) = (format!("/location/{id}"), id.to_string());
    let before = owner.get(&server, &path).await.1;

    // Whoever it says made or moved it: who asks did.
    let forged = json!({
        "type": "Feature", "geometry": point(1.5, 1.5), "userId": OWNER, "owner": OWNER, "role": "admin",
        "updatedBy": OWNER, "version": 77, "__proto__": {"userId": OWNER, "isAdmin": true},
        "constructor": {"prototype": {"role": "admin"}},
        "properties": {
            "userId": OWNER, "updatedBy": OWNER, "version": 77, "createdAt": "2000-01-01T00:00:00.000Z",
            "updatedAt": "2000-01-01T00:00:00.000Z", "__proto__": {"version": 9}, "constructor": "x",
        },
    });
    let made = mallory.must(&server, Method::POST, "/location", Some(forged.clone())).await;
    let made = &made["data"]["location"];
    let own = made["id"].as_u64().expect("an id");
    let moved = mallory
        .must(
            &server,
            Method::PUT,
            &format!("/location/{own}"),
            Some({
                let mut body = forged.clone();
                body["id"] = own.into();
                body
            }),
        )
        .await;
    for (feature, version) in [(made, 1), (&moved["data"]["updatedLocationResult"], 2)] {
        let properties = &feature["properties"];
        assert_eq!(
            (&properties["userId"], &properties["updatedBy"], &properties["version"]),
            (&json!(MALLORY), &json!(MALLORY), &json!(version)),
            "{feature}"
        );
        assert_ne!(properties["createdAt"], "2000-01-01T00:00:00.000Z");
        assert_ne!(properties["updatedAt"], "2000-01-01T00:00:00.000Z");
    }
    let mut theirs = forged.clone();
    theirs["id"] = id.into();
    for (method, path, body) in [
        (Method::PUT, "/location".to_owned(), Some(theirs.clone())),
        (Method::PUT, format!("{path}?userId={OWNER}"), Some(theirs)),
        (Method::DELETE, format!("{path}?userId={OWNER}"), None),
        (Method::GET, format!("{path}?userId={OWNER}"), None),
        (Method::GET, format!("{path}/history?userId={OWNER}"), None),
        (Method::GET, format!("{path}/members?userId={OWNER}"), None),
        (Method::GET, format!("{path}/shares?userId={OWNER}"), None),
        (Method::PUT, format!("{path}/members/{MALLORY}"), Some(json!({"role": "editor", "userId": OWNER}))),
        (Method::DELETE, format!("{path}/members/{OWNER}?userId={OWNER}"), None),
    ] {
        let about = format!("{method} {path}");
        let refused = Problem::of(mallory.send(&server, method, &path, body.as_ref()).await).await;
        Problem::check(refused, StatusCode::NOT_FOUND, Code::NotFound, &about);
    }
    let (_, list) = mallory.get(&server, &format!("/location?userId={OWNER}")).await;
    assert_eq!((&list["total"], &list["features"][0]["id"]), (&json!(1), &json!(own)), "{list}");
    for role in
        [json!("owner"), json!("guest"), json!("admin"), json!("__proto__"), json!("constructor"), json!(2)]
    {
        let body = json!({"role": role});
        let path = format!("/location/{own}/members/{OWNER}");
        let refused = Problem::of(mallory.send(&server, Method::PUT, &path, Some(&body)).await).await;
        Problem::check(refused, StatusCode::UNPROCESSABLE_ENTITY, Code::InvalidMember, &role.to_string());
    }

    let mut victim = owner.connect(&clients, &server.gateway).await;
    victim.join(id).await;
    for kind in KINDS {
        let mut client = mallory.connect_as(&clients, kind, &server.gateway).await;
        let ack =
            client.ask("join", json!({"userId": OWNER, "userName": "the owner", "role": "admin"})).await;
        assert_eq!(ack["userId"], MALLORY, "{kind:?}");
        for (event, payload, refused) in [
            ("join_room", json!({"locationId": id, "userId": OWNER}), "not_found"),
            ("join_room", json!({"locationId": id, "since": 0, "userId": OWNER}), "not_found"),
            ("join_room", json!({"locationId": id, "caller": {"role": "admin"}, "version": 1}), "not_found"),
            ("join_room", json!({"__proto__": {"locationId": id}}), "invalid_payload"),
            ("join_room", json!({"locationId": own, "roomName": room, "__proto__": {"locationId": id}}), ""),
            ("chat", json!({"message": "me", "roomName": room, "userId": OWNER}), "not_in_room"),
            ("chat", json!({"message": "me", "roomName": room, "version": 2}), "not_in_room"),
            ("chat", json!({"message": "me", "roomName": "__proto__"}), "invalid_payload"),
            ("chat", json!({"message": "me", "roomName": "constructor"}), "invalid_payload"),
            ("authenticate", json!({"token": token(OWNER)}), "invalid_token"),
            ("authenticate", json!({"token": mint(OWNER, None, true)}), "invalid_token"),
            ("authenticate", json!({"token": "x"}), "invalid_token"),
            ("authenticate", json!({"token": ""}), "invalid_token"),
            ("authenticate", json!({"token": [token(MALLORY)]}), "invalid_payload"),
            ("authenticate", json!({"userId": OWNER}), "invalid_payload"),
            ("authenticate", json!({"token": expired(MALLORY)}), "token_expired"),
            ("join_room", json!({"locationId": id}), "not_found"),
            ("__proto__", json!({"locationId": id}), "unknown_event"),
            ("constructor", json!({"locationId": id}), "unknown_event"),
            ("toString", json!({}), "unknown_event"),
            ("hasOwnProperty", json!({}), "unknown_event"),
            ("room_closed", json!({"roomName": room, "reason": "deleted"}), "unknown_event"),
            ("exception", json!({"code": "token_expired"}), "unknown_event"),
        ] {
            let (ack, seen) = client.ask_seeing(event, payload.clone()).await;
            let about = format!("{kind:?} {event} {payload}");
            match refused {
                "" => assert_eq!(ack, own.to_string(), "{about}"),
                refused => assert_eq!(code(&ack), refused, "{about}"),
            }
            assert!(!json!(seen).to_string().contains(&format!(r#""roomName":"{room}""#)), "{about}");
            client.drain().await;
        }
        // In one's own room as oneself.
        let said = json!({
            "message": {"type": "Feature", "id": own}, "roomName": own.to_string(), "userId": OWNER,
            "version": 9, "__proto__": {"version": 9},
        });
        let relayed = json!({
            "userId": MALLORY, "message": {"type": "Feature", "id": own}, "roomName": own.to_string(),
        });
        assert_eq!(client.ask_seeing("chat", said).await.0, relayed, "{kind:?}");
        let fresh = client.ask_seeing("authenticate", json!({"token": token(MALLORY)})).await.0;
        assert!(fresh["exp"].as_i64().is_some_and(|exp| exp > in_seconds(3_500)), "{kind:?} {fresh}");
        assert_eq!(code(&client.ask_seeing("join_room", json!({"locationId": id})).await.0), "not_found");
        client.disconnect();
    }
    assert_eq!(victim.drain().await, Vec::<Value>::new());
    assert_eq!(owner.get(&server, &path).await.1, before);
    server.stop().await;
}

fn expired(user: u64) -> String {
    let claims = json!({"sub": user, "exp": in_seconds(-60)});
    signed(&json!({"alg": "HS256"}), &claims, SECRET.as_bytes())
}

async fn an_id_that_is_almost_one_is_none(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let clients = Clients::start();
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    owner.grant(&server, id, 1, "viewer").await;
    let share = owner.share(&server, id, json!({})).await["id"].as_u64().expect("an id");
    let alike = |id: u64| {
        [
            format!("0{id}"),
            format!("+{id}"),
            format!("-{id}"),
            format!("{id}e0"),
            format!("{id}.0"),
            format!("0x{id}"),
            format!("{id}%20"),
            format!("%20{id}"),
            format!("{id}%00"),
            format!("%3{id}"),
            format!("{id},{id}"),
            format!("[{id}]"),
            "0".to_owned(),
            "9223372036854775808".to_owned(),
            format!("1844674407370955161{}", 6 + id % 4),
            "9007199254740992".to_owned(),
            "__proto__".to_owned(),
            "constructor".to_owned(),
            "*".to_owned(),
            "null".to_owned(),
            "١".to_owned(),
            format!("{id}%20OR%201=1"),
            format!("{id}%27--"),
        ]
    };
    let before = owner.get(&server, &format!("/location/{id}/members")).await.1;
    for name in alike(id) {
        for (method, rest, body) in [
            (Method::GET, "", None),
            (Method::GET, "/history", None),
            (Method::PUT, "", Some(json!({"geometry": point(1.5, 1.5)}))),
            (Method::DELETE, "", None),
            (Method::GET, "/members", None),
            (Method::PUT, "/members/5", Some(json!({"role": "editor"}))),
            (Method::DELETE, "/members/1", None),
            (Method::GET, "/shares", None),
            (Method::POST, "/shares", Some(json!({"expiresAt": in_ms(60_000)}))),
        ] {
            let path = format!("/location/{name}{rest}");
            let refused = Problem::of(owner.send(&server, method.clone(), &path, body.as_ref()).await).await;
            Problem::check(refused, StatusCode::NOT_FOUND, Code::NotFound, &format!("{method} {path}"));
        }
    }
    for name in alike(share) {
        let path = format!("/location/{id}/shares/{name}");
        let refused = Problem::of(owner.send(&server, Method::DELETE, &path, None).await).await;
        Problem::check(refused, StatusCode::NOT_FOUND, Code::NotFound, &path);
    }
    for name in alike(1).into_iter().filter(|name| !["0", "01"].contains(&name.as_str())) {
        let path = format!("/location/{id}/members/{name}");
        for (method, body) in [(Method::PUT, Some(json!({"role": "editor"}))), (Method::DELETE, None)] {
            let answer = Problem::of(owner.send(&server, method.clone(), &path, body.as_ref()).await).await;
            let problem = answer.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
            assert_eq!(problem.code, "invalid_user_id", "{method} {path}");
        }
    }
    for body in [
        json!({"id": format!("0{id}")}),
        json!({"id": format!("{id} ")}),
        json!({"id": [id]}),
        json!({"id": {"id": id}}),
        json!({"id": -1}),
        json!({"id": id as f64 + 0.5}),
        json!({"id": true}),
        json!({"id": null}),
        json!({"id": 0}),
        json!({"id": 9_223_372_036_854_775_808_u64}),
        json!({"id": "__proto__"}),
        json!({"__proto__": {"id": id}}),
    ] {
        let mut put = body.clone();
        put["properties"] = json!({});
        let refused = Problem::of(owner.send(&server, Method::PUT, "/location", Some(&put)).await).await;
        Problem::check(refused, StatusCode::UNPROCESSABLE_ENTITY, Code::InvalidId, &body.to_string());
    }
    for text in [format!("{id}.5"), format!("{id}.0000001"), format!("1{id}e-1")] {
        let put = owner.on(server.http.put(format!("{}/location", server.api)));
        let put = put.header("Content-Type", "application/json");
        let answer =
            put.body(format!(r#"{{"id":{text},"properties":{{}}}}"#)).send().await.expect("an answer");
        let refused = Problem::of(answer).await;
        Problem::check(refused, StatusCode::UNPROCESSABLE_ENTITY, Code::InvalidId, &text);
    }
    assert_eq!(owner.get(&server, &format!("/location/{id}/members")).await.1, before);
    let (_, shares) = owner.get(&server, &format!("/location/{id}/shares")).await;
    assert_eq!(shares["shares"].as_array().map(Vec::len), Some(1), "{shares}");
    assert_eq!(owner.get(&server, &format!("/location/{id}")).await.1["properties"]["version"], 1);

    // By a stranger: as wrong as by anybody.
    let mut stranger = Pass::user(MALLORY).connect(&clients, &server.gateway).await;
    for name in [
        json!(format!("{id} ")),
        json!(format!("0{id}")),
        json!(format!("{id}e0")),
        json!(format!("+{id}")),
        json!(format!("0x{id}")),
        json!(-1),
        json!(9_223_372_036_854_775_808_u64),
        json!([id]),
        json!({"id": id}),
        json!("__proto__"),
        json!(1.5),
        json!(null),
        json!(true),
    ] {
        for (event, member) in
            [("join_room", "locationId"), ("leave_room", "locationId"), ("chat", "roomName")]
        {
            let ack = stranger.ask(event, json!({member: name, "message": 1})).await;
            assert_eq!(code(&ack), "invalid_payload", "{event} {name}");
        }
    }
    assert_eq!(stranger.drain().await, Vec::<Value>::new());
    server.stop().await;
}

async fn a_share_link_opens_nothing_but_its_location(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let clients = Clients::start();
    let (owner, mallory) = (Pass::user(OWNER), Pass::user(MALLORY));
    let (id, other) = (owner.create(&server).await, owner.create(&server).await);
    let theirs = mallory.create(&server).await;
    owner.mv(&server, id).await;
    let share = owner.share(&server, id, json!({})).await;
    let (secret, number) = (share["token"].as_str().expect("a token"), &share["id"]);
    let guest = Pass::of(&share);
    for path in [
        format!("/location/{other}"),
        format!("/location/{other}/history"),
        format!("/location/{theirs}"),
        format!("/location/{other}?share={secret}"),
    ] {
        let refused = Problem::of(guest.send(&server, Method::GET, &path, None).await).await;
        Problem::check(refused, StatusCode::NOT_FOUND, Code::NotFound, &path);
    }
    // By way of one's own location, that of another cannot be ended.
    for path in [format!("/location/{theirs}/shares/{number}"), format!("/location/{id}/shares/{number}")] {
        let refused = Problem::of(mallory.send(&server, Method::DELETE, &path, None).await).await;
        Problem::check(refused, StatusCode::NOT_FOUND, Code::NotFound, &path);
    }
    // Whatever else is known of it.
    let hash = {
        use sha2::{Digest, Sha256};
        Sha256::digest(secret)
    };
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let swapped: String = secret
        .chars()
        .map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
        .collect();
    let like = [
        number.to_string(),
        hex,
        format!("{secret}="),
        format!("{secret}A"),
        secret[1..].to_owned(),
        swapped,
        "%".to_owned(),
        "' OR 1=1 --".to_owned(),
        "null".to_owned(),
        String::new(),
        token(OWNER),
        "x".repeat(60_000),
    ];
    for share in like {
        let path = format!("/location/{id}");
        let refused =
            Problem::of(Pass::Share(share.clone(), None).send(&server, Method::GET, &path, None).await).await;
        let refused = Problem::check(refused, StatusCode::UNAUTHORIZED, Code::InvalidShare, &share);
        assert!(share.len() < 9 || !refused.detail.contains(&share), "{refused:?}");
        let said = knock(&server, &[("share", &share)], &HeaderMap::new(), "").await;
        assert_eq!(said, Err("invalid_share".to_owned()), "{share:.100}");
    }
    for kind in KINDS {
        let mut client = guest.connect_as(&clients, kind, &server.gateway).await;
        for (event, payload, refused) in [
            ("join_room", json!({"locationId": other}), "not_found"),
            ("join_room", json!({"locationId": other, "since": 0}), "not_found"),
            ("join_room", json!({"locationId": theirs, "userId": MALLORY}), "not_found"),
            ("chat", json!({"message": 1, "roomName": other.to_string()}), "not_in_room"),
            ("authenticate", json!({"token": token(1)}), "invalid_token"),
            ("authenticate", json!({"token": mint(1, None, true)}), "invalid_token"),
            ("authenticate", json!({"token": secret}), "invalid_token"),
        ] {
            let ack = client.ask(event, payload.clone()).await;
            assert_eq!(code(&ack), refused, "{kind:?} {event} {payload}");
        }
        // Nobody, whatever it says.
        client.ask("join", json!({"userId": OWNER})).await;
        let ack = client.ask("join_room", json!({"locationId": id, "since": 0, "userId": OWNER})).await;
        assert_eq!(ack, json!({"roomName": id.to_string(), "version": 2, "recovered": false}), "{kind:?}");
        assert_eq!(client.event("chat").await["version"], 2, "{kind:?}");
        assert_eq!(client.drain().await, Vec::<Value>::new(), "{kind:?}");
        client.disconnect();
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_replaced_counts_until_it_is_taken_away() {
    const NEW: &str = "newer-newer-newer-newer-newer-newer";
    let claims = json!({"sub": OWNER, "exp": in_seconds(3_600)});
    let hs256 = json!({"alg": "HS256"});
    let [old, new] = [SECRET, NEW].map(|secret| signed(&hs256, &claims, secret.as_bytes()));
    let (yes, no) = (Ok(()), Err("invalid_token".to_owned()));
    let mut server = TestServer::start_with(Db::Sqlite, LOCKED).await;
    let id = Pass::Token(old.clone()).create(&server).await;
    let both = format!("{NEW} {SECRET}");
    for (secrets, of_old, of_new) in [(SECRET, &yes, &no), (&both, &yes, &yes), (NEW, &no, &yes)] {
        server = TestServer::start_on(server.halt().await, &[("JWT_SECRET", secrets)]).await;
        for (token, expected) in [(&old, of_old), (&new, of_new)] {
            let said = tried(&server, id, token).await;
            assert_eq!(said.len(), 4);
            assert!(said.iter().all(|said| said == expected), "{said:?}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_said_or_logged_has_a_secret_or_anothers_socket() {
    const PASSWORD: &str = "correct-horse-battery-staple";
    let settings = [LOCKED, &[("RUST_LOG", "trace")]].concat();
    let (server, log) = Process::serve(Db::Sqlite, &settings).await;
    let clients = Clients::start();
    let owner = Pass::Token(mint(OWNER, Some("Ada"), false));
    let id = owner.create(&server).await;
    let room = id.to_string();
    let share = owner.share(&server, id, json!({"password": PASSWORD, "label": "a label"})).await;
    let secret = share["token"].as_str().expect("a token").to_owned();
    let guest = Pass::Share(secret.clone(), Some(PASSWORD.to_owned()));
    let admin = Pass::admin(1);
    let bad = Pass::Token(expired(MALLORY));
    let wrong = Pass::Share(secret.clone(), Some("wrong-wrong-wrong".to_owned()));
    let mut said = String::new();

    for pass in [&owner, &guest, &admin, &bad, &wrong] {
        for path in
            [format!("/location/{id}"), format!("/location/{id}/history"), format!("/location/{id}/shares")]
        {
            said += &answer(pass.send(&server, Method::GET, &path, None).await).await.1.to_string();
        }
    }
    let path = format!("/location/{id}?share={secret}");
    let with_password = server.http.get(format!("{}{path}", server.api)).header("X-Share-Password", PASSWORD);
    let (status, body) = answer(with_password.send().await.expect("an answer")).await;
    assert_eq!(status, StatusCode::OK);
    said += &body.to_string();

    let mut sockets = Vec::new();
    for kind in KINDS {
        for pass in [&owner, &guest, &admin] {
            let mut client = pass.open(&clients, kind, &server.gateway);
            let own_id = client.connected().await;
            client.emit_for_ack("join", json!({"userId": 7}));
            client.emit_for_ack("join_room", json!({"locationId": id}));
            client.emit_for_ack("chat", json!({"message": "hello", "roomName": room}));
            client.emit_for_ack("authenticate", json!({"token": mint(OWNER, None, false)}));
            client.emit_for_ack("authenticate", json!({"token": expired(OWNER)}));
            client.emit("no_such_event", json!({"token": token(OWNER)}));
            client.emit("join_room", json!({"locationId": secret}));
            sockets.push((client, own_id, String::new()));
        }
        for pass in [&bad, &wrong] {
            let mut client = pass.open(&clients, kind, &server.gateway);
            said += &refusal(&mut client).await;
        }
        let query = format!("{}/?token={}&share={secret}", server.gateway, token(OWNER));
        let mut client = clients.open(kind.0, &query, json!({"transports": [kind.1]}));
        client.connected().await;
        client.kill();
    }
    owner.mv(&server, id).await;
    for (client, _, seen) in &mut sockets {
        *seen += &json!(client.drain().await).to_string();
    }
    owner.must(&server, Method::DELETE, &format!("/location/{id}/shares/{}", share["id"]), None).await;
    sockets[0].0.kill();
    for (client, _, seen) in &mut sockets[1..] {
        *seen += &json!(client.drain().await).to_string();
        client.disconnect();
    }
    server.stop().await;
    let log: Vec<String> = log.whole().await.iter().map(Value::to_string).collect();
    assert!(log.iter().any(|line| line.contains("TRACE")) && log.len() > 100, "{} lines", log.len());

    let signature = |token: &str| token.rsplit_once('.').expect("a token").1.to_owned();
    let claims = |token: &str| token.split('.').nth(1).expect("a token").to_owned();
    let mut hidden = vec![
        SECRET.to_owned(),
        PASSWORD.to_owned(),
        secret.clone(),
        "wrong-wrong-wrong".to_owned(),
        "$argon2".to_owned(),
    ];
    for pass in [&owner, &admin, &bad] {
        let Pass::Token(token) = pass else { unreachable!() };
        hidden.extend([signature(token), claims(token)]);
    }
    hidden.extend(sockets.iter().map(|(_, own_id, _)| own_id.clone()));
    for line in &log {
        let found = hidden.iter().find(|hidden| line.contains(hidden.as_str()));
        assert!(found.is_none(), "{found:?} in {line}");
    }
    // Whoever tries a thing knows it: what is said has nothing else.
    let of_others = |text: &str, own: &str| {
        hidden.iter().find(|hidden| *hidden != own && text.contains(hidden.as_str())).cloned()
    };
    assert_eq!(of_others(&said, ""), None);
    for (_, own_id, seen) in &sockets {
        assert!(seen.contains(own_id.as_str()), "told by `join`");
        assert_eq!(of_others(seen, own_id), None);
    }
}
