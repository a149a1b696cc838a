//! A TCP connection whose steps end in time, also if the other side sends a byte at a time: a
//! socket's own timeout begins again with each.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// A connection, and the end of its present step.
#[derive(Debug)]
pub(super) struct TimedStream {
    stream: TcpStream,
    deadline: Instant,
}

impl TimedStream {
    /// Connects as a client does, as the first step.
    pub(super) fn connect(to: SocketAddr, deadline: Instant) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, time_until(deadline)?)?;
        Ok(Self { stream, deadline })
    }

    /// Begins the next step.
    pub(super) fn begin_step(&mut self, timeout: Duration) {
        self.deadline = Instant::now() + timeout;
    }

    pub(super) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }
}

impl Read for TimedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(time_until(self.deadline)?))?;
        self.stream.read(buffer)
    }
}

impl Write for TimedStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(time_until(self.deadline)?))?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn time_until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;
    use crate::verify::probe::{http, io_failure::IoFailure, ssh, tls};

    const STEP: Duration = Duration::from_millis(400);

    /// A connection to a server that sends the bytes one at a time, for ten steps.
    fn trickling(bytes: &'static [u8]) -> TimedStream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let server = listener.local_addr().expect("its address");
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            for byte in bytes.iter().cycle().take(100) {
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
                thread::sleep(STEP / 10);
            }
        });
        TimedStream::connect(server, Instant::now() + STEP).expect("connected")
    }

    fn in_one_step<T>(stream: &mut TimedStream, step: impl FnOnce(&mut TimedStream) -> T) -> T {
        let began = Instant::now();
        stream.begin_step(STEP);
        let result = step(stream);
        assert!((STEP..STEP * 5).contains(&began.elapsed()), "{:?}", began.elapsed());
        result
    }

    #[test]
    fn a_trickling_server_has_the_time_of_one_step() {
        let ssh = in_one_step(&mut trickling(b"x"), ssh::listen);
        assert!(matches!(ssh, ssh::SshResult::NotSsh { .. }), "{ssh:?}");
        let http = in_one_step(&mut trickling(b"x"), |stream| http::ask(stream, "a.test", "/"));
        assert!(matches!(http, http::HttpResult::NotHttp { .. }), "{http:?}");
        let root =
            rcgen::generate_simple_self_signed(["a.test".into()]).expect("a root").cert.pem();
        // The beginning of a record of 16 KiB.
        let (session, tls) = in_one_step(&mut trickling(&[22, 3, 3, 64, 0]), |stream| {
            tls::handshake(stream, "a.test", &root)
        });
        assert!(session.is_none());
        let tls::TlsResult::Failed { why: tls::TlsFailure::Io(IoFailure::TimedOut), .. } = tls
        else {
            panic!("{tls:?}")
        };
    }
}
