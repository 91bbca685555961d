//! Can the cluster be reached at all? Asked before anything else, so that a wrong address is answered
//! in a second, with the address and the reason, and not by a client library's time-out.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::failure::{Exit, Failure};
use crate::options::Options;

/// How long to try each address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to the first bootstrap server that accepts one.
///
/// Errors: none of them does; every address is named with its own reason.
pub fn first_reachable(options: &Options) -> Result<TcpStream, Failure> {
    let mut reasons = Vec::new();
    for server in &options.bootstrap {
        match connect(server) {
            Ok(stream) => return Ok(stream),
            Err(error) => reasons.push(format!("{server}: {}", describe(&error))),
        }
    }
    Err(Failure::new(
        Exit::Unreachable,
        format!("cannot reach a broker at {}", options.bootstrap_list()),
    )
    .why(reasons.join("; "))
    .next("check that a broker runs there, or name another with -b HOST:PORT"))
}

/// Connects to the first address that `server` (`host:port`) resolves to and that accepts.
pub fn connect(server: &str) -> io::Result<TcpStream> {
    let mut last = None;
    for address in server.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
}

/// A network error in words, without "(os error 111)".
pub fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer in time".into(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            "the connection was closed by the other side".into()
        }
        _ => error.to_string(),
    }
}
