//! Orders to a running demo: one JSON line in, one JSON line out, through a socket in its folder.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// The socket's name in the demo's folder.
pub const SOCKET: &str = "control.sock";
/// An order is one short line.
const REQUEST_BYTES_MAX: u64 = 4096;
/// The longest act is a power loss with a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// A status holds two views.
const ANSWER_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Connections at once.
const CONNECTIONS_MAX: usize = 32;
/// The kernel's limit of a socket's path is 108 bytes with the zero at its end.
const PATH_BYTES_MAX: usize = 107;

/// What can be ordered of a demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Power loss of a host.
    Kill,
    /// A host powered on again, or a cable plugged in again.
    Restart,
    /// A cable pulled.
    Cut,
    /// A cable plugged in again.
    Mend,
    /// A server's manager killed and kept away.
    StopNode,
    /// It may run again.
    StartNode,
    /// How the demo stands.
    Status,
}

/// One order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What to do.
    pub act: Act,
    /// To which host or cable; nothing for the status.
    #[serde(default)]
    pub target: String,
}

/// Talks to a running demo.
#[derive(Clone, Debug)]
pub struct Client(PathBuf);

impl Client {
    /// Of the demo that listens on this socket.
    #[must_use]
    pub fn new(socket: &Path) -> Client {
        Client(socket.to_owned())
    }

    /// Sends one order and waits for its answer: `{"ok":true}`, `{"error":"..."}` or the status. Blocks.
    ///
    /// # Errors
    /// No demo listens there, or it does not answer in time.
    pub fn ask(&self, request: &Request) -> anyhow::Result<Value> {
        let mut stream = UnixStream::connect(&self.0)
            .with_context(|| format!("no demo runs here ({}): is --dir right?", self.0.display()))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        writeln!(stream, "{}", serde_json::to_string(request)?)?;
        let mut line = String::new();
        BufReader::new(stream.take(ANSWER_BYTES_MAX))
            .read_line(&mut line)
            .context("the demo does not answer")?;
        serde_json::from_str(&line).context("the demo ended before it answered")
    }

    /// As [`Client::ask`], with a refusal as an error.
    ///
    /// # Errors
    /// The demo's own sentence, besides those of `ask`.
    pub fn order(&self, act: Act, target: &str) -> anyhow::Result<Value> {
        let answer = self.ask(&Request { act, target: target.to_owned() })?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => anyhow::bail!("{error}"),
            None => Ok(answer),
        }
    }
}

/// Listens in the folder; every order is given to `handle` on a thread of its own.
///
/// # Errors
/// The folder's path is too long for a socket, or the file system refused.
pub fn serve(
    folder: &Path,
    handle: impl Fn(Request) -> anyhow::Result<Value> + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let path = folder.join(SOCKET);
    if path.as_os_str().len() > PATH_BYTES_MAX {
        anyhow::bail!("{} is too long for a socket: choose a shorter --dir", path.display());
    }
    let _ = fs::remove_file(&path); // of an earlier launcher; the record says that none runs
    let listener = UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    let handle = Arc::new(handle);
    let running = Arc::new(AtomicUsize::new(0));
    let accept = move || {
        for stream in listener.incoming().flatten() {
            if running.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
                running.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let (handle, running) = (Arc::clone(&handle), Arc::clone(&running));
            thread::spawn(move || {
                if let Err(error) = answer(&stream, handle.as_ref()) {
                    tracing::debug!(%error, "an order was not answered");
                }
                running.fetch_sub(1, Ordering::SeqCst);
            });
        }
    };
    thread::Builder::new().name("control".into()).spawn(accept)?;
    Ok(())
}

fn answer(stream: &UnixStream, handle: &dyn Fn(Request) -> anyhow::Result<Value>) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    let mut line = String::new();
    BufReader::new(stream.take(REQUEST_BYTES_MAX)).read_line(&mut line)?;
    let done = serde_json::from_str(&line).context("this is no order").and_then(handle);
    let answer = done.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
    let mut stream = stream;
    writeln!(stream, "{answer}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_answered_and_refusals_are_sentences() {
        let folder = tempfile::tempdir().unwrap();
        serve(folder.path(), |request| {
            anyhow::ensure!(request.act == Act::Kill, "not that");
            Ok(json!({ "ok": request.target }))
        })
        .unwrap();
        let client = Client::new(&folder.path().join(SOCKET));
        assert_eq!(client.order(Act::Kill, "server1").unwrap(), json!({ "ok": "server1" }));
        assert_eq!(client.order(Act::StopNode, "").unwrap_err().to_string(), "not that");
        assert!(Client::new(Path::new("/no/such/socket")).order(Act::Status, "").is_err());
        let text = serde_json::to_string(&Request { act: Act::StopNode, target: "server2".into() }).unwrap();
        assert_eq!(text, r#"{"act":"stop-node","target":"server2"}"#);
    }
}
