//! From where networks get the ranges that nobody named.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

/// Where they come from if nobody says anything.
const POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 128, 0, 0), 9);
/// The length of a range's prefix then: 4,093 addresses for tasks and services.
const SIZE: u8 = 20;
/// The length of prefix where pools are named and no length: Docker's.
const SIZE_OF_NAMED: u8 = 24;
/// Smaller ranges have no room for a gateway, a service and a task.
const SIZE_MAX: u8 = 29;
/// Pools at most.
const POOLS_MAX: usize = 16;

/// Addresses that ranges are cut from, and how large the ranges are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPools {
    /// In the order in which they are used.
    pub pools: Vec<Ipv4Net>,
    /// The length of a range's prefix.
    pub size: u8,
}

impl Default for AddressPools {
    fn default() -> Self {
        Self { pools: vec![POOL], size: SIZE }
    }
}

/// What is wrong with a wish for pools.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolsError {
    /// With a pool.
    #[error("{0}")]
    Pool(String),
    /// With the length of the ranges' prefix.
    #[error("{0}")]
    Size(String),
}

impl AddressPools {
    /// As the user wants them: no pool is the usual one, no length the usual one of the pools.
    ///
    /// # Errors
    /// What is wrong, and with which of the two.
    pub fn new(texts: &[String], size: Option<i64>) -> Result<Self, PoolsError> {
        let usual = if texts.is_empty() { SIZE } else { SIZE_OF_NAMED };
        let size = size.map_or(Ok(usual), |size| {
            u8::try_from(size).ok().filter(|size| (1..=SIZE_MAX).contains(size)).ok_or(size)
        });
        let size = size.map_err(|size| {
            PoolsError::Size(format!("{size} is no length of a range's prefix: 1 to {SIZE_MAX} is wanted"))
        })?;
        if texts.len() > POOLS_MAX {
            return Err(PoolsError::Pool(format!("{} pools are named: {POOLS_MAX} at most", texts.len())));
        }
        let mut pools: Vec<Ipv4Net> = Vec::with_capacity(texts.len().max(1));
        for text in texts {
            let pool = Self::pool(text).map_err(PoolsError::Pool)?;
            if let Some(other) = pools.iter().find(|other| other.contains(&pool) || pool.contains(*other)) {
                return Err(PoolsError::Pool(format!("{pool} and {other} overlap: name each address once")));
            }
            pools.push(pool);
        }
        if pools.is_empty() {
            pools.push(POOL);
        }
        if let Some(pool) = pools.iter().find(|pool| pool.prefix_len() > size) {
            return Err(PoolsError::Size(format!(
                "{size}: no range of /{size} fits into {pool}: a longer prefix is wanted"
            )));
        }
        Ok(Self { pools, size })
    }

    fn pool(text: &str) -> Result<Ipv4Net, String> {
        let pool = match text.parse::<IpNet>() {
            Ok(IpNet::V4(pool)) => pool.trunc(),
            Ok(IpNet::V6(_)) => {
                return Err(format!(
                    "{text:?} is of IPv6: those ranges come from the cluster's own fd00::/8, name IPv4 alone"
                ));
            }
            Err(_) => return Err(format!("{text:?} is no range: such as 10.64.0.0/10 is wanted")),
        };
        let first = pool.network();
        let is_fit =
            !first.is_loopback() && !first.is_multicast() && !first.is_link_local() && first.octets()[0] != 0;
        if is_fit { Ok(pool) } else { Err(format!("{pool} is no range for containers")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn new(pools: &[&str], size: Option<i64>) -> Result<AddressPools, PoolsError> {
        AddressPools::new(&pools.iter().map(ToString::to_string).collect::<Vec<_>>(), size)
    }

    #[test]
    fn pools_have_a_size_of_their_own_if_named() {
        assert_eq!(new(&[], None), Ok(AddressPools::default()));
        assert_eq!(new(&[], Some(22)).unwrap().size, 22);
        let named = new(&["10.20.0.7/16", "172.16.0.0/12"], None).unwrap();
        assert_eq!((named.pools[0].to_string(), named.size), ("10.20.0.0/16".to_owned(), 24));
    }

    #[test]
    fn wishes_that_make_no_sense_are_refused_by_what_is_wrong() {
        for (pools, size, words) in [
            (&["10.0.0.0"][..], None, "is no range"),
            (&["fd00::/8"], None, "is of IPv6"),
            (&["127.0.0.0/8"], None, "is no range for containers"),
            (&["224.0.0.0/8"], None, "is no range for containers"),
            (&["0.0.0.0/0"], None, "is no range for containers"),
            (&["10.0.0.0/8", "10.1.0.0/16"], None, "overlap"),
            (&["10.1.0.0/16"; 17], None, "16 at most"),
        ] {
            assert!(
                matches!(new(pools, size), Err(PoolsError::Pool(why)) if why.contains(words)),
                "{pools:?}"
            );
        }
        for (pools, size, words) in [
            (&[][..], Some(0), "1 to 29"),
            (&[], Some(30), "1 to 29"),
            (&[], Some(-1), "1 to 29"),
            (&["10.1.0.0/25"], None, "a longer prefix"),
            (&["10.1.0.0/16"], Some(12), "a longer prefix"),
        ] {
            assert!(
                matches!(new(pools, size), Err(PoolsError::Size(why)) if why.contains(words)),
                "{pools:?} {size:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn wishes_never_panic(pools in prop::collection::vec(".*", 0..4), size in prop::option::of(any::<i64>())) {
            let _ = AddressPools::new(&pools, size);
        }
    }
}
