//! The addresses of this host.

use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use shoal_core::model::BRIDGE_PREFIX;

/// The addresses at which this host may be asked: of all interfaces but the bridges of the cluster's own networks, without those that mean
/// nothing beyond their interface.
///
/// # Errors
/// If the system does not tell them.
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let all = getifaddrs()?.filter(|found| !found.interface_name.starts_with(BRIDGE_PREFIX));
    let mut found: Vec<IpAddr> = all.filter_map(|found| ip(found.address.as_ref()?)).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    let v6 =
        || address.as_sockaddr_in6().map(|address| address.ip()).filter(|ip| !ip.is_unicast_link_local());
    v4.or_else(|| v6().map(IpAddr::V6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_loopback() {
        let own = own_addresses().unwrap();
        assert!(own.contains(&IpAddr::from([127, 0, 0, 1])), "{own:?}");
    }
}
