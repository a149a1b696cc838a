//! The sockets for looking up destinations. They are marked as ours, so that their queries are not
//! redirected to the shim, which may have a virtual address for the name.

use std::{future::Future, io, net::SocketAddr, pin::Pin, time::Duration};

use hickory_resolver::net::runtime::{
    RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime, iocompat::AsyncIoTokioAsStd,
};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use crate::net::socket_mark::mark_if_permitted;

/// Time-out of a connect, if hickory sets none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The Tokio runtime with marked sockets.
#[derive(Clone, Default)]
pub(super) struct MarkedRuntime(TokioRuntimeProvider);

type IoFuture<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

impl RuntimeProvider for MarkedRuntime {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> Self::Handle {
        self.0.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> IoFuture<Self::Tcp> {
        Box::pin(async move {
            let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            mark_if_permitted(&socket);
            if let Some(local) = local {
                socket.bind(local)?;
            }
            socket.set_nodelay(true)?;
            let connected =
                tokio::time::timeout(timeout.unwrap_or(CONNECT_TIMEOUT), socket.connect(server))
                    .await;
            connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(AsyncIoTokioAsStd)
        })
    }

    fn bind_udp(&self, local: SocketAddr, server: SocketAddr) -> IoFuture<Self::Udp> {
        let bound = self.0.bind_udp(local, server);
        Box::pin(async move { bound.await.inspect(mark_if_permitted) })
    }
}
