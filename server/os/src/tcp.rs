//! What the kernel knows of a TCP connection.
#![allow(unsafe_code, reason = "TCP_INFO has no safe wrapper among the libraries in use")]

use crate::{Doing as _, Failure};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

/// For how long nothing has come over a connection: data that nobody has read yet counts as having come.
///
/// # Errors
/// It is no TCP connection.
pub fn silent_for(socket: BorrowedFd<'_>) -> Result<Duration, Failure> {
    // SAFETY: all zeroes is a valid tcp_info: it has numbers only.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = std::mem::size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `info`, which both outlive the call.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(std::io::Error::last_os_error()).doing(|| "ask for TCP_INFO".into());
    }
    Ok(Duration::from_millis(u64::from(info.tcpi_last_data_recv)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd as _;
    use std::time::Instant;

    #[test]
    fn data_that_nobody_read_ends_the_silence() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let limit = Instant::now() + Duration::from_secs(20);
        while silent_for(far.as_fd()).unwrap() < Duration::from_millis(100) {
            assert!(Instant::now() < limit);
            std::thread::sleep(Duration::from_millis(10));
        }
        near.write_all(b"a piece").unwrap();
        while silent_for(far.as_fd()).unwrap() >= Duration::from_millis(100) {
            assert!(Instant::now() < limit);
        }
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(silent_for(datagrams.as_fd()).is_err());
    }
}
