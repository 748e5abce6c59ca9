//! Serves a bounded number of connections, each for a bounded time.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Less than the 1024 files that a process can usually open. Further clients wait in the system's queue.
const CONNECTIONS: usize = 512;
/// How long a client may take to send a request's head, or to begin its next request.
const IDLE: Duration = Duration::from_secs(10);
/// After this time, a connection takes no further request.
const LIFE: Duration = Duration::from_secs(300);
/// After this time, a client that does not read its last answer is cut off.
const LAST_ANSWER: Duration = Duration::from_secs(90);
/// The largest head of a request, in bytes.
const HEAD: usize = 16 << 10;

/// How many clients can wait in the system's queue. A further client hears nothing for seconds, and may be cut off.
const QUEUE: u32 = 4096;

/// Listens at `address`. Call it within a runtime.
///
/// # Errors
/// Those of the system, for example if the address is taken.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)
}

/// Serves for as long as it is polled.
pub(crate) async fn serve(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // Nobody closes the semaphore.
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    connection(stream, router).await;
                    drop(place);
                });
            }
            // Either no file handle is free, or the client is gone already. Both states pass.
            Err(err) => {
                tracing::debug!("a connection was not accepted: {err}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(HEAD)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    // A broken connection concerns only the client.
    if timeout(LIFE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_ANSWER, connection).await;
    }
}
