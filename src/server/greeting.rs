//! The text that a person reads after the start: commands to try, with the addresses that the server has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::domain::token::Keys;

/// Returns commands that create a location, join its room and move it, as this server takes them.
pub fn greeting(api: SocketAddr, gateway: SocketAddr, keys: Option<&Keys>) -> String {
    let (api, gateway) = (from_this_machine(api), from_this_machine(gateway));
    let token = match keys {
        None => "",
        Some(keys) if keys.can_mint() => {
            "  TOKEN=$(georoom token --user 1)   # with the server's JWT_SECRET\n"
        }
        Some(_) => "  TOKEN=…   # of whoever has the private key of JWT_PUBLIC_KEY_FILE\n",
    };
    // With a key the API answers 401 to a browser, which sends no token.
    let (header, auth, link) = match keys {
        None => ("", "", format!("All locations, in a browser: http://{api}/location")),
        Some(_) => (
            " -H \"Authorization: Bearer $TOKEN\"",
            ", { auth: { token: TOKEN } }",
            format!("The gateway, in a browser: http://{gateway}/"),
        ),
    };
    let send = |method: &str, path: &str, body: &str| {
        format!(
            "  curl -X {method} http://{api}{path} -H 'Content-Type: application/json'{header} \\\n       -d '{body}'\n"
        )
    };
    let create =
        r#"{"geometry": {"type": "Point", "coordinates": [13.4, 52.5]}, "properties": {"name": "bike"}}"#;
    let create = send("POST", "/location", create);
    let update = r#"{"geometry": {"type": "Point", "coordinates": [13.41, 52.51]}}"#;
    let update = send("PUT", "/location/1", update);
    let join = format!(
        r#"  io("http://{gateway}"{auth}).on("chat", console.log).emit("join_room", {{ locationId: 1 }})"#
    );
    format!(
        "\nTry, in another terminal:\n\n{token}{create}{update}\n\
         and join its room with any Socket.IO client:\n\n{join}\n\n{link}\n"
    )
}

/// Returns the address by which a client on this machine reaches a listener.
fn from_this_machine(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_addresses_that_clients_on_this_machine_can_reach() {
        let (api, gateway) = ("0.0.0.0:3000".parse().unwrap(), "[::]:3030".parse().unwrap());
        let text = greeting(api, gateway, None);
        assert!(
            text.contains("http://127.0.0.1:3000/location") && text.contains("http://[::1]:3030"),
            "{text}"
        );
        assert!(!text.contains("TOKEN"), "{text}");
    }
}
