//! Texts and geometries of every kind, and very large ones, written beside others.

use super::*;

on_both_databases!(
    text_of_every_kind_is_kept_as_it_was_sent,
    every_geometry_is_kept_bit_for_bit_amid_others,
    a_large_body_among_small_ones_fails_nobody,
    as_many_large_bodies_as_come_are_all_committed,
);

/// Text that is something else to SQL, to JSON or to a character set.
fn texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "",
        " ",
        "'",
        "''",
        "\"",
        "`",
        "\\",
        "\\\\",
        "\\'",
        "\\\"",
        "'\\",
        "\\0",
        "\u{0}",
        "a\u{0}b",
        "\u{1a}",
        "\r\n\t\u{8}\u{c}",
        "\u{7f}\u{80}\u{9f}",
        "'; DROP TABLE location; --",
        "'), (1, 1, 1, 1, 1, 1, 1); -- ",
        "\\'); DELETE FROM history; #",
        "*/ DROP TABLE history; /*",
        "/*!50000 DROP TABLE history */",
        "x'4142'",
        "_utf8mb4 x'4142'",
        "0x4142",
        "?",
        "?1 :name @name $1 %s {} {0}",
        "NULL",
        "null",
        "\\N",
        "true",
        "{\"version\":7}",
        "$[*]",
        "\\ud800",
        "\\ud83d\\ude8c",
        "\\u0000",
        "\u{1f68c}",
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
        "\u{10ffff}\u{ffff}\u{fffe}\u{fffd}",
        "\u{feff}",
        "\u{2028}\u{2029}",
        "\u{202e}abc",
        "é e\u{301} ß İ ı ǅ",
        "中文 العربية עברית ไทย",
    ]
    .map(str::to_owned)
    .to_vec();
    for long in ["'", "\\", "\u{1f68c}", "\u{0}", "ab"] {
        texts.push(long.repeat(60_000 / json!(long).to_string().len()));
    }
    texts
}

/// The same text with every character escaped, those beyond the first 65,536 as surrogates.
fn escaped(text: &str) -> String {
    let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    format!("\"{units}\"")
}

async fn text_of_every_kind_is_kept_as_it_was_sent(db: Db) {
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let clients = Clients::start();
    let texts = texts();
    let shared = server.create_at(0.5, 0.5).await;
    let own = make(&server, texts.len()).await;
    let mut member = clients.connect(&server.gateway).await;
    member.join(shared).await;
    let put = async |id: u64, text: &str, properties: String| {
        let body = format!(r#"{{"id":{id},"geometry":{},"properties":{properties}}}"#, point(0.5, 1.5));
        let answer = server.http.put(format!("{}/location", server.api)).body(body);
        let answer = answer.send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::CREATED, "{text:.100}");
        let answer: Value = answer.json().await.expect("JSON");
        let feature = answer["data"]["updatedLocationResult"].clone();
        assert_eq!(feature["properties"]["text"], *text, "{text:.100}");
        feature
    };
    // All at once: as they are and escaped, as a value of one location and as a name in another.
    let mut answers = join_all(texts.iter().zip(&own).map(async |(text, id)| {
        let value = json!(text).to_string();
        let a = put(shared, text, format!(r#"{{"text":{value}}}"#)).await;
        let b = match text.len() < 10_000 {
            true => put(shared, text, format!(r#"{{"text":{}}}"#, escaped(text))).await,
            false => put(shared, text, format!(r#"{{"text":{value},"more":1}}"#)).await,
        };
        let name = json!(text.chars().take(200).collect::<String>());
        let c = put(*id, text, format!(r#"{{"text":{value},"in":{{{name}:{name}}}}}"#)).await;
        assert_eq!(c["properties"]["in"], json!({name.as_str().unwrap(): name}));
        assert_eq!(server.history(*id).await[1..], [c]);
        [a, b]
    }))
    .await
    .concat();
    answers.sort_by_key(version);
    server.assert_history(shared, answers.clone()).await;
    let head = 1 + answers.len() as u64;
    for chat in member.follow_newest(shared, 1, head).await {
        assert_eq!(chat["message"], answers[chat["version"].as_u64().expect("a version") as usize - 2]);
    }
    for text in texts.iter().filter(|text| json!(text).to_string().len() < 16 * 1024) {
        let (relayed, seen) =
            member.ask_seeing("chat", json!({"roomName": shared.to_string(), "message": text})).await;
        assert_eq!(relayed["message"], *text);
        match seen.as_slice() {
            [] => assert_eq!(member.event("chat").await, relayed),
            [saw] => assert_eq!(saw["args"][0], relayed),
            more => panic!("{more:?}"),
        }
    }
    // None of it was taken for SQL.
    assert_eq!(server.get("/location").await.1["total"], 1 + texts.len());
    server.stop().await;
}

async fn every_geometry_is_kept_bit_for_bit_amid_others(db: Db) {
    const ROUNDS: usize = 6;
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let geometries = geometries();
    let ids = make(&server, geometries.len()).await;
    // Each location is each geometry in turn, and all are moved at once.
    let write = async |n: usize| {
        let mut answers = Vec::new();
        for turn in 0..ROUNDS {
            let geometry = &geometries[(n + turn) % geometries.len()];
            let answer = server.update(&server.api, &json!({"id": ids[n], "geometry": geometry})).await;
            assert!(same(&answer["geometry"], geometry), "{geometry} {answer}");
            answers.push(answer);
        }
        answers
    };
    let answers = join_all((0..ids.len()).map(write)).await;
    let mut reader = Polling::connect(&server.gateway).await;
    for (id, answers) in ids.iter().zip(&answers) {
        let (_, head) = server.get(&format!("/location/{id}")).await;
        assert!(same(&head, &answers[ROUNDS - 1]), "{head}");
        let history = server.history(*id).await;
        let ack = reader.ask("join_room", &json!({"locationId": id, "since": 1})).await;
        let recovered = json!({"roomName": id.to_string(), "version": 1 + ROUNDS, "recovered": true});
        assert_eq!(serde_json::from_str::<Value>(&ack).expect("JSON"), recovered);
        for (answer, kept) in answers.iter().zip(&history[1..]) {
            assert!(same(kept, answer), "{kept} {answer}");
            let chat: Value = serde_json::from_str(&reader.chat().await).expect("JSON");
            assert!(same(&chat["message"], answer), "{chat} {answer}");
        }
    }
    server.stop().await;
}

/// A line with altitudes, as large as a body may be.
fn large() -> (Value, String) {
    let positions: Vec<_> = (0..40_000)
        .map(|n| json!([f64::from(n % 1_000) / 1e3, f64::from(n) / 1e3, f64::from(n) + 0.5]))
        .collect();
    let geometry = json!({"type": "LineString", "coordinates": positions});
    let text = geometry.to_string();
    (geometry, text)
}

/// Sends it in a body of exactly 1 MiB, with blanks; returns the text of the answer.
async fn put_large(server: &TestServer, id: u64, geometry: &str) -> String {
    const LIMIT: usize = 1 << 20;
    let body = format!(r#"{{"id":{id},"geometry":{geometry}}}"#);
    assert!(body.len() < LIMIT, "{}", body.len());
    let blanks = " ".repeat(LIMIT - body.len());
    let answer = server.http.put(format!("{}/location", server.api)).body(body + &blanks);
    let answer = answer.send().await.expect("an answer");
    let status = answer.status();
    let text = answer.text().await.expect("text");
    assert_eq!(status, StatusCode::CREATED, "{text:.300}");
    text
}

async fn a_large_body_among_small_ones_fails_nobody(db: Db) {
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let ids = make(&server, 10).await;
    let broad = server.create_at(0.5, 0.5).await;
    let apis = [server.api.as_str()];
    let load = Load::new(&server, &apis, &ids);
    let done = AtomicBool::new(false);
    let (geometry, text) = large();
    let large = async {
        load.answers(50).await;
        for _ in 0..2 {
            put_large(&server, broad, &text).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(load.run(100, |own| own < 2 || !done.load(Ordering::Relaxed)), large);
    assert_eq!(load.check().await.refused, 0);
    let history = server.history(broad).await;
    assert_eq!(history.len(), 3);
    for kept in &history[1..] {
        assert!(same(&kept["geometry"], &geometry), "another line");
    }
    server.stop().await;
}

/// Together they are more than MySQL takes in one packet.
async fn as_many_large_bodies_as_come_are_all_committed(db: Db) {
    let _share = machine::half().await;
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let ids = make(&server, 18).await;
    let (geometry, text) = large();
    for answer in join_all(ids.iter().map(|id| put_large(&server, *id, &text))).await {
        assert!(answer.contains(r#""version":2,"#), "{}", &answer[answer.len() - 300..]);
    }
    let history = server.history(ids[17]).await;
    assert_eq!(history.len(), 2);
    assert!(same(&history[1]["geometry"], &geometry), "another line");
    server.stop().await;
}
