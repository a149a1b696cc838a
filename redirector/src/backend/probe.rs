//! Whether a backend accepts connections.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::{net::TcpSocket, time};

/// Connects over TCP from `source`, or from the address that the kernel chooses, closes the
/// connection, and returns how long the connect took.
///
/// # Errors
///
/// The error of connect(); [`io::ErrorKind::TimedOut`] after `timeout`;
/// [`io::ErrorKind::AddrNotAvailable`] if this host lacks `source`.
pub async fn probe(
    addr: SocketAddr,
    source: Option<IpAddr>,
    timeout: Duration,
) -> Result<Duration, io::Error> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let start = Instant::now();
    match time::timeout(timeout, socket.connect(addr)).await {
        Ok(connected) => connected.map(|_stream| start.elapsed()),
        Err(_) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {timeout:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_listener_answers_and_a_closed_port_refuses() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("an address");
        probe(addr, None, Duration::from_secs(5)).await.expect("it listens");
        drop(listener);
        let error = probe(addr, None, Duration::from_secs(5)).await.expect_err("no listener");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_probe_comes_from_its_source() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("an address");
        let source = IpAddr::from([127, 7, 7, 7]);
        probe(addr, Some(source), Duration::from_secs(5)).await.expect("it listens");
        assert_eq!(listener.accept().await.expect("accepted").1.ip(), source);
        let foreign = Some(IpAddr::from([203, 0, 113, 1]));
        let error = probe(addr, foreign, Duration::from_secs(5)).await.expect_err("not ours");
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test]
    async fn a_full_backlog_times_out() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
        socket.listen(0).expect("listening");
        let addr = socket.local_addr().expect("an address").as_socket().expect("an IP address");
        let _fill = probe_without_closing(addr).await;
        let error =
            probe(addr, None, Duration::from_millis(300)).await.expect_err("the backlog is full");
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
