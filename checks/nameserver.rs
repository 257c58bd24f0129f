//! Which name server a check asks: the one that is said, or the machine's own first one (resolv.conf(5)).

use std::io;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::checks::connect::Trouble;

/// The port of name servers.
pub(super) const PORT: u16 = 53;
/// What is read of resolv.conf.
const RESOLV_CONF_BYTES_MAX: u64 = 64 << 10;

/// A name server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
}

/// `127.0.0.1`, `127.0.0.1:53`, `::1`, `[::1]`, `[::1]:53`, `ns.example.com`, `ns.example.com:53`.
pub(super) fn server(text: &str) -> Option<Server> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Ok(address) = bracketed.unwrap_or(text).parse::<IpAddr>() {
        return Some(Server { host: address.to_string(), port: PORT });
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(Server { host: address.ip().to_string(), port: address.port() })
            .filter(|server| server.port > 0);
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)?),
        None => (text, PORT),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (!host.is_empty() && host.chars().all(is_name)).then(|| Server { host: host.to_owned(), port })
}

/// The server that the machine's own resolver asks first.
pub(super) async fn first_server() -> Result<Server, Trouble> {
    let read = || {
        let mut text = String::new();
        let file = std::fs::File::open("/etc/resolv.conf")?;
        io::Read::read_to_string(&mut io::Read::take(file, RESOLV_CONF_BYTES_MAX), &mut text)?;
        Ok(text)
    };
    let text = tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(error.into()));
    let text = text.map_err(|error: io::Error| {
        Trouble::Unknown(format!(
            "failed to read /etc/resolv.conf: {error}; say which `server` to ask"
        ))
    })?;
    let address = nameserver(&text).ok_or_else(|| {
        Trouble::Unknown("/etc/resolv.conf names no server; say which `server` to ask".to_owned())
    })?;
    Ok(Server { host: address.to_string(), port: PORT })
}

fn nameserver(resolv_conf: &str) -> Option<IpAddr> {
    resolv_conf.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn servers_are_addresses_or_names() {
        let shown = |text| server(text).map(|server| format!("{} {}", server.host, server.port));
        for (text, expected) in [
            ("127.0.0.1", "127.0.0.1 53"),
            ("127.0.0.1:5353", "127.0.0.1 5353"),
            ("::1", "::1 53"),
            ("[::1]", "::1 53"),
            ("[::1]:5353", "::1 5353"),
            ("ns1.example.com", "ns1.example.com 53"),
            ("ns1.example.com:5353", "ns1.example.com 5353"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected));
        }
        for wrong in
            ["", ":53", "ns:0", "1.1.1.1:0", "ns:70000", "ns:x", "a b", "[::1", "fe80::1%eth0"]
        {
            assert_eq!(server(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_first_server_of_resolv_conf_is_the_first_that_is_one() {
        let text =
            "# nameserver 1.1.1.1\noptions edns0\nnameserver\nnameserver\t::1\nnameserver 2.2.2.2";
        assert_eq!(nameserver(text), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        assert_eq!(nameserver("nameservers 1.1.1.1\nsearch example.com"), None);
    }
}
