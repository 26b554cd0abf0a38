//! Cases that the unit tests of `src/domain` and the end-to-end tests of `tests/api` share: each body is decoded there,
//! and sent to a server here.

pub mod bodies;
pub mod geometries;
pub mod rfc7946;

use super::error::Code;

/// A geometry that is good.
pub const POINT: &str = r#"{"type":"Point","coordinates":[13.4,52.5]}"#;

/// Takes refused bodies, each with its code and the JSON Pointer (RFC 6901) to the fault.
pub trait Refusals {
    /// A body that is no JSON, whatever it is sent to.
    fn not_json(&mut self, name: &str, body: impl AsRef<[u8]>);

    /// A body that `POST` refuses.
    fn post(&mut self, name: &str, body: &str, code: Code, pointer: &str);

    /// A body that `PUT` with the location's id in the path refuses; the id stands in it as `$id`.
    fn put_by_path(&mut self, name: &str, body: &str, code: Code, pointer: &str);

    /// A body that `PUT` without an id in the path refuses; the location's id stands in it as `$id`.
    fn put(&mut self, name: &str, body: &str, code: Code, pointer: &str);

    /// Sets a text that the details of the following cases must have; after a `!`, one that they must not have.
    fn expect_detail(&mut self, words: &'static str);

    /// A body that `POST` refuses, and `PUT` with the id in the path.
    fn body(&mut self, name: &str, body: impl AsRef<str>, code: Code, pointer: &str) {
        self.post(name, body.as_ref(), code, pointer);
        self.put_by_path(name, body.as_ref(), code, pointer);
    }

    /// Members that are refused in all three bodies.
    fn members(&mut self, name: &str, members: &str, code: Code, pointer: &str) {
        self.body(name, format!("{{{members}}}"), code, pointer);
        self.put(name, &format!(r#"{{"id":$id,{members}}}"#), code, pointer);
    }

    /// A geometry; the pointer begins at it.
    fn geometry(&mut self, name: &str, geometry: impl AsRef<str>, code: Code, pointer: &str) {
        let members = format!(r#""geometry":{}"#, geometry.as_ref());
        self.members(name, &members, code, &format!("/geometry{pointer}"));
    }

    /// A geometry that has coordinates; the pointer begins at them.
    fn coordinates(&mut self, kind: &str, coordinates: &str, code: Code, pointer: &str) {
        let name = format!("{kind} {coordinates:.60}");
        let geometry = format!(r#"{{"type":"{kind}","coordinates":{coordinates}}}"#);
        self.geometry(&name, geometry, code, &format!("/coordinates{pointer}"));
    }
}
