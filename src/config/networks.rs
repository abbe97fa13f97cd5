//! Lists of IP networks.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use serde::Deserialize;

use super::web::parts;

/// A list of addresses and networks, written with commas: `192.0.2.7, 10.0.0.0/8, fd00::/8`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Networks(Vec<Network>);

/// All addresses that start with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: u128,
    /// The number of bits in which an address may differ.
    host_bits: u32,
}

impl Networks {
    /// Whether one of the networks contains the address. An IPv4 address that is mapped into IPv6
    /// counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = bits(address);
        self.0
            .iter()
            .any(|network| differ_in(network.address, address) <= network.host_bits)
    }
}

/// The number of trailing bits in which the addresses differ.
fn differ_in(one: u128, other: u128) -> u32 {
    u128::BITS - (one ^ other).leading_zeros()
}

/// The address as IPv6, with IPv4 mapped into it.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// A part of a list that is not a network.
#[derive(Debug, PartialEq, Eq)]
pub struct NotANetwork(String);

impl fmt::Display for NotANetwork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        write!(
            formatter,
            "'{text}' is not an address or network (e.g. 10.0.0.0/8, 192.0.2.7)"
        )
    }
}

impl TryFrom<String> for Networks {
    type Error = NotANetwork;

    fn try_from(text: String) -> Result<Self, NotANetwork> {
        let networks =
            parts(&text).map(|part| parse(part).ok_or_else(|| NotANetwork(part.to_owned())));
        networks.collect::<Result<_, _>>().map(Self)
    }
}

fn parse(text: &str) -> Option<Network> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse::<u32>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let width = match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => Ipv6Addr::BITS,
    };
    let host_bits = width.checked_sub(prefix.unwrap_or(width))?;
    let address = bits(address);
    // 10.1.0.0/8 could mean 10.0.0.0/8 or 10.1.0.0/16.
    let is_network = host_bits == u128::BITS || address.trailing_zeros() >= host_bits;
    is_network.then_some(Network { address, host_bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_a_network_if_the_first_bits_agree() {
        let list = "192.0.2.7, 10.0.0.0/8,172.16.0.0/12 ,fd00::/8,2001:db8::1,";
        let networks = Networks::try_from(list.to_owned()).unwrap();
        for (address, expected) in [
            ("192.0.2.7", true),
            ("::ffff:192.0.2.7", true),
            ("192.0.2.8", false),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("fdff::1", true),
            ("fe00::1", false),
            ("2001:db8::1", true),
            ("2001:db8::2", false),
        ] {
            let found = networks.contains(address.parse().unwrap());
            assert_eq!(found, expected, "{address}");
        }
        let contains = |list: &str, address: &str| {
            let networks = Networks::try_from(list.to_owned()).unwrap();
            networks.contains(address.parse().unwrap())
        };
        assert!(contains("0.0.0.0/0", "192.0.2.7") && !contains("0.0.0.0/0", "fd00::1"));
        assert!(contains("::/0", "fd00::1"));
        assert!(!contains("", "127.0.0.1"));
    }

    #[test]
    fn another_text_is_refused() {
        for text in [
            "proxy",
            "10.0.0.0/33",
            "10.1.0.0/8",
            "::/129",
            "10.0.0.0/x",
            "/8",
            "127.0.0.1:9",
        ] {
            let error = Networks::try_from(format!("::1, {text}")).unwrap_err();
            let expected =
                format!("'{text}' is not an address or network (e.g. 10.0.0.0/8, 192.0.2.7)");
            assert_eq!(error.to_string(), expected);
        }
    }
}
