//! How a server ends when it is told to.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;

use crate::common::{LIMIT, command, lastword, listening, read_to_end};

/// A server that a client has sent half a request to.
struct Busy {
    child: Child,
    err: Receiver<Vec<u8>>,
    _client: TcpStream,
}

impl Busy {
    fn start(dir: &Path) -> Self {
        let args = ["serve", "--dev", "--json", "--listen", "127.0.0.1:0", "--data", "s"];
        let mut command = command(dir, &args);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let url = listening(&mut child).expect("it starts");
        let address = url.trim_start_matches("ws://").trim_end_matches("/sync");
        let mut client = TcpStream::connect(address).expect("it listens");
        client.write_all(b"GET /sync HTTP/1.1\r\nHost: ").expect("sent");
        // Connections are accepted in order: once this is answered, the other is served.
        let mut asks = TcpStream::connect(address).expect("it listens");
        asks.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .expect("sent");
        std::io::read_to_string(asks).expect("answered");
        let err = read_to_end(child.stderr.take().expect("piped"));
        Self { child, err, _client: client }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// What it wrote on stderr until it ended, with success.
    fn end(mut self) -> String {
        let Ok(err) = self.err.recv_timeout(LIMIT) else {
            self.child.kill().expect("it can be killed");
            panic!("the server does not end");
        };
        let err = String::from_utf8(err).expect("UTF-8");
        assert!(self.child.wait().expect("it ends").success(), "{err}");
        err
    }
}

/// R11.1. Half a request kept a server that was told to stop from ending, for ever, with its
/// directory locked. It waits 2 seconds, and not at all after a second signal.
#[test]
fn half_a_request_does_not_keep_the_server_up() {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["TERM", "INT"] {
        let server = Busy::start(dir.path());
        server.signal(name);
        let told = server.end();
        assert!(told.contains("did not end in 2 s"), "{name}: {told}");
    }
    let server = Busy::start(dir.path());
    server.signal("TERM");
    server.signal("INT");
    let told = server.end();
    assert!(told.contains("a second signal"), "{told}");
    lastword(dir.path(), &["status", "--data", "s"]).ok();
}
