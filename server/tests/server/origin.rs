//! Pages in browsers: only those of the server itself may connect.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use crate::common::{LIMIT, Server};

/// The status line of a WebSocket request with this Host and these Origins.
fn asks(server: &Server, host: &str, origins: &[&str]) -> String {
    let mut stream = TcpStream::connect(server.address()).expect("it listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
    let mut request = format!(
        "GET /sync HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: lastword.v1\r\n"
    );
    for origin in origins {
        request.push_str(&format!("Origin: {origin}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("answered");
    line
}

/// Security rows 1 and 2. Any page that a developer visited could open the `--dev` server on the
/// same machine, with any token, and read and write everything in it. Only a page of the server
/// itself may connect; what is no browser says no Origin and may.
#[test]
fn pages_of_other_sites_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let dev = Server::start(&dir.path().join("dev"));
    std::fs::write(dir.path().join("tokens"), "a, ann, main, owner\n").expect("written");
    let access = ["--tokens".to_owned(), dir.path().join("tokens").display().to_string()];
    let members = Server::start_with(&dir.path().join("members"), &access, "127.0.0.1:0");
    for server in [&dev, &members] {
        let host = server.address();
        let port = host.rsplit(':').next().expect("a port");
        let local = format!("localhost:{port}");
        let (own, own_tls) = (format!("http://{host}"), format!("https://{local}"));
        for (host, origins) in
            [(&host, &[][..]), (&host, &[own.as_str()]), (&local, &[own_tls.as_str()])]
        {
            let status = asks(server, host, origins);
            assert!(status.starts_with("HTTP/1.1 101"), "{host} {origins:?}: {status}");
        }
        let suffix = format!("{own}.evil.example");
        for origins in [
            &["https://evil.example"][..],
            &["null"],
            &[""],
            &["http://127.0.0.1"],
            &["http://127.0.0.1:1"],
            &[host.as_str()],
            &[suffix.as_str()],
            &[own.as_str(), "https://evil.example"],
        ] {
            let status = asks(server, &host, origins);
            assert!(status.starts_with("HTTP/1.1 403"), "{host} {origins:?}: {status}");
        }
    }
    // A site that gave its own name the address 127.0.0.1.
    for host in ["evil.example:7420", "127.0.0.1.evil.example", "localhost.evil.example:7420"] {
        let status = asks(&dev, host, &[&format!("http://{host}")]);
        assert!(status.starts_with("HTTP/1.1 403"), "{host}: {status}");
    }
}
