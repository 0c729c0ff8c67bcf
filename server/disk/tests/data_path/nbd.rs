//! A small NBD client: the handshake with chunks, and one request after another or several at once.

use disk::Papers;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");

/// Commands.
pub const READ: u16 = 0;
pub const WRITE: u16 = 1;
pub const DISCONNECT: u16 = 2;
pub const FLUSH: u16 = 3;
pub const TRIM: u16 = 4;
pub const ZERO: u16 = 6;
/// Flags.
pub const FUA: u16 = 1;

trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

pub struct Client {
    stream: Box<dyn Wire>,
    cookie: u64,
    pub size: u64,
}

impl Client {
    pub fn unix(path: &Path) -> io::Result<Client> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(super::host::PATIENCE))?;
        Client::enter(Box::new(stream))
    }

    pub fn tcp(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(super::host::PATIENCE))?;
        Client::enter(Box::new(stream))
    }

    /// Over TLS, with papers of the set, or with others.
    pub fn secured(address: SocketAddr, papers: &Papers) -> io::Result<Client> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(super::host::PATIENCE))?;
        let mut hello = [0; 18];
        stream.read_exact(&mut hello)?;
        stream.write_all(&3_u32.to_be_bytes())?;
        let mut client = Client { stream: Box::new(stream.try_clone()?), cookie: 0, size: 0 };
        client.option(5, &[])?;
        let mut known = RootCertStore::empty();
        known.add(CertificateDer::from_pem_slice(papers.authority.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(known)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(papers.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(papers.key.as_bytes()).unwrap(),
            )
            .unwrap();
        let tls = ClientConnection::new(Arc::new(config), address.ip().into()).unwrap();
        client.stream = Box::new(StreamOwned::new(tls, stream));
        client.negotiate()?;
        Ok(client)
    }

    fn enter(stream: Box<dyn Wire>) -> io::Result<Client> {
        let mut client = Client { stream, cookie: 0, size: 0 };
        let hello: [u8; 18] = client.take()?;
        assert!(hello.starts_with(b"NBDMAGICIHAVEOPT"));
        client.stream.write_all(&3_u32.to_be_bytes())?;
        client.negotiate()?;
        Ok(client)
    }

    fn negotiate(&mut self) -> io::Result<()> {
        self.option(8, &[])?;
        // GO by the empty name, wanting nothing more.
        self.option(7, &[0; 6])?;
        assert!(self.size > 0, "no export told");
        Ok(())
    }

    fn option(&mut self, number: u32, data: &[u8]) -> io::Result<()> {
        let mut out = OPTION_MAGIC.to_be_bytes().to_vec();
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(&(data.len() as u32).to_be_bytes());
        out.extend_from_slice(data);
        self.stream.write_all(&out)?;
        loop {
            let head: [u8; 20] = self.take()?;
            let kind = u32::from_be_bytes(head[12..16].try_into().unwrap());
            let mut data = vec![0; u32::from_be_bytes(head[16..].try_into().unwrap()) as usize];
            self.stream.read_exact(&mut data)?;
            match kind {
                1 => return Ok(()),
                3 if data.starts_with(&[0, 0]) => {
                    self.size = u64::from_be_bytes(data[2..10].try_into().unwrap());
                }
                3 => {}
                other => return Err(io::Error::other(format!("option {number} answered {other:x}"))),
            }
        }
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Sends a request; gives its cookie.
    pub fn send(
        &mut self,
        kind: u16,
        flags: u16,
        offset: u64,
        length: u32,
        payload: &[u8],
    ) -> io::Result<u64> {
        self.cookie += 1;
        let mut out = 0x2560_9513_u32.to_be_bytes().to_vec();
        out.extend_from_slice(&flags.to_be_bytes());
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&self.cookie.to_be_bytes());
        out.extend_from_slice(&offset.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(payload);
        self.stream.write_all(&out)?;
        Ok(self.cookie)
    }

    /// The next reply: its cookie, the error, what was read.
    pub fn reply(&mut self) -> io::Result<(u64, u32, Vec<u8>)> {
        let magic = u32::from_be_bytes(self.take()?);
        if magic == 0x6744_6698 {
            let error = u32::from_be_bytes(self.take()?);
            return Ok((u64::from_be_bytes(self.take()?), error, Vec::new()));
        }
        assert_eq!(magic, 0x668e_33ef);
        let [_, flags, high, low]: [u8; 4] = self.take()?;
        assert_eq!(flags, 1, "one chunk is all");
        let cookie = u64::from_be_bytes(self.take()?);
        let mut data = vec![0; u32::from_be_bytes(self.take()?) as usize];
        self.stream.read_exact(&mut data)?;
        match u16::from_be_bytes([high, low]) {
            1 => Ok((cookie, 0, data.split_off(8))),
            0x8001 => Ok((cookie, u32::from_be_bytes(data[..4].try_into().unwrap()), Vec::new())),
            other => panic!("chunk {other}"),
        }
    }

    /// A request and its reply: the error, what was read.
    pub fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        offset: u64,
        length: u32,
        payload: &[u8],
    ) -> io::Result<(u32, Vec<u8>)> {
        let cookie = self.send(kind, flags, offset, length, payload)?;
        let (answered, error, data) = self.reply()?;
        assert_eq!(answered, cookie);
        Ok((error, data))
    }

    pub fn write(&mut self, flags: u16, offset: u64, payload: &[u8]) -> u32 {
        self.ask(WRITE, flags, offset, payload.len() as u32, payload).unwrap().0
    }

    pub fn read(&mut self, offset: u64, length: u32) -> Vec<u8> {
        let (error, data) = self.ask(READ, 0, offset, length, &[]).unwrap();
        assert_eq!(error, 0);
        data
    }
}
