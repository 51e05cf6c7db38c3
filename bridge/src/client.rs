//! The client's address: the peer's own, or the one that a trusted proxy reports
//! (`X-Forwarded-For`, or a PROXY protocol header, version 2).

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use http::HeaderMap;
use ipnet::IpNet;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::Instant,
};

/// What a PROXY header begins with (haproxy's proxy-protocol.txt, section 2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
/// The longest user agent that is stored, in bytes, and how many are shared.
const USER_AGENT_BYTES_MAX: usize = 256;
const USER_AGENTS_MAX: usize = 1024;
/// The most bytes of addresses and extensions that are read.
const REST_BYTES_MAX: usize = 2048;

/// The client that sent a request; stored in the request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress {
    pub(crate) address: IpAddr,
    /// Whether a handshake counts as a new connection: it arrives over a connection that is shared,
    /// or that can carry many.
    pub(crate) must_count: bool,
    /// When the connection was accepted or, for later requests on the same connection, when the
    /// request arrived.
    pub(crate) since: Instant,
}

/// The client's `User-Agent`, truncated to 256 bytes; empty if it sends none.
pub(crate) fn user_agent(headers: &HeaderMap) -> &str {
    let text =
        headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // A header value that converts to text is ASCII, so every index is a character boundary.
    text.get(..USER_AGENT_BYTES_MAX).unwrap_or(text)
}

/// User agents, each stored once, because many clients send the same one.
#[derive(Debug, Default)]
pub(crate) struct UserAgents(Mutex<HashSet<Arc<str>>>);

impl UserAgents {
    /// The shared copy of a text.
    pub(crate) fn share(&self, text: &str) -> Arc<str> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = known.get(text) {
            return shared.clone();
        }
        if known.len() >= USER_AGENTS_MAX {
            known.retain(|shared| Arc::strong_count(shared) > 1);
        }
        let shared: Arc<str> = text.into();
        if known.len() < USER_AGENTS_MAX {
            known.insert(shared.clone());
        }
        shared
    }
}

/// Whether an address is one of the proxies.
pub(crate) fn is_trusted(address: IpAddr, proxies: &[IpNet]) -> bool {
    let address = address.to_canonical();
    proxies.iter().any(|network| network.contains(&address))
}

/// The client of a request that came through a trusted proxy: the last address in `X-Forwarded-For`
/// that is not a trusted proxy.
pub(crate) fn forwarded(headers: &HeaderMap, proxies: &[IpNet]) -> Option<IpAddr> {
    let values: Vec<&str> =
        headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    let hops = values.iter().rev().flat_map(|value| value.rsplit(','));
    for hop in hops {
        let address = parse(hop.trim())?;
        if !is_trusted(address, proxies) {
            return Some(address);
        }
    }
    None
}

/// Parses an address, with or without brackets and a port.
fn parse(hop: &str) -> Option<IpAddr> {
    let bracketed = hop.strip_prefix('[').and_then(|rest| rest.split(']').next());
    let text = bracketed.unwrap_or(hop);
    text.parse().ok().or_else(|| text.rsplit_once(':')?.0.parse().ok())
}

/// Reads the header with which a trusted proxy begins a connection. Returns the client's address,
/// or `None` if the proxy connects on its own behalf.
pub(crate) async fn read_proxy_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut head = [0; 16];
    stream.read_exact(&mut head).await?;
    if head[..12] != SIGNATURE {
        return Err(wrong("a trusted proxy did not begin with a PROXY protocol header, version 2"));
    }
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > REST_BYTES_MAX {
        return Err(wrong("a PROXY protocol header is too long"));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match (head[12], head[13]) {
        (LOCAL, _) => Ok(None),
        (PROXY, TCP_OVER_IPV4) => match rest.first_chunk::<4>().filter(|_| length >= 12) {
            Some(source) => Ok(Some(Ipv4Addr::from(*source).into())),
            None => Err(wrong("a PROXY protocol header is too short")),
        },
        (PROXY, TCP_OVER_IPV6) => match rest.first_chunk::<16>().filter(|_| length >= 36) {
            Some(source) => Ok(Some(Ipv6Addr::from(*source).into())),
            None => Err(wrong("a PROXY protocol header is too short")),
        },
        (PROXY, _) => Ok(None),
        _ => Err(wrong("a PROXY protocol header is not of version 2")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    async fn read(bytes: &[u8]) -> io::Result<Option<IpAddr>> {
        read_proxy_header(&mut &*bytes).await
    }

    #[tokio::test]
    async fn headers_name_the_client_or_the_proxy_itself() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0, 80, 0, 81];
        assert_eq!(read(&header(PROXY, TCP_OVER_IPV4, &v4)).await.unwrap(), Some([192, 0, 2, 1].into()));
        assert_eq!(read(&header(LOCAL, 0, &[])).await.unwrap(), None);
        for bad in [
            header(PROXY, TCP_OVER_IPV4, &v4[..5]),
            header(0x11, 0, &[]),
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            header(PROXY, TCP_OVER_IPV4, &[0; 3000]),
            SIGNATURE.to_vec(),
        ] {
            assert!(read(&bad).await.is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_client() {
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        let client = |value: &'static str| {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static("x-forwarded-for"),
                http::HeaderValue::from_static(value),
            )]);
            forwarded(&headers, &proxies)
        };
        assert_eq!(client("192.0.2.7, 192.0.2.1, 10.0.0.1"), Some([192, 0, 2, 1].into()));
        assert_eq!(client("192.0.2.1:4711"), Some([192, 0, 2, 1].into()));
        assert_eq!(client("[2001:db8::1]:80"), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(client("10.0.0.2"), None);
        assert_eq!(client("192.0.2.1, nonsense"), None, "nothing behind it can be believed");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _any = runtime.block_on(read(&bytes));
            let _any = runtime.block_on(read(&header(PROXY, TCP_OVER_IPV6, &bytes)));
        }
    }
}
