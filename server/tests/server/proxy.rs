//! A TCP proxy that spoils connections on purpose. What becomes of each is drawn from a seed, in
//! the order in which they come.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};

use crate::common::Chance;

/// What a connection suffers once some bytes have passed. When it has lasted long enough, both
/// sides are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Both sides are closed in the middle of what one of them says.
    Cut,
    /// Everything comes late.
    Delay,
    /// Everything comes slowly.
    Throttle,
    /// Nothing comes any more, and neither side is told.
    Stall,
    /// The device is told that the connection is over, the server is not.
    HalfOpen,
    /// What the device says is lost.
    LostUp,
    /// What the server says is lost.
    LostDown,
}

pub const FAULTS: [Fault; 7] = [
    Fault::Cut,
    Fault::Delay,
    Fault::Throttle,
    Fault::Stall,
    Fault::HalfOpen,
    Fault::LostUp,
    Fault::LostDown,
];

/// Of this many connections one is left alone.
const ONE_IS_WELL: usize = 8;
/// A fault begins after at most this power of two of bytes: in a handshake as well as much later.
const MAX_POWER: usize = 18;
const CHUNK_BYTES: usize = 4096;
/// A throttled connection passes a piece in each beat, about 25 KiB a second.
const PIECE_BYTES: usize = 512;
const BEAT: Duration = Duration::from_millis(20);
/// Longest delay of one chunk.
const DELAY_MS: usize = 400;

#[derive(Debug, Clone, Copy)]
struct Plan {
    fault: Fault,
    after_bytes: u64,
    lasts: Duration,
    delay: Duration,
}

impl Plan {
    fn draw(chance: &mut Chance, longest: Duration) -> Option<Self> {
        let fault = FAULTS[chance.below(FAULTS.len())];
        let after_bytes = 1 << chance.below(MAX_POWER);
        // Some are over soon, some last longer than either side is patient.
        let lasts = longest / u32::try_from(1 + chance.below(16)).expect("small");
        let delay = Duration::from_millis(chance.below(DELAY_MS) as u64);
        let is_well = chance.below(ONE_IS_WELL) == 0;
        (!is_well).then_some(Self { fault, after_bytes, lasts, delay })
    }
}

/// A listening proxy; dropping it cuts all its connections.
pub struct Proxy {
    pub url: String,
    calm: watch::Sender<bool>,
    struck: Arc<Mutex<BTreeMap<Fault, u64>>>,
    _runtime: Runtime,
}

impl Proxy {
    /// A proxy in front of `server`, host and port, whose faults last at most `longest`.
    pub fn start(server: &str, seed: u64, longest: Duration) -> Self {
        let server: SocketAddr = server.parse().expect("an address");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let url = format!("ws://{}", listener.local_addr().expect("an address"));
        let (calm, calmed) = watch::channel(false);
        let struck: Arc<Mutex<BTreeMap<Fault, u64>>> = Arc::default();
        let told = Arc::clone(&struck);
        let mut chance = Chance::new(seed);
        runtime.spawn(async move {
            while let Ok((device, _)) = listener.accept().await {
                let plan = Plan::draw(&mut chance, longest).filter(|_| !*calmed.borrow());
                let (struck, calm) = (Arc::clone(&told), calmed.clone());
                tokio::spawn(
                    Connection { plan, passed: 0.into(), begun: Notify::new(), struck }
                        .carry(device, server, calm),
                );
            }
        });
        Self { url, calm, struck, _runtime: runtime }
    }

    /// Cuts the connections that have or would have a fault; from now on all are well.
    pub fn calm(&self) {
        self.calm.send_replace(true);
    }

    /// How many connections each fault has struck.
    pub fn struck(&self) -> BTreeMap<Fault, u64> {
        self.struck.lock().expect("no panic inside").clone()
    }
}

struct Connection {
    plan: Option<Plan>,
    passed: AtomicU64,
    begun: Notify,
    struck: Arc<Mutex<BTreeMap<Fault, u64>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// How a pump ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Closed,
    Forgotten,
}

impl Connection {
    async fn carry(
        self,
        mut device: TcpStream,
        server: SocketAddr,
        mut calm: watch::Receiver<bool>,
    ) {
        // A server that is down refuses, and so does its proxy.
        let Ok(mut server) = TcpStream::connect(server).await else { return };
        let end = {
            let (from_device, to_device) = device.split();
            let (from_server, to_server) = server.split();
            tokio::select! {
                end = self.pump(Way::Up, from_device, to_server) => end,
                end = self.pump(Way::Down, from_server, to_device) => end,
                () = self.over(calm.clone()) => End::Closed,
            }
        };
        if let (End::Forgotten, Some(plan)) = (end, self.plan) {
            drop(device);
            // Either way the server's side is closed in the end.
            let _ = tokio::time::timeout(plan.lasts, calm.wait_for(|calm| *calm)).await;
        }
    }

    /// Until a fault has lasted long enough, or may not last any more.
    async fn over(&self, mut calm: watch::Receiver<bool>) {
        let Some(plan) = self.plan else { return std::future::pending().await };
        let lasted = async {
            self.begun.notified().await;
            let pending = std::future::pending::<()>();
            let _ = tokio::time::timeout(plan.lasts, pending).await;
        };
        tokio::select! {
            () = lasted => {}
            _ = calm.wait_for(|calm| *calm) => {}
        }
    }

    /// The plan, once it is time for it.
    fn due(&self, bytes: usize) -> Option<Plan> {
        let before = self.passed.fetch_add(bytes as u64, Ordering::Relaxed);
        let plan = self.plan.filter(|plan| before + bytes as u64 >= plan.after_bytes)?;
        if before < plan.after_bytes {
            *self.struck.lock().expect("no panic inside").entry(plan.fault).or_default() += 1;
            self.begun.notify_one();
        }
        Some(plan)
    }

    async fn pump(&self, way: Way, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> End {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let Ok(read @ 1..) = from.read(&mut chunk).await else { return End::Closed };
            let plan = self.due(read);
            let mut passes = &chunk[..read];
            match plan.map(|plan| plan.fault) {
                Some(Fault::Cut) => passes = &passes[..read / 2],
                Some(Fault::Stall) => return std::future::pending().await,
                Some(Fault::HalfOpen) => return End::Forgotten,
                Some(Fault::LostUp) if way == Way::Up => continue,
                Some(Fault::LostDown) if way == Way::Down => continue,
                Some(Fault::Delay | Fault::Throttle | Fault::LostUp | Fault::LostDown) | None => {}
            }
            if let Some(plan) = plan.filter(|plan| plan.fault == Fault::Delay) {
                pause(plan.delay).await;
            }
            let is_slow = plan.is_some_and(|plan| plan.fault == Fault::Throttle);
            let piece_bytes = if is_slow { PIECE_BYTES } else { CHUNK_BYTES };
            for piece in passes.chunks(piece_bytes) {
                if is_slow {
                    pause(BEAT).await;
                }
                if to.write_all(piece).await.is_err() {
                    return End::Closed;
                }
            }
            if plan.is_some_and(|plan| plan.fault == Fault::Cut) {
                return End::Closed;
            }
        }
    }
}

/// A slow network is the event itself: nothing else can be waited for.
async fn pause(time: Duration) {
    let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
}
