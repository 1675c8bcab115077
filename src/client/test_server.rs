//! A server for the tests of the client: one service over a real socket.

#![expect(clippy::unwrap_used, reason = "a test")]

use hyper::body::Incoming;
use hyper_util::{rt, server::conn::auto::Builder, service::TowerToHyperService};
use tonic::body::Body;
use tower::Service;

use super::Client;

/// Serves every connection with a clone of `service`, and returns a client of it.
pub async fn serve<S>(service: S) -> Client
where
    S: Service<http::Request<Incoming>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Sync + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let builder = Builder::new(rt::TokioExecutor::new());
                // A test that drops its client breaks the connection.
                let _ = builder.serve_connection(rt::TokioIo::new(socket), service).await;
            });
        }
    });
    Client::new(&address).unwrap()
}
