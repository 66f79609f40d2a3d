//! A TCP proxy that counts what passes in each direction, HTTP and WebSocket framing included.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Result;

const CHUNK_BYTES: usize = 64 * 1024;

/// Bytes that have passed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Passed {
    /// From devices to the server.
    pub(crate) up: u64,
    /// From the server to devices.
    pub(crate) down: u64,
}

impl std::ops::Sub for Passed {
    type Output = Passed;

    fn sub(self, before: Passed) -> Passed {
        Passed { up: self.up - before.up, down: self.down - before.down }
    }
}

#[derive(Default)]
struct Counters {
    up: AtomicU64,
    down: AtomicU64,
}

/// A listening proxy. Its threads end with the process.
pub(crate) struct Wire {
    pub(crate) address: String,
    counters: Arc<Counters>,
}

impl Wire {
    /// A proxy in front of `server`, host and port.
    pub(crate) fn to(server: &str) -> Result<Wire> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let counters: Arc<Counters> = Arc::default();
        let (server, counted) = (server.to_owned(), Arc::clone(&counters));
        std::thread::Builder::new().name("wire".into()).spawn(move || {
            for device in listener.incoming().flatten() {
                // A server that does not answer is the device's trouble.
                let _ = carry(device, &server, &counted);
            }
        })?;
        Ok(Wire { address, counters })
    }

    pub(crate) fn passed(&self) -> Passed {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Passed { up: read(&self.counters.up), down: read(&self.counters.down) }
    }
}

fn carry(device: TcpStream, server: &str, counters: &Arc<Counters>) -> Result<()> {
    let server = TcpStream::connect(server)?;
    for socket in [&device, &server] {
        socket.set_nodelay(true)?;
    }
    let ways = [(device.try_clone()?, server.try_clone()?, true), (server, device, false)];
    for (mut from, mut to, is_up) in ways {
        let counters = Arc::clone(counters);
        std::thread::Builder::new().name("wire way".into()).spawn(move || {
            let counter = if is_up { &counters.up } else { &counters.down };
            let mut chunk = vec![0; CHUNK_BYTES];
            while let Ok(read @ 1..) = from.read(&mut chunk) {
                counter.fetch_add(read as u64, Ordering::Relaxed);
                if to.write_all(&chunk[..read]).is_err() {
                    break;
                }
            }
            // One side has ended, or both have: then there is nothing to shut down.
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        })?;
    }
    Ok(())
}
