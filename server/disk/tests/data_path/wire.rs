//! A cable between the two servers of a test that can be pulled and put back, and that counts what goes over it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{sleep, spawn};
use std::time::Duration;

/// How often a pulled cable looks whether it is back.
const LOOK: Duration = Duration::from_millis(5);

/// Passes connections from one address on to another.
#[derive(Clone)]
pub struct Cable {
    cut: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    seen: Arc<AtomicBool>,
}

/// Text that a test writes many times, to see whether it goes over the wire in clear.
pub const MARK: &[u8; 32] = b"<this is not for everyone's eyes";

impl Cable {
    /// Lies between these addresses until the test's end.
    pub fn new(from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Self {
        let cable = Cable { cut: Arc::default(), bytes: Arc::default(), seen: Arc::default() };
        let listener = TcpListener::bind((from, port)).unwrap();
        let lies = cable.clone();
        spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                lies.whole();
                let Ok(far) = TcpStream::connect((to, port)) else { continue };
                let (here, there) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                let (one, two) = (lies.clone(), lies.clone());
                spawn(move || one.pass(near, far));
                spawn(move || two.pass(there, here));
            }
        });
        cable
    }

    /// Nothing gets through any more, and nobody is told.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    /// As before.
    pub fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }

    /// Bytes passed on so far, both ways.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    /// The mark went over it in clear.
    pub fn seen(&self) -> bool {
        self.seen.load(Ordering::SeqCst)
    }

    fn whole(&self) {
        while self.cut.load(Ordering::SeqCst) {
            sleep(LOOK);
        }
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(length) = from.read(&mut bytes) {
            self.whole();
            if length == 0 || to.write_all(&bytes[..length]).is_err() {
                break;
            }
            self.bytes.fetch_add(length as u64, Ordering::SeqCst);
            if bytes[..length].windows(MARK.len()).any(|part| part == MARK) {
                self.seen.store(true, Ordering::SeqCst);
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}
