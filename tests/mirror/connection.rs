//! One connection: requests are read ahead, answers go out in order, shaped and spoilt as asked.

use std::time::Duration;

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::Instant,
};

use crate::{Mirror, fault::Faults, request::Request, response::Response};

/// No client sends more headers than this.
const HEAD_LIMIT_BYTES: usize = 64 * 1024;
/// apt pipelines ten requests; what comes beyond this waits in the socket.
const PIPELINE_LIMIT: usize = 64;
/// Small enough that a shaped connection is smooth.
const CHUNK_BYTES: usize = 16 * 1024;
/// Longer than any client's patience, shorter than a forgotten process should live.
const STALL: Duration = Duration::from_secs(600);

/// Answers the requests of one client until it, or a fault, ends the connection.
pub(crate) async fn serve(stream: TcpStream, mirror: &Mirror) -> anyhow::Result<()> {
    let opened = Instant::now();
    let (reader, mut writer) = stream.into_split();
    let (sender, mut requests) = mpsc::channel(PIPELINE_LIMIT);
    let reading = tokio::task::spawn_local(read_requests(reader, sender));
    let mut first = true;
    while let Some((arrived, request)) = requests.recv().await {
        let faults = mirror.faults.next_for(&request.target);
        // The handshake costs a round trip as well.
        let due = if first { opened + faults.latency } else { arrived } + faults.latency;
        first = false;
        tokio::time::sleep_until(due.max(arrived)).await;
        let response = Response::to(&request, &mirror.roots, &faults);
        log(&request, &response);
        let ended = send(&mut writer, &response, &faults).await? == Sent::Ended;
        if ended || request.close {
            break;
        }
    }
    reading.abort();
    writer.shutdown().await.or_else(|error| match error.kind() {
        std::io::ErrorKind::NotConnected => Ok(()),
        _ => Err(error),
    })?;
    Ok(())
}

async fn read_requests(
    mut reader: OwnedReadHalf,
    requests: mpsc::Sender<(Instant, Request)>,
) -> anyhow::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let arrived = Instant::now();
        while let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8(buffer.drain(..end + 4).take(end).collect())?;
            let request =
                Request::parse(&head).with_context(|| format!("not a request: {head:?}"))?;
            if requests.send((arrived, request)).await.is_err() {
                return Ok(());
            }
        }
        anyhow::ensure!(buffer.len() < HEAD_LIMIT_BYTES, "headers without an end");
        if reader.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

#[derive(PartialEq, Eq)]
enum Sent {
    Whole,
    Ended,
}

async fn send(
    writer: &mut OwnedWriteHalf,
    response: &Response,
    faults: &Faults,
) -> std::io::Result<Sent> {
    writer.write_all(response.head.as_bytes()).await?;
    let end = |at: Option<u64>| {
        at.map(|at| usize::try_from(at.saturating_sub(response.offset)).unwrap_or(usize::MAX))
            .filter(|at| *at < response.body.len())
    };
    let (close, stall) = (end(faults.close_at), end(faults.stall_at));
    let stop = close.into_iter().chain(stall).min();
    let body = &response.body[..stop.unwrap_or(response.body.len())];
    match faults.bandwidth_bytes_per_second {
        None => writer.write_all(body).await?,
        Some(rate) => send_slowly(writer, body, rate).await?,
    }
    writer.flush().await?;
    if stall.is_some() && stall == stop {
        tokio::time::sleep(STALL).await;
    }
    Ok(if stop.is_some() { Sent::Ended } else { Sent::Whole })
}

async fn send_slowly(
    writer: &mut OwnedWriteHalf,
    body: &[u8],
    bytes_per_second: u64,
) -> std::io::Result<()> {
    let mut due = Instant::now();
    for chunk in body.chunks(CHUNK_BYTES) {
        writer.write_all(chunk).await?;
        let nanoseconds = chunk.len() as u64 * 1_000_000_000 / bytes_per_second;
        due += Duration::from_nanos(nanoseconds);
        tokio::time::sleep_until(due).await;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the access log is this program's output")]
fn log(request: &Request, response: &Response) {
    println!(
        "{} {} {} {} {}",
        response.status,
        request.method,
        request.target,
        response.body.len(),
        request.range.as_deref().unwrap_or("-")
    );
}
