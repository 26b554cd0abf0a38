//! Bodies in chunks, of a wrong length, and without end.

use super::*;

on_one_database!(
    chunked_bodies_are_bodies,
    a_wrong_content_length_harms_nobody,
    a_body_that_never_ends_does_not_keep_the_server_from_stopping,
);

async fn chunked_bodies_are_bodies(db: Db) {
    let server = TestServer::start(db).await;
    let post = |chunks: Vec<Vec<u8>>| {
        let body = Body::wrap_stream(stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>)));
        server.http.post(format!("{}/location", server.api)).body(body).send()
    };
    let good = format!(r#"{{"geometry":{POINT},"properties":{{"name":"⛰ é 🚌"}}}}"#).into_bytes();
    let created = async |response: Response| {
        let (status, made) = answer(response).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        assert_eq!(made["data"]["location"]["properties"]["name"], "⛰ é 🚌");
    };
    created(post(vec![good.clone()]).await.expect("an answer")).await;
    created(post(good.chunks(1).map(<[u8]>::to_vec).collect()).await.expect("an answer")).await;
    let mut made = 2;

    // Cut at every byte, each part a chunk and a packet of its own.
    let head = "POST /location HTTP/1.1\r\nHost: georoom\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut connection = Raw::connect(&server).await;
    for cut in 1..good.len() {
        connection.write(head.as_bytes()).await;
        for part in [&good[..cut], &good[cut..]] {
            connection.write(format!("{:x}\r\n", part.len()).as_bytes()).await;
            connection.write(part).await;
            connection.write(b"\r\n").await;
        }
        connection.write(b"0\r\n\r\n").await;
        let (status, answer) = connection.answer().await.expect("an answer");
        assert_eq!(status, 201, "cut at {cut}: {answer}");
        made += 1;
    }

    let many = |length: usize| padded(str::from_utf8(&good).expect("UTF-8"), length);
    created(post(many(MIB).chunks(4096).map(<[u8]>::to_vec).collect()).await.expect("an answer")).await;
    made += 1;
    for length in [MIB + 1, 3 * MIB] {
        let chunks = many(length).chunks(4096).map(<[u8]>::to_vec).collect();
        let answer = Problem::of(post(chunks).await.expect("an answer")).await;
        Problem::check(answer, StatusCode::PAYLOAD_TOO_LARGE, Code::PayloadTooLarge, "chunked");
    }
    let answer = Problem::of(post(vec![good[..40].to_vec()]).await.expect("an answer")).await;
    Problem::check(answer, StatusCode::BAD_REQUEST, Code::InvalidJson, "half a body, chunked");
    assert_eq!(server.get("/location?perPage=1").await.1["total"], made);

    // No such chunk: nothing is made, and the connection comes to its end.
    for chunks in ["zz\r\n{}\r\n0\r\n\r\n", "-1\r\n\r\n", "ffffffffffffffffff\r\n"] {
        let mut connection = Raw::connect(&server).await;
        connection.write(head.as_bytes()).await;
        connection.write(chunks.as_bytes()).await;
        if let Some((status, answer)) = connection.answer().await {
            assert_eq!(status, 400, "{chunks:?}: {answer}");
        }
    }
    assert_eq!(server.get("/location?perPage=1").await.1["total"], made);
    server.stop().await;
}

async fn a_wrong_content_length_harms_nobody(db: Db) {
    let server = TestServer::start(db).await;
    let id = target(&server).await;
    let before = state(&server, id).await;
    let body = format!(r#"{{"id":{id},"geometry":{POINT}}}"#);
    let request = |method: &str, length: &str| {
        format!(
            "{method} /location HTTP/1.1\r\nHost: georoom\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    for method in ["POST", "PUT"] {
        // Too short: half an object, and the rest is no request.
        for cut in [1, 5, body.len()] {
            let mut connection = Raw::connect(&server).await;
            connection.write(request(method, &(body.len() - cut).to_string()).as_bytes()).await;
            let (status, answer) = connection.answer().await.expect("an answer");
            assert_eq!((status, &answer["code"]), (400, &json!("invalid_json")), "{method} -{cut}: {answer}");
        }
        // Too long, and then the client hangs up.
        let mut connection = Raw::connect(&server).await;
        connection.write(request(method, &(body.len() + 10).to_string()).as_bytes()).await;
        connection.0.shutdown().await.expect("to hang up");
        if let Some((status, answer)) = connection.answer().await {
            assert_eq!(status, 400, "{method}: {answer}");
        }
        for length in ["-1", "abc", "1e3", "18446744073709551616", "10, 20"] {
            let mut connection = Raw::connect(&server).await;
            connection.write(request(method, length).as_bytes()).await;
            let (status, answer) = connection.answer().await.expect("an answer");
            assert_eq!(status, 400, "{method} {length}: {answer}");
        }
        assert_eq!(state(&server, id).await, before, "{method}");
    }
    server.stop().await;
}

async fn a_body_that_never_ends_does_not_keep_the_server_from_stopping(db: Db) {
    noise::expect(&[IN_FLIGHT]);
    let server = TestServer::start(db).await;
    let id = server.create_at(1.0, 2.0).await;
    let mut connection = Raw::connect(&server).await;
    connection
        .write(format!("PUT /location/{id} HTTP/1.1\r\nHost: georoom\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n").as_bytes())
        .await;
    // The server asks for the body, so the request is in flight.
    let (status, _) = connection.answer().await.expect("an answer");
    assert_eq!(status, 100);
    connection.write(br#"{"geometry":"#).await;
    assert_eq!(server.get(&format!("/location/{id}")).await.1["properties"]["version"], 1);
    timeout(Duration::from_secs(10), server.stop()).await.expect("to stop within 10 s");
}

/// A connection on which everything can be written.
struct Raw(TcpStream);

impl Raw {
    async fn connect(server: &TestServer) -> Self {
        let stream = TcpStream::connect(server.addrs.0).await.expect("to connect");
        stream.set_nodelay(true).expect("a socket");
        Self(stream)
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("to write");
    }

    /// One answer, its body as JSON if it is; `None` where the connection ended instead.
    async fn answer(&mut self) -> Option<(u16, Value)> {
        let read = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(self.0.read_u8().await.ok()?);
            }
            let head = String::from_utf8(head).expect("a head of ASCII").to_ascii_lowercase();
            let status = head.split(' ').nth(1)?.parse().expect("a status");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length = length.map_or(0, |length| length.trim().parse().expect("a length"));
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.ok()?;
            Some((status, serde_json::from_slice(&body).unwrap_or_default()))
        };
        timeout(PATIENCE, read).await.expect("an answer or an end")
    }
}
