//! A SOCKS5 proxy between us and a DX host (RFC 1928), with a user name and a
//! password if it wants them (RFC 1929).
//!
//! It is handed addresses that our own resolver found and our own filter let
//! pass. The one name it is handed is an onion host's (RFC 7686), which is in no
//! DNS. Left out: BIND, UDP, GSSAPI.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
const CONNECT: u8 = 1;

/// Where a proxy is, and how it is used. `Debug` does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    addr: SocketAddr,
    login: Option<Login>,
    onion: bool,
}

#[derive(Clone, PartialEq, Eq)]
struct Login {
    user: String,
    password: String,
}

/// Not the address of a proxy, or no login for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAProxy {
    #[error("not a proxy: write it like socks5://127.0.0.1:9050")]
    Url,
    #[error("not a login: one line, user:password, 1 to 255 bytes each")]
    Login,
}

/// What went wrong before the DX host was connected.
#[derive(Debug)]
pub(super) enum Fault {
    /// Between us and the proxy.
    Io(io::Error),
    /// The proxy does not speak as it should, or not with us.
    Proxy(&'static str),
    /// The proxy could not connect to the host: words of the RFC.
    Host(&'static str),
}

/// Whether a host is in the onion network, and in no DNS.
pub fn is_onion(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("onion"))
}

impl Proxy {
    pub fn new(addr: SocketAddr) -> Proxy {
        Proxy { addr, login: None, onion: false }
    }

    /// With `user:password`.
    pub fn with_login(mut self, text: &str) -> Result<Proxy, NotAProxy> {
        let (user, password) = text.trim_end().split_once(':').ok_or(NotAProxy::Login)?;
        let fits = |part: &str| (1..=255).contains(&part.len()) && !part.contains(['\r', '\n']);
        if !fits(user) || !fits(password) {
            return Err(NotAProxy::Login);
        }
        self.login = Some(Login { user: user.to_owned(), password: password.to_owned() });
        Ok(self)
    }

    /// It reaches onion hosts too.
    pub fn for_onions(self) -> Proxy {
        Proxy { onion: true, ..self }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn reaches_onions(&self) -> bool {
        self.onion
    }

    /// A connection through it; the caller sets the time. `name` is handed over
    /// in place of the address, if there is one.
    pub(super) async fn connect(
        &self,
        addr: SocketAddr,
        name: Option<&str>,
    ) -> Result<TcpStream, Fault> {
        let mut stream = TcpStream::connect(self.addr).await.map_err(Fault::Io)?;
        // A failure costs only time.
        let _ = stream.set_nodelay(true);
        self.greet(&mut stream).await?;
        let mut request = vec![VERSION, CONNECT, 0];
        match (name, addr.ip()) {
            (Some(name), _) => {
                let length = u8::try_from(name.len()).map_err(|_| Fault::Proxy("a long name"))?;
                request.extend([3, length]);
                request.extend(name.as_bytes());
            }
            (None, IpAddr::V4(ip)) => {
                request.push(1);
                request.extend(ip.octets());
            }
            (None, IpAddr::V6(ip)) => {
                request.push(4);
                request.extend(ip.octets());
            }
        }
        request.extend(addr.port().to_be_bytes());
        stream.write_all(&request).await.map_err(Fault::Io)?;
        let [version, code, _, kind] = read(&mut stream).await?;
        if version != VERSION {
            return Err(Fault::Proxy("it does not speak SOCKS5"));
        }
        match code {
            0 => {}
            1 => return Err(Fault::Host("general failure")),
            2 => return Err(Fault::Proxy("its rules do not allow that")),
            3 => return Err(Fault::Host("network unreachable")),
            4 => return Err(Fault::Host("host unreachable")),
            5 => return Err(Fault::Host("connection refused")),
            6 => return Err(Fault::Host("TTL expired")),
            _ => return Err(Fault::Proxy("an answer that it should not give")),
        }
        // Where it connects from, which nobody needs; what follows is the host's.
        let bound = match kind {
            1 => 4,
            4 => 16,
            3 => usize::from(read::<1>(&mut stream).await?[0]),
            _ => return Err(Fault::Proxy("an address of no known kind")),
        };
        let mut rest = vec![0; bound + 2];
        stream.read_exact(&mut rest).await.map_err(Fault::Io)?;
        Ok(stream)
    }

    async fn greet(&self, stream: &mut TcpStream) -> Result<(), Fault> {
        let methods: &[u8] = match self.login {
            None => &[VERSION, 1, NO_LOGIN],
            Some(_) => &[VERSION, 2, NO_LOGIN, LOGIN],
        };
        stream.write_all(methods).await.map_err(Fault::Io)?;
        let [version, method] = read(stream).await?;
        match (version, method, &self.login) {
            (VERSION, NO_LOGIN, _) => Ok(()),
            (VERSION, LOGIN, Some(login)) => {
                let mut request = vec![1];
                for part in [&login.user, &login.password] {
                    request.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
                    request.extend(part.as_bytes());
                }
                stream.write_all(&request).await.map_err(Fault::Io)?;
                match read(stream).await? {
                    [1, 0] => Ok(()),
                    _ => Err(Fault::Proxy("it does not take our login")),
                }
            }
            (VERSION, ..) => Err(Fault::Proxy("it wants another login")),
            _ => Err(Fault::Proxy("it does not speak SOCKS5")),
        }
    }
}

async fn read<const N: usize>(stream: &mut TcpStream) -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(Fault::Io)?;
    Ok(bytes)
}

/// `socks5://address:port`.
impl FromStr for Proxy {
    type Err = NotAProxy;

    fn from_str(text: &str) -> Result<Proxy, NotAProxy> {
        let addr = text.strip_prefix("socks5://").and_then(|addr| addr.parse().ok());
        addr.map(Proxy::new).ok_or(NotAProxy::Url)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("addr", &self.addr)
            .field("login", &self.login.as_ref().map(|login| &login.user))
            .field("onion", &self.onion)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_where_a_proxy_is() {
        let proxy: Proxy = "socks5://127.0.0.1:9050".parse().unwrap();
        assert_eq!(proxy, Proxy::new(([127, 0, 0, 1], 9050).into()));
        assert!("socks5://[::1]:9050".parse::<Proxy>().is_ok());
        for bad in ["127.0.0.1:9050", "socks5://127.0.0.1", "socks5://tor:9050", "socks4://[::1]:1"]
        {
            assert_eq!(bad.parse::<Proxy>(), Err(NotAProxy::Url), "{bad}");
        }
        let proxy = proxy.with_login("me:se:cret\n").unwrap();
        assert!(!format!("{proxy:?}").contains("cret"));
        for bad in ["", "me", ":x", "me:", "me:a\nb", &format!("me:{}", "x".repeat(256))] {
            assert_eq!(proxy.clone().with_login(bad), Err(NotAProxy::Login), "{bad}");
        }
    }

    #[test]
    fn knows_an_onion_host() {
        for onion in ["x.onion", "a.b.ONION", "x.onion."] {
            assert!(is_onion(onion), "{onion}");
        }
        for other in ["onion.example", "x.onions", "xonion", ""] {
            assert!(!is_onion(other), "{other}");
        }
    }
}
