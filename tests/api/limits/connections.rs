//! Requests that never come to an end, are too large, or whose answers nobody reads.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_never_comes_to_its_end_is_not_waited_for() {
    let settings = [("HEADER_TIMEOUT", "1s"), ("BODY_TIMEOUT", "300ms"), ("HANDSHAKE_TIMEOUT", "300ms"), ON];
    let server = TestServer::start_with(Db::Sqlite, &settings).await;
    let id = server.create_at(0.5, 0.5).await;
    let (api, gateway) = server.addrs;

    let head = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n";
    for (method, path) in [("PUT", "/location".to_owned()), ("POST", "/location".to_owned())] {
        let said = rest(sent(api, &format!("{method} {path} HTTP/1.1\r\n{head}{{\"id\":{id},")).await).await;
        assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("request_timeout"), "{method}: {said}");
    }
    assert_eq!(server.get(&format!("/location/{id}")).await.1["properties"]["version"], 1);
    assert_eq!(server.get("/location").await.1["total"], 1);

    for addr in [api, gateway] {
        assert_eq!(rest(sent(addr, "GET /healthz HTTP/1.1\r\nHost: loc").await).await, "");
    }

    let mut polling = Polling::connect(&server.gateway).await;
    let path = format!("/socket.io/?EIO=4&transport=polling&sid={}", polling.session);
    let post = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n42[");
    let said = rest(sent(gateway, &post).await).await;
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    let ack = polling.ask("join_room", &json!({"locationId": id})).await;
    assert!(ack.contains(&id.to_string()), "still there: {ack}");

    // A connection that does not become a socket.
    let mut mute = WebSocket::open(&server.gateway, "/socket.io/", None, false).await;
    assert!(mute.text().await.expect("open").starts_with('0'));
    assert_eq!(mute.text().await.as_deref(), Some("1"), "closed");
    assert_eq!(mute.text().await, None, "the end");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_not_read() {
    const MIB: usize = 1024 * 1024;
    let settings = [("MAX_MESSAGE_BYTES", "40000"), ON];
    let server = TestServer::start_with(Db::Sqlite, &settings).await;
    let id = server.create_at(0.5, 0.5).await;
    let chat = |length: usize| {
        let message = "x".repeat(length);
        format!(r#"42["chat",{{"message":"{message}","roomName":{id}}}]"#)
    };
    let mut fits = WebSocket::connect(&server.gateway).await;
    fits.join(&[id]).await;
    fits.send(&chat(16_000)).await;
    assert!(matches!(fits.next().await, Seen::Relayed(_)));
    // In one frame, in two, and in a frame that says it is 64 MiB long.
    let large = chat(40_000);
    let (first, second) = large.as_bytes().split_at(20_000);
    for bytes in [
        frame(1, true, large.as_bytes()),
        [frame(1, false, first), frame(0, true, second)].concat(),
        [&[0x81, 0xff][..], &(64 * MIB as u64).to_be_bytes(), &[0; 4]].concat(),
    ] {
        let mut socket = WebSocket::connect(&server.gateway).await;
        // It may end before all of it is sent.
        let _ = socket.try_raw(&bytes).await;
        while socket.try_raw(&[0; 4096]).await.is_ok() {}
        while !matches!(socket.next().await, Seen::End) {}
    }
    let polling = Polling::connect(&server.gateway).await;
    let url = format!("{}/socket.io/?EIO=4&transport=polling&sid={}", server.gateway, polling.session);
    let answer = server.http.post(url).body(vec![b'4'; 64 * MIB]).send().await;
    // Or the connection has ended before the answer could be read.
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == StatusCode::PAYLOAD_TOO_LARGE));
    let polling = Polling::connect(&server.gateway).await;
    let url = format!("{}/socket.io/?EIO=4&transport=polling&sid={}", server.gateway, polling.session);
    let answer = server.http.post(url).body(format!("4{}", &large[1..])).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE, "one message of it");
    assert!(counted(&server, "bytes").await >= 1);
    fits.send(&chat(16_000)).await;
    assert!(matches!(fits.next().await, Seen::Relayed(_)));
    server.stop().await;
}

/// An answer that nobody reads is given up.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_reads_is_given_up() {
    let server =
        TestServer::start_with(Db::Sqlite, &[("BODY_TIMEOUT", "1s"), ("HEADER_TIMEOUT", "60s"), ON]).await;
    let id = server.create_at(0.5, 0.5).await;
    let pad = json!({"id": id, "properties": {"pad": "x".repeat(60_000)}});
    for _ in 0..60 {
        assert_eq!(server.put(&pad).await.0, StatusCode::CREATED);
    }
    let request = format!("GET /location/{id}/history HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a socket");
    let mut stream = socket.connect(server.addrs.0).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("to write");
    // Others are those of the test's own client, which come and go.
    let port = stream.local_addr().expect("an address").port();
    let started = Instant::now();
    while not_ended(&server.api).contains(&port) {
        assert!(started.elapsed() < PATIENCE, "given up");
        sleep(Duration::from_millis(20)).await;
    }
    // It has begun, and there was more.
    let mut byte = [0];
    assert_eq!(stream.read(&mut byte).await.expect("a beginning"), 1);
    server.stop().await;
}

/// A page whose name was made to resolve to this machine is no other origin for its browser.
#[tokio::test(flavor = "multi_thread")]
async fn open_mode_on_loopback_answers_to_no_foreign_name() {
    let open = TestServer::start(Db::Sqlite).await;
    let asked = TestServer::start_with(Db::Sqlite, &[("OPEN_MODE", "true")]).await;
    let locked = TestServer::start_with(Db::Sqlite, &[KEY]).await;
    let (api, gateway) = ("/location?perPage=1", "/socket.io/?EIO=4&transport=polling");
    for (host, is_served) in [("evil.example:3000", false), ("localhost:3000", true), ("127.0.0.1", true)] {
        for server in [&open, &asked, &locked] {
            let is_refused = !is_served && std::ptr::eq(server, &raw const open);
            for (addr, path) in [(server.addrs.0, api), (server.addrs.1, gateway)] {
                let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
                let said = rest(sent(addr, &request).await).await;
                assert_eq!(said.starts_with("HTTP/1.1 421 "), is_refused, "{host} {path}: {said}");
            }
        }
    }
    for server in [open, asked, locked] {
        server.stop().await;
    }
}
