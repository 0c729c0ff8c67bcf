//! The demo's application: a counter that answers an increment only after the new value is on the mirrored file system.

use anyhow::Context as _;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

const FILE: &str = "counter";
/// One record for each increment: the number and its checksum. Appended, never rewritten, so that a lost write shows.
const RECORD: usize = 16;
/// What a datagram may say: a number.
const DATAGRAM: usize = 8;

/// How the application is started.
#[derive(Clone, Debug, clap::Args)]
pub struct AppArgs {
    /// The folder on the mirrored file system that keeps the value.
    #[arg(long)]
    data: PathBuf,
    /// Where it answers: the floating IP and a port.
    #[arg(long)]
    listen: SocketAddr,
    /// Written once it answers; holds its pid.
    #[arg(long)]
    pid_file: Option<PathBuf>,
}

/// The counter on its file. A value counts only when its record is durable.
struct Counter {
    file: File,
    value: u64,
}

fn record(number: u64) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..].copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..8]);
    bytes
}

impl Counter {
    /// The value is the number of whole records before the first bad or missing one; the rest is cut off.
    fn open(folder: &Path) -> anyhow::Result<Counter> {
        let path = folder.join(FILE);
        let fresh = !path.exists();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let bytes = fs::read(&path)?;
        let (found, _) = bytes.as_chunks::<RECORD>();
        let good = (1..).zip(found).take_while(|(number, bytes)| record(*number) == **bytes);
        let value = good.last().map_or(0, |(number, _)| number);
        let length = value * RECORD as u64;
        if length < bytes.len() as u64 {
            eprintln!(
                "{} bytes behind record {value} are not whole and are cut off",
                bytes.len() as u64 - length
            );
            file.set_len(length)?;
        }
        file.sync_all()?;
        if fresh {
            os::durable::sync_folder(folder)?;
        }
        Ok(Counter { file, value })
    }

    fn increment(&mut self) -> io::Result<u64> {
        let value = self.value + 1;
        self.file.write_all_at(&record(value), self.value * RECORD as u64)?;
        self.file.sync_all()?;
        self.value = value;
        Ok(value)
    }
}

type Shared = Arc<Mutex<Counter>>;

/// Runs until it is killed or its storage fails.
///
/// # Errors
/// The folder or the address cannot be used.
pub fn run(args: &AppArgs) -> anyhow::Result<ExitCode> {
    let counter =
        Counter::open(&args.data).with_context(|| format!("open the counter in {}", args.data.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(args.listen)
            .await
            .with_context(|| format!("listen on {}", args.listen))?;
        if let Some(path) = &args.pid_file {
            os::durable::write(path, std::process::id().to_string().as_bytes())?;
        }
        let datagrams = tokio::net::UdpSocket::bind(args.listen)
            .await
            .with_context(|| format!("listen on {} for datagrams", args.listen))?;
        tokio::spawn(echo(datagrams));
        let router = Router::new()
            .route("/", get(page))
            .route("/value", get(value))
            .route("/increment", post(increment))
            .with_state(Arc::new(Mutex::new(counter)));
        axum::serve(listener, router).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Answers each datagram with its first bytes and the server's name: what a measurement of a failover asks, for a connection
/// that is being made waits a second and more before it is tried again.
async fn echo(socket: tokio::net::UdpSocket) {
    let name = server_name();
    let mut bytes = [0; DATAGRAM];
    loop {
        // An error tells of an earlier answer that nobody took.
        let Ok((length, from)) = socket.recv_from(&mut bytes).await else { continue };
        let _ = socket.send_to(&[&bytes[..length], name.as_bytes()].concat(), from).await;
    }
}

async fn value(State(counter): State<Shared>) -> Json<serde_json::Value> {
    // Waits for an increment under way on another thread: the value shown is a durable one.
    let shown =
        tokio::task::spawn_blocking(move || counter.lock().unwrap_or_else(PoisonError::into_inner).value);
    Json(json!({ "value": shown.await.ok() }))
}

/// An increment that is durable: the value, who says so, and when it was so (microseconds since 1970), for whoever checks
/// that never two servers say so at once.
fn acknowledgement(value: u64) -> serde_json::Value {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    json!({ "value": value, "server": server_name(), "at_us": at_us })
}

fn server_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

async fn increment(State(counter): State<Shared>) -> Response {
    let stored = tokio::task::spawn_blocking(move || {
        counter.lock().unwrap_or_else(PoisonError::into_inner).increment()
    });
    match stored.await {
        Ok(Ok(value)) => Json(acknowledgement(value)).into_response(),
        Ok(Err(error)) => {
            // After a failed fsync the kernel may hold another value than the disk: only a fresh start tells the truth.
            eprintln!("the counter cannot be stored: {error}");
            tokio::spawn(async { std::process::exit(1) });
            (StatusCode::INTERNAL_SERVER_ERROR, format!("not stored: {error}")).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn page(State(counter): State<Shared>) -> Html<String> {
    let Json(value) = value(State(counter)).await;
    let shown = value.get("value").cloned().unwrap_or_default();
    let server = server_name();
    Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Counter</title><style>body{{font:18px/1.5 system-ui;margin:3rem auto;max-width:26rem;text-align:center}}\
         output{{display:block;font-size:5rem;font-variant-numeric:tabular-nums}}button{{font:inherit;padding:.5em 1.5em}}\
         </style><h1>Counter</h1><output id=\"v\">{shown}</output><p><button id=\"b\">Add one</button></p>\
         <p>Kept on the mirrored disk, answered by <b>{server}</b>.</p><script>\
         b.onclick=async()=>{{b.disabled=true;try{{const a=await fetch('/increment',{{method:'POST'}});\
         if(a.ok)v.textContent=(await a.json()).value;else v.textContent='?'}}catch{{v.textContent='?'}}b.disabled=false}}\
         </script></html>"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_goes_on_where_it_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let mut counter = Counter::open(folder.path()).unwrap();
        assert_eq!((counter.increment().unwrap(), counter.increment().unwrap()), (1, 2));
        assert_eq!(Counter::open(folder.path()).unwrap().value, 2);
        let path = folder.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..RECORD + 3]).unwrap();
        assert_eq!(Counter::open(folder.path()).unwrap().value, 1);
        assert_eq!(fs::read(&path).unwrap(), whole[..RECORD]);
        fs::write(&path, [0; 64]).unwrap();
        assert_eq!(Counter::open(folder.path()).unwrap().value, 0);
    }
}
