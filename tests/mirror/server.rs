//! A static file server for package archives on the loopback device, with faults on request.
//!
//! It speaks HTTP/1.1 as apt and browsers use it: connections that stay open, pipelined requests, ranges
//! with `If-Range`, `Last-Modified` and `ETag`. Its control file (see [`fault`]) is read again for every
//! request, so a test changes the weather by writing a file. The access log goes to standard output.

mod connection;
mod fault;
mod request;
mod response;

use std::{net::SocketAddr, path::PathBuf, rc::Rc};

use anyhow::Context as _;
use clap::Parser;

/// Serves the files below ROOT, the first root that has a file wins.
#[derive(Debug, Parser)]
struct Arguments {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Directory to serve; may be given more than once.
    #[arg(long = "root", required = true)]
    roots: Vec<PathBuf>,
    /// File with one fault a line; it need not exist.
    #[arg(long)]
    control: Option<PathBuf>,
}

/// What every connection needs.
#[derive(Debug)]
struct Mirror {
    roots: Vec<PathBuf>,
    faults: fault::Control,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let listener = tokio::net::TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let mirror =
        Rc::new(Mirror { roots: arguments.roots, faults: fault::Control::new(arguments.control) });
    let connections = tokio::task::LocalSet::new();
    connections.run_until(serve(listener, mirror)).await
}

async fn serve(listener: tokio::net::TcpListener, mirror: Rc<Mirror>) -> anyhow::Result<()> {
    loop {
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mirror = Rc::clone(&mirror);
        tokio::task::spawn_local(async move {
            if let Err(error) = connection::serve(stream, &mirror).await {
                eprintln!("{peer}: {error:#}");
            }
        });
    }
}
