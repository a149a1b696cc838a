//! A server that accepts connections and ends each in a way of its own: a load balancer without
//! targets, a server that crashes, one that waits too long for its client.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use rustix::net::{RecvFlags, sockopt};

use super::acceptor::Acceptor;
use crate::isolation::namespaces::Namespaces;

/// How long a client's request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a reset at once.
    ResetAtOnce,
    /// With a reset when the client has sent something.
    ResetAtRequest,
    /// With a reset after this time.
    ResetAfter(Duration),
    /// With a reset after one byte, which the client has received.
    ResetAfterByte,
    /// With a FIN at once.
    Finish,
    /// With an answer to a request, and a FIN.
    Serve,
    /// When the client ends it.
    Wait,
}

/// A running server. Its threads belong to this process, its socket to the namespace.
#[derive(Debug)]
pub struct AbruptServer {
    ending: Arc<Mutex<Ending>>,
    accepted: Arc<AtomicU64>,
    _acceptor: Acceptor,
}

impl AbruptServer {
    /// Listens at `address` inside `namespaces`.
    pub fn start(namespaces: &Namespaces, address: SocketAddr, ending: Ending) -> Result<Self> {
        let (ending, accepted) = (Arc::new(Mutex::new(ending)), Arc::new(AtomicU64::new(0)));
        let serve = {
            let (ending, accepted) = (Arc::clone(&ending), Arc::clone(&accepted));
            move |stream| {
                accepted.fetch_add(1, Ordering::Relaxed);
                let ending = *ending.lock().unwrap_or_else(PoisonError::into_inner);
                // Not joined: each ends when its client does, or after its time.
                std::thread::spawn(move || end(stream, ending));
            }
        };
        let acceptor = Acceptor::start(namespaces, address, 1, serve)?;
        Ok(Self { ending, accepted, _acceptor: acceptor })
    }

    /// From now on connections end like this.
    pub fn set(&self, ending: Ending) {
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = ending;
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// Ends one connection. Errors are the client's doing.
fn end(mut stream: TcpStream, ending: Ending) {
    let _ = stream.set_read_timeout(Some(REQUEST_TIMEOUT));
    match ending {
        Ending::ResetAtOnce => reset(&stream),
        // The kernel resets a connection that is closed with unread data.
        Ending::ResetAtRequest => wait_for_data(&stream),
        Ending::ResetAfter(time) => {
            std::thread::sleep(time);
            reset(&stream);
        }
        Ending::ResetAfterByte => {
            let _ = stream.write_all(b"x");
            wait_for_data(&stream);
            reset(&stream);
        }
        Ending::Finish => {}
        Ending::Serve => {
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(b"served\n");
        }
        Ending::Wait => while stream.read(&mut [0; 512]).is_ok_and(|length| length > 0) {},
    }
}

fn reset(stream: &TcpStream) {
    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

fn wait_for_data(stream: &TcpStream) {
    let _ = rustix::net::recv(stream, &mut [0; 1], RecvFlags::PEEK);
}
