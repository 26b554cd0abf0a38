//! Bodies that are too large, and requests whose other parts are wrong.

use super::*;

impl Table {
    pub(super) fn sizes(&mut self) {
        let too_large = (413, Code::PayloadTooLarge, None);
        for (method, path) in [POST, PUT, PUT_BY_PATH] {
            let id = self.id;
            let body = format!(r#"{{"id":{id},"geometry":{POINT}}}"#);
            self.row("a byte over 1 MiB", method.clone(), path, padded(&body, MIB + 1), too_large);
            self.row("3 MiB", method.clone(), path, padded(&body, 3 * MIB), too_large);
            self.row("1 MiB of nothing and a byte", method, path, vec![b' '; MIB + 1], too_large);
        }

        let properties = properties_of(PROPERTIES + 1);
        let members = format!(r#""geometry":{POINT},"properties":{properties}"#);
        self.members("properties a byte over 64 KiB", &members, Code::PropertiesTooLarge, "/properties");
        let many: Vec<String> = (0..9_000).map(|n| format!(r#""k{n}":{n}"#)).collect();
        let members = format!(r#""geometry":{POINT},"properties":{{{}}}"#, many.join(","));
        self.members("many properties", &members, Code::PropertiesTooLarge, "/properties");
        // The location has 40 KiB of its own.
        let members = format!(r#""id":$id,"properties":{{"more":"{}"}}"#, "x".repeat(30 * 1024));
        self.put(
            "too much after the merge",
            &format!("{{{members}}}"),
            Code::PropertiesTooLarge,
            "/properties",
        );
        let members = format!(r#"{members},"geometry":{POINT}"#);
        self.put("too much, and a move", &format!("{{{members}}}"), Code::PropertiesTooLarge, "/properties");
    }

    pub(super) fn content_types(&mut self) {
        for kind in [
            &b"text/plain"[..],
            b"text/plain;charset=UTF-8",
            b"application/x-www-form-urlencoded",
            b"multipart/form-data; boundary=x",
            b"application/xml",
            b"application/octet-stream",
            b"application/jsonp",
            b"application/geo",
            b"text/html, application/json",
            b"json",
            b"*/*",
            b"text/caf\xe9",
        ] {
            for (method, path) in [POST, PUT, PUT_BY_PATH] {
                let body = format!(r#"{{"id":{},"geometry":{POINT}}}"#, self.id);
                let name = format!("Content-Type: {}", kind.escape_ascii());
                let row = self.row(&name, method, path, body, (415, Code::UnsupportedMediaType, None));
                row.content_type = Some(kind);
            }
        }
        for coding in ["gzip", "br", "deflate, gzip", "identity, zstd", "x"] {
            for (method, path) in [POST, PUT, PUT_BY_PATH] {
                let body = format!(r#"{{"id":{},"geometry":{POINT}}}"#, self.id);
                let name = format!("Content-Encoding: {coding}");
                let row = self.row(&name, method, path, body, (415, Code::UnsupportedMediaType, None));
                (row.content_encoding, row.says) = (Some(coding), "Content-Encoding");
            }
        }
    }

    pub(super) fn updates(&mut self) {
        let id = self.id;
        let other = format!(r#"{{"id":{},"geometry":{POINT}}}"#, id + 1);
        let good = format!(r#"{{"geometry":{POINT}}}"#);
        self.row("another id", Method::PUT, "/location/{id}", &*other, (422, Code::IdMismatch, Some("/id")));
        let unknown = (404, Code::NotFound, None);
        self.row("an id that is none's", Method::PUT, "/location", &*other, unknown);
        let largest = format!(r#"{{"id":9007199254740991,"geometry":{POINT}}}"#);
        self.row("the largest id", Method::PUT, "/location", largest, unknown);
        for path in [
            "/location/{id}9",
            "/location/9007199254740991",
            "/location/9007199254740992",
            "/location/18446744073709551616",
            "/location/0",
            "/location/0{id}",
            "/location/+{id}",
            "/location/-{id}",
            "/location/{id}.0",
            "/location/{id}e0",
            "/location/abc",
            "/location/null",
            "/location/%20{id}",
            "/location/%FF",
        ] {
            self.row("a path to none", Method::PUT, path, &*good, unknown);
        }
    }

    /// What is wrong with the rest of the request, the body being good.
    pub(super) fn requests(&mut self) {
        let good = format!(r#"{{"geometry":{POINT}}}"#);
        let no_method = (405, Code::MethodNotAllowed, None);
        for (method, path) in [
            (Method::PATCH, "/location"),
            (Method::DELETE, "/location"),
            (Method::POST, "/location/{id}"),
            (Method::PATCH, "/location/{id}"),
        ] {
            self.row("a method it does not have", method, path, &*good, no_method);
        }
        for (method, path) in
            [(Method::POST, "/locations"), (Method::PUT, "/"), (Method::PUT, "/location/{id}/geometry")]
        {
            self.row("no such path", method, path, &*good, (404, Code::NotFound, None));
        }
        let role = (422, Code::InvalidMember, Some("/role"));
        for body in [r#"{"role":"owner"}"#, r#"{"role":2}"#, "{}"] {
            self.row("a role of no member", Method::PUT, "/location/{id}/members/2", body, role);
        }
        let expires_at = (422, Code::InvalidExpiresAt, Some("/expiresAt"));
        for body in ["{}", r#"{"expiresAt":"soon"}"#, r#"{"expiresAt":"2000-01-01T00:00:00Z"}"#] {
            self.row("a share without end", Method::POST, "/location/{id}/shares", body, expires_at);
        }
        let bad_parameter = (422, Code::InvalidParameter, None);
        self.row("a bad parameter", Method::GET, "/location?perPage=101", "", bad_parameter);
        let bad_user = (422, Code::InvalidUserId, None);
        self.row("a bad user", Method::DELETE, "/location/{id}?userId=me", "", bad_user);
    }
}
