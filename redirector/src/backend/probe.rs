//! Whether a backend accepts connections.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, time};

/// Connects over TCP, closes the connection, and returns how long the connect took.
///
/// # Errors
///
/// The error of connect(), or [`io::ErrorKind::TimedOut`] after `timeout`.
pub async fn probe(addr: SocketAddr, timeout: Duration) -> Result<Duration, io::Error> {
    let start = Instant::now();
    match time::timeout(timeout, TcpStream::connect(addr)).await {
        Ok(connected) => connected.map(|_stream| start.elapsed()),
        Err(_) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {timeout:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_answers_and_a_closed_port_refuses() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("an address");
        probe(addr, Duration::from_secs(5)).await.expect("it listens");
        drop(listener);
        let error = probe(addr, Duration::from_secs(5)).await.expect_err("no listener");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_full_backlog_times_out() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
        socket.listen(0).expect("listening");
        let addr = socket.local_addr().expect("an address").as_socket().expect("an IP address");
        let _fill = probe_without_closing(addr).await;
        let error = probe(addr, Duration::from_millis(300)).await.expect_err("the backlog is full");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    async fn probe_without_closing(addr: SocketAddr) -> Vec<TcpStream> {
        let mut streams = Vec::new();
        while let Ok(Ok(stream)) =
            time::timeout(Duration::from_millis(200), TcpStream::connect(addr)).await
        {
            streams.push(stream);
        }
        streams
    }
}
