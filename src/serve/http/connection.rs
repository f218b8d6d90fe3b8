//! Accepting connections, within bounds: so many at once, so many of one
//! client, none that stands still, none for ever.
//!
//! A bound that is reached looks to the HTTP layer like a client that hung up,
//! so an answer that is on its way still leaves.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use crate::serve::budget::Client;

/// Bounds on connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: usize,
    pub per_client: usize,
    pub idle: Duration,
    pub lifetime: Duration,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// A listener that keeps to its limits.
pub struct Limited {
    listener: TcpListener,
    limits: Limits,
    free: Arc<Semaphore>,
    seats: Arc<Seats>,
}

struct Seats {
    taken: Mutex<HashMap<Client, usize>>,
    gauge: IntGauge,
}

/// One connection of one client; given back when dropped.
struct Seat {
    seats: Arc<Seats>,
    client: Client,
    _permit: OwnedSemaphorePermit,
}

/// A connection with its bounds.
pub struct Bounded {
    stream: TcpStream,
    _seat: Seat,
    idle: Duration,
    /// When it has lived long enough.
    ends: Instant,
    /// Fires when nothing has moved for `idle`, or at `ends`.
    alarm: Pin<Box<Sleep>>,
}

impl Limited {
    pub fn new(listener: TcpListener, limits: Limits, gauge: IntGauge) -> io::Result<Limited> {
        listener.local_addr()?;
        let free = Arc::new(Semaphore::new(limits.connections));
        let seats = Arc::new(Seats { taken: Mutex::default(), gauge });
        Ok(Limited { listener, limits, free, seats })
    }
}

impl Listener for Limited {
    type Io = Bounded;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Bounded, SocketAddr) {
        loop {
            let permit = match self.free.clone().acquire_owned().await {
                Ok(permit) => permit,
                // It is never closed.
                Err(_) => std::future::pending().await,
            };
            // A failed accept is logged there, and tried again after a second.
            let (stream, peer) = Listener::accept(&mut self.listener).await;
            let client = Client::of(peer.ip());
            let Some(seat) = Seat::take(&self.seats, client, self.limits.per_client, permit) else {
                continue;
            };
            // A failure costs only time.
            let _ = stream.set_nodelay(true);
            let now = Instant::now();
            let ends = now + self.limits.lifetime;
            let idle = self.limits.idle;
            let alarm = Box::pin(tokio::time::sleep_until(ends.min(now + idle)));
            return (Bounded { stream, _seat: seat, idle, ends, alarm }, peer);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Limited>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Limited>) -> Peer {
        Peer(*stream.remote_addr())
    }
}

impl Seat {
    fn take(
        seats: &Arc<Seats>,
        client: Client,
        limit: usize,
        permit: OwnedSemaphorePermit,
    ) -> Option<Seat> {
        let mut taken = seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(&client).copied().unwrap_or(0);
        if own >= limit {
            return None;
        }
        taken.insert(client, own + 1);
        seats.gauge.inc();
        Some(Seat { seats: Arc::clone(seats), client, _permit: permit })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                taken.remove(&self.client);
            }
        }
        self.seats.gauge.dec();
    }
}

impl Bounded {
    /// Something moved.
    fn rest(&mut self) {
        let until = self.ends.min(Instant::now() + self.idle);
        self.alarm.as_mut().reset(until);
    }

    /// Whether the time is up; wakes the task when it is.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.alarm.as_mut().poll(cx).is_ready()
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {
                if buffer.filled().len() > before {
                    self.rest();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending if self.is_over(cx) => Poll::Ready(Ok(())),
            other => other,
        }
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.after_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.after_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Bounded {
    fn after_write(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(count)) => {
                self.rest();
                Poll::Ready(Ok(count))
            }
            Poll::Pending if self.is_over(cx) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            other => other,
        }
    }
}
