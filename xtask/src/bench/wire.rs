//! A wire to a port of this machine, as long as one likes: a kernel need not be able to delay packets, nor its user to
//! tell it so.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// It carries until this process ends.
pub(super) struct Wire {
    /// Where it begins.
    pub port: u16,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    bytes: AtomicU64,
}

impl Wire {
    /// A wire to that port with this round trip.
    pub fn to(port: u16, round_trip: Duration) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let wire = Self { port: listener.local_addr()?.port(), counts: Arc::default() };
        let counts = Arc::clone(&wire.counts);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                counts.connections.fetch_add(1, Ordering::Relaxed);
                let counts = Arc::clone(&counts);
                thread::spawn(move || connect(near, port, round_trip, &counts));
            }
        });
        Ok(wire)
    }

    /// Connections, and bytes in both directions, since the last time that it was asked.
    pub fn carried(&self) -> (u64, u64) {
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        (take(&self.counts.connections), take(&self.counts.bytes))
    }
}

/// What fails ends the connection, which both its ends see.
fn connect(near: TcpStream, port: u16, round_trip: Duration, counts: &Arc<Counts>) -> Option<()> {
    // What the handshake takes.
    thread::sleep(round_trip);
    let far = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    for socket in [&near, &far] {
        socket.set_nodelay(true).ok()?;
    }
    let ends = [(near.try_clone().ok()?, far.try_clone().ok()?), (far, near)];
    for (from, to) in ends {
        let (sender, receiver) = mpsc::channel();
        let counts = Arc::clone(counts);
        thread::spawn(move || take(from, round_trip / 2, &sender, &counts));
        thread::spawn(move || give(to, &receiver));
    }
    Some(())
}

fn take(mut from: TcpStream, delay: Duration, to: &mpsc::Sender<(Instant, Vec<u8>)>, counts: &Counts) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        counts.bytes.fetch_add(length as u64, Ordering::Relaxed);
        if to.send((Instant::now() + delay, buffer[..length].to_vec())).is_err() {
            break;
        }
    }
}

fn give(mut to: TcpStream, from: &mpsc::Receiver<(Instant, Vec<u8>)>) {
    for (due, bytes) in from {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    // The other end may have hung up.
    let _gone = to.shutdown(Shutdown::Write);
}
