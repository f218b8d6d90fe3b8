//! A SOCKS5 proxy on loopback (RFC 1928, RFC 1929) that connects for real, or
//! does what it is told instead.
#![allow(dead_code)] // each test binary uses another part

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the proxy does.
#[derive(Clone, Debug, Default)]
pub struct Conduct {
    /// User and password that it wants.
    pub login: Option<(&'static str, &'static str)>,
    /// Answers every request with this code and hangs up.
    pub refuses: Option<u8>,
    /// Says this in place of its first answer.
    pub babbles: Option<&'static [u8]>,
    /// Never answers.
    pub mute: bool,
    /// Where onion hosts are.
    pub onions: HashMap<String, SocketAddr>,
}

type Hook = Box<dyn FnOnce() + Send>;

/// What is done once, when so many requests have come.
type Cue = Option<(usize, Hook)>;

pub struct Socks {
    pub addr: SocketAddr,
    heard: Arc<Heard>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Heard {
    /// `address:port` or `name:port` of every request.
    asked: Mutex<Vec<String>>,
    cue: Mutex<Cue>,
}

impl Heard {
    fn asked(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cue(&self) -> std::sync::MutexGuard<'_, Cue> {
        self.cue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, request: String) {
        let count = {
            let mut asked = self.asked();
            asked.push(request);
            asked.len()
        };
        let hook = self.cue().take_if(|(at, _)| *at == count);
        if let Some((_, hook)) = hook {
            hook();
        }
    }
}

impl Socks {
    pub async fn start(conduct: Conduct) -> Socks {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let heard = Arc::new(Heard::default());
        let (hearing, conduct) = (heard.clone(), Arc::new(conduct));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (heard, conduct) = (hearing.clone(), conduct.clone());
                tokio::spawn(async move {
                    // Whatever goes wrong here is one side hanging up.
                    drop(serve(stream, &conduct, &heard).await);
                });
            }
        });
        Socks { addr, heard, task }
    }

    pub fn asked(&self) -> Vec<String> {
        self.heard.asked().clone()
    }

    /// Done once, as soon as the request with this number has come, from 1 on, and
    /// before it goes on to where it is to.
    pub fn at_request(&self, number: usize, hook: impl FnOnce() + Send + 'static) {
        *self.heard.cue() = Some((number, Box::new(hook)));
    }
}

impl Drop for Socks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, conduct: &Conduct, heard: &Heard) -> std::io::Result<()> {
    let [version, count] = read(&mut client).await?;
    assert_eq!(version, 5);
    let mut methods = vec![0; usize::from(count)];
    client.read_exact(&mut methods).await?;
    if let Some(words) = conduct.babbles {
        return client.write_all(words).await;
    }
    if conduct.mute {
        return client.read_exact(&mut [0]).await.map(drop);
    }
    let wanted = if conduct.login.is_some() { 2 } else { 0 };
    if !methods.contains(&wanted) {
        return client.write_all(&[5, 0xff]).await;
    }
    client.write_all(&[5, wanted]).await?;
    if let Some((user, password)) = conduct.login {
        let [version] = read(&mut client).await?;
        assert_eq!(version, 1);
        let given = [string(&mut client).await?, string(&mut client).await?];
        let right = given == [user.as_bytes(), password.as_bytes()];
        client.write_all(&[1, u8::from(!right)]).await?;
        if !right {
            return Ok(());
        }
    }
    let [version, command, zero, kind] = read(&mut client).await?;
    assert_eq!((version, command, zero), (5, 1, 0), "CONNECT and nothing else");
    let (host, found) = match kind {
        1 => {
            let ip = Ipv4Addr::from(read::<4>(&mut client).await?);
            (ip.to_string(), Some(ip.into()))
        }
        4 => {
            let ip = Ipv6Addr::from(read::<16>(&mut client).await?);
            (ip.to_string(), Some(ip.into()))
        }
        _ => (String::from_utf8(string(&mut client).await?).unwrap(), None),
    };
    let port = u16::from_be_bytes(read(&mut client).await?);
    heard.hear(format!("{host}:{port}"));
    if let Some(code) = conduct.refuses {
        return client.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    }
    let target = match found {
        Some(ip) => Some(SocketAddr::new(ip, port)),
        None => conduct.onions.get(&host).copied(),
    };
    let Some(target) = target else {
        return client.write_all(&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    };
    match TcpStream::connect(target).await {
        Ok(mut server) => {
            // Bound to a name, which a client must be able to skip.
            client.write_all(&[5, 0, 0, 3, 5]).await?;
            client.write_all(b"proxy\x00\x50").await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
        }
        Err(_) => client.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).await,
    }
}

async fn string(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let [length] = read(stream).await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn read<const N: usize>(stream: &mut TcpStream) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
