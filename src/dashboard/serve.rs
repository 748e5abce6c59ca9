//! Connections, as many as there are places, each for a bounded time.

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

/// Below the 1024 files that a process may usually open; who comes later waits in the system's queue.
const CONNECTIONS: usize = 512;
/// How long a client may take to send a request's head, or to think of its next request.
const IDLE: Duration = Duration::from_secs(10);
/// After that a connection takes no further request; a client that does not take its answer is cut off.
const LIFE: Duration = Duration::from_secs(300);
const LAST_ANSWER: Duration = Duration::from_secs(90);
/// Bytes of a request's head.
const HEAD: usize = 16 << 10;

/// Clients in the system's queue, who have not been taken yet. A client above that is not told anything for seconds, and
/// may be cut off.
const QUEUE: u32 = 4096;

/// Listens at `address`; within a runtime.
///
/// # Errors
/// As the system's calls: the address is taken, say.
pub(super) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)
}

/// Serves as long as it is polled.
pub(super) async fn serve(listener: TcpListener, router: Router) {
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
            // Out of files, or a client that has gone already: both pass.
            Err(err) => {
                tracing::debug!("a connection was not taken: {err}");
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
    // A broken connection is the client's business.
    if timeout(LIFE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_ANSWER, connection).await;
    }
}
