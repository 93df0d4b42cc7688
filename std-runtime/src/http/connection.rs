//! Listener, TLS and connections, with their limits and deadlines.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};

use super::{App, Behind, Certificate, HttpOptions, app_router, stopped};
use crate::handle::NodeHandle;
use crate::tls::Tls;

/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Serves HTTP on `listener`, over mutual TLS if `tls` is given, until `stop` ends; then open requests get `drain_ms_max` to end.
///
/// # Errors
/// The options are out of range, or the listener has no address. Failures of single connections are
/// counted and end only these.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    (behind, node): (Behind, NodeHandle),
    options: HttpOptions,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    options.validate().map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text))?;
    let local_only = listener.local_addr()?.ip().is_loopback() && tls.is_none();
    let (stopping, watched) = watch::channel(false);
    let app = Arc::new(App::new(behind, node, options, local_only, watched));
    let router = app_router(Arc::clone(&app));
    let places = Arc::new(Semaphore::new(app.options.connections_max));
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let place = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "HTTP: a connection could not be accepted");
                // Out of descriptors, most likely; at once it would fail again.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (app, router, tls) = (Arc::clone(&app), router.clone(), tls.clone());
        connections.spawn(async move {
            app.counters.connections.fetch_add(1, Ordering::Relaxed);
            accept(stream, tls, &app, router).await;
            app.counters.connections.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
    }
    drop(listener);
    let _ = stopping.send(true);
    let drain = Duration::from_millis(app.options.drain_ms_max);
    let drained =
        tokio::time::timeout(drain, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), "HTTP: requests cut off at the stop");
    }
    Ok(())
}

async fn accept(stream: TcpStream, tls: Option<Tls>, app: &App, router: Router) {
    // Answers are written whole; waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return converse(stream, app, router).await;
    };
    let limit = Duration::from_millis(app.options.header_ms_max);
    match tokio::time::timeout(limit, tls.accept(stream)).await {
        Ok(Ok((stream, name))) => {
            converse(stream, app, router.layer(Extension(Certificate(name)))).await;
        }
        Ok(Err(error)) => {
            app.counters.handshakes_failed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%error, "HTTP: TLS handshake failed");
        }
        Err(_) => {
            app.counters.handshakes_failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(stream: S, app: &App, router: Router) {
    let limit = Duration::from_millis(app.options.write_ms_max);
    let io = TokioIo::new(WriteDeadline { stream, limit, waiting: None });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(app.options.header_ms_max))
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(io, TowerToHyperService::new(router));
    tokio::pin!(connection);
    let stop = stopped(app.stopping.clone());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP: connection ended");
    }
}

/// Fails a write that makes no progress for too long; hyper has deadlines for reading only.
struct WriteDeadline<S> {
    stream: S,
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteDeadline<S> {
    /// Passes `result` on, unless it has been pending for too long.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.waiting = None;
            return result;
        }
        let limit = self.limit;
        let sleep = self
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        match sleep.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteDeadline<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteDeadline<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, buf);
        self.watch(context, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, result)
    }
}
