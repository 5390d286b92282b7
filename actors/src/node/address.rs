//! Which address a node tells the others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use crate::api::ApiError;

/// The port of a node if none is said.
pub const PORT_DEFAULT: u16 = 2377;

/// Resolve `host[:port]`.
///
/// # Errors
/// If it is malformed or its name does not resolve.
pub fn resolve(text: &str, port: u16) -> Result<SocketAddr, ApiError> {
    let bad = |why: String| ApiError::Invalid(format!("invalid address {text:?}: {why}"));
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(addr);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    let with_port = if text.contains(':') { text.to_owned() } else { format!("{text}:{port}") };
    let mut found = with_port.to_socket_addrs().map_err(|error| bad(error.to_string()))?;
    found.next().ok_or_else(|| bad("the name has no address".into()))
}

/// The address to advertise: what was said, or the address listened on, or that of the route to `towards`.
///
/// # Errors
/// If nothing was said and nothing can be found out.
pub fn choose(
    said: Option<&str>,
    listen: SocketAddr,
    towards: Option<SocketAddr>,
) -> Result<SocketAddr, ApiError> {
    if let Some(said) = said {
        let addr = resolve(said, listen.port())?;
        if addr.ip().is_unspecified() {
            return Err(ApiError::Invalid(format!(
                "advertise address {said:?} must be one that others can reach"
            )));
        }
        return Ok(addr);
    }
    if !listen.ip().is_unspecified() {
        return Ok(listen);
    }
    let towards = towards.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9)));
    let any: IpAddr =
        if towards.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // Connecting a UDP socket sends nothing: it asks the kernel for the route's source address.
    let found = UdpSocket::bind((any, 0)).and_then(|s| s.connect(towards).and_then(|()| s.local_addr()));
    match found {
        Ok(addr) if !addr.ip().is_unspecified() => Ok(SocketAddr::new(addr.ip(), listen.port())),
        _ => Err(ApiError::Invalid(
            "could not choose an IP address to advertise: say one with --advertise ADDR[:PORT] (or --advertise-addr)".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_taken_with_the_listening_port() {
        let listen = "0.0.0.0:2400".parse().unwrap();
        assert_eq!(choose(Some("10.1.2.3"), listen, None), Ok("10.1.2.3:2400".parse().unwrap()));
        assert_eq!(choose(Some("10.1.2.3:9"), listen, None), Ok("10.1.2.3:9".parse().unwrap()));
        assert_eq!(choose(Some("[fd00::1]:9"), listen, None), Ok("[fd00::1]:9".parse().unwrap()));
        assert_eq!(choose(Some("fd00::1"), listen, None), Ok("[fd00::1]:2400".parse().unwrap()));
    }

    #[test]
    fn an_unreachable_address_is_refused() {
        assert!(choose(Some("0.0.0.0"), "0.0.0.0:2377".parse().unwrap(), None).is_err());
    }

    #[test]
    fn the_listening_address_serves_if_it_is_one() {
        let listen = "127.0.0.2:2377".parse().unwrap();
        assert_eq!(choose(None, listen, None), Ok(listen));
    }

    #[test]
    fn the_route_to_a_manager_tells_the_address() {
        let towards = "127.0.0.1:2377".parse().unwrap();
        assert_eq!(
            choose(None, "0.0.0.0:5".parse().unwrap(), Some(towards)),
            Ok("127.0.0.1:5".parse().unwrap())
        );
    }
}
