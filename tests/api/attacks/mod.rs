//! What must not get in, by either door, and what nobody may be told.

mod ids;
mod secrets;

use georoom::domain::error::Code;
use reqwest::{
    Method, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Value, json};

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

fn expired(user: u64) -> String {
    let claims = json!({"sub": user, "exp": in_seconds(-60)});
    signed(&json!({"alg": "HS256"}), &claims, SECRET.as_bytes())
}
