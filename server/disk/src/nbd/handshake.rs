//! The NBD handshake (fixed newstyle) on a thread of its own: options until the client enters the export or goes.
//!
//! Everything a client sends is bounded: bytes of an option, options, queries, and by the caller the whole time.

use super::wire::{Agreed, BLOCK_MAX, BLOCK_MIN};
use crate::limits::{NBD_OPTION_BYTES_MAX, NBD_OPTIONS_MAX};
use crate::tls::{Over, Tls};
use rustls::{ServerConfig, ServerConnection};
use std::io::{self, Read, Write};
use std::sync::Arc;

const HELLO: [u8; 18] = *b"NBDMAGICIHAVEOPT\x00\x03";
const OPTION_MAGIC: [u8; 8] = *b"IHAVEOPT";
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Flags of the client: fixed newstyle, no zeroes behind the answer to EXPORT_NAME.
const CLIENT_FIXED: u32 = 1;
const CLIENT_NO_ZEROES: u32 = 2;

const EXPORT_NAME: u32 = 1;
const ABORT: u32 = 2;
const LIST: u32 = 3;
const STARTTLS: u32 = 5;
const INFO: u32 = 6;
const GO: u32 = 7;
const STRUCTURED_REPLY: u32 = 8;
const LIST_META_CONTEXT: u32 = 9;
const SET_META_CONTEXT: u32 = 10;

const ACK: u32 = 1;
const SERVER: u32 = 2;
const INFORMATION: u32 = 3;
const UNSUPPORTED: u32 = 0x8000_0001;
const INVALID: u32 = 0x8000_0003;
const TLS_WANTED: u32 = 0x8000_0005;
const UNKNOWN: u32 = 0x8000_0006;
const TOO_BIG: u32 = 0x8000_0009;

const INFO_EXPORT: u16 = 0;
const INFO_NAME: u16 = 1;
const INFO_DESCRIPTION: u16 = 2;
const INFO_BLOCK_SIZE: u16 = 3;

/// Has flags, flush, FUA, trim, write-zeroes, several connections see one disk (nothing is cached before the core).
const FLAGS: u16 = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 8;
/// A read is never cut up.
const FLAG_DONT_FRAGMENT: u16 = 1 << 7;

/// The one export of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Export {
    /// Its name; the empty name means it too.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// What is best aligned to: the backing's own unit.
    pub preferred: u32,
}

/// Why a handshake ended without an export.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// The connection.
    #[error("the connection ended: {0}")]
    Connection(#[from] io::Error),
    /// The client went, in order.
    #[error("the client went")]
    Left,
    /// The client does not speak the protocol, or too much of it.
    #[error("not the NBD protocol: {0}")]
    Protocol(&'static str),
}

/// What follows an option.
enum Next {
    Option,
    /// The TLS handshake.
    Secure,
    Enter,
}

/// How the options are spoken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// In clear, to the end.
    Plain,
    /// In clear, and nothing but the way out of it is answered (the protocol's mode FORCEDTLS).
    Bare,
    /// Over TLS.
    Secured,
}

/// Negotiates until the client enters the export: with `tls` only over TLS, as a client that has shown its certificate.
///
/// # Errors
/// It does not.
pub(crate) fn negotiate<S: Read + Write>(
    stream: &mut S,
    export: &Export,
    tls: Option<&Arc<ServerConfig>>,
) -> Result<(Agreed, Option<Tls>), Ended> {
    stream.write_all(&HELLO)?;
    let flags = u32::from_be_bytes(take(stream)?);
    if flags & !(CLIENT_FIXED | CLIENT_NO_ZEROES) != 0 {
        return Err(Ended::Protocol("unknown client flags"));
    }
    let no_zeroes = flags & CLIENT_NO_ZEROES != 0;
    let Some(tls) = tls else { return Ok((talk(stream, export, Stage::Plain, no_zeroes)?, None)) };
    talk(stream, export, Stage::Bare, no_zeroes)?;
    let connection = ServerConnection::new(tls.clone()).map_err(io::Error::other)?;
    let mut tls = Tls::shake(connection, stream)?;
    // What was agreed in clear counts for nothing: anybody may have said it.
    let agreed = talk(&mut Over { tls: &mut tls, stream }, export, Stage::Secured, no_zeroes)?;
    Ok((agreed, Some(tls)))
}

/// Options until this stage is over.
fn talk<S: Read + Write>(
    stream: &mut S,
    export: &Export,
    stage: Stage,
    no_zeroes: bool,
) -> Result<Agreed, Ended> {
    let mut talk = Talk { stream, export, stage, agreed: Agreed::default(), no_zeroes };
    for _ in 0..NBD_OPTIONS_MAX {
        match talk.option()? {
            Next::Option => {}
            Next::Secure | Next::Enter => return Ok(talk.agreed),
        }
    }
    Err(Ended::Protocol("too many options"))
}

fn take<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

struct Talk<'a, S> {
    stream: &'a mut S,
    export: &'a Export,
    stage: Stage,
    agreed: Agreed,
    no_zeroes: bool,
}

impl<S: Read + Write> Talk<'_, S> {
    fn option(&mut self) -> Result<Next, Ended> {
        if take::<8>(self.stream)? != OPTION_MAGIC {
            return Err(Ended::Protocol("an option begins otherwise"));
        }
        let option = u32::from_be_bytes(take(self.stream)?);
        let length = u32::from_be_bytes(take(self.stream)?);
        if length as usize > NBD_OPTION_BYTES_MAX {
            // Not worth reading; nor could EXPORT_NAME be answered.
            self.answer(option, TOO_BIG, &[])?;
            return Err(Ended::Protocol("an option is too long"));
        }
        let mut data = vec![0; length as usize];
        self.stream.read_exact(&mut data)?;
        match option {
            STARTTLS => self.start_tls(&data),
            // The option has no answer but the end of the connection.
            EXPORT_NAME if self.stage == Stage::Bare => Err(Ended::Protocol("TLS is wanted")),
            _ if self.stage == Stage::Bare && option != ABORT => self.done(option, TLS_WANTED),
            EXPORT_NAME => self.export_name(&data),
            ABORT => {
                self.answer(option, ACK, &[])?;
                Err(Ended::Left)
            }
            LIST => self.list(&data),
            INFO | GO => self.info(option, &data),
            STRUCTURED_REPLY => {
                self.agreed.structured |= data.is_empty();
                self.done(option, if data.is_empty() { ACK } else { INVALID })
            }
            LIST_META_CONTEXT | SET_META_CONTEXT => self.contexts(option, &data),
            _ => self.done(option, UNSUPPORTED),
        }
    }

    fn answer(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        let mut out = Vec::with_capacity(20 + data.len());
        out.extend_from_slice(&REPLY_MAGIC.to_be_bytes());
        out.extend_from_slice(&option.to_be_bytes());
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&(data.len() as u32).to_be_bytes());
        out.extend_from_slice(data);
        self.stream.write_all(&out)
    }

    fn done(&mut self, option: u32, kind: u32) -> Result<Next, Ended> {
        self.answer(option, kind, &[])?;
        Ok(Next::Option)
    }

    fn start_tls(&mut self, data: &[u8]) -> Result<Next, Ended> {
        match self.stage {
            Stage::Plain => self.done(STARTTLS, UNSUPPORTED),
            Stage::Bare if data.is_empty() => {
                self.answer(STARTTLS, ACK, &[])?;
                Ok(Next::Secure)
            }
            Stage::Bare | Stage::Secured => self.done(STARTTLS, INVALID),
        }
    }

    fn is_ours(&self, name: &[u8]) -> bool {
        name.is_empty() || name == self.export.name.as_bytes()
    }

    fn flags(&self) -> u16 {
        FLAGS | if self.agreed.structured { FLAG_DONT_FRAGMENT } else { 0 }
    }

    fn export_name(&mut self, name: &[u8]) -> Result<Next, Ended> {
        if !self.is_ours(name) {
            // The option has no answer but the end of the connection.
            return Err(Ended::Protocol("another export is wanted"));
        }
        let mut out = self.export.size.to_be_bytes().to_vec();
        out.extend_from_slice(&self.flags().to_be_bytes());
        if !self.no_zeroes {
            out.extend_from_slice(&[0; 124]);
        }
        self.stream.write_all(&out)?;
        Ok(Next::Enter)
    }

    fn list(&mut self, data: &[u8]) -> Result<Next, Ended> {
        if !data.is_empty() {
            return self.done(LIST, INVALID);
        }
        let name = self.export.name.as_bytes();
        let mut out = (name.len() as u32).to_be_bytes().to_vec();
        out.extend_from_slice(name);
        self.answer(LIST, SERVER, &out)?;
        self.done(LIST, ACK)
    }

    fn info(&mut self, option: u32, data: &[u8]) -> Result<Next, Ended> {
        let mut fields = Fields(data);
        let Some((name, wanted)) = fields.string().and_then(|name| Some((name, fields.informations()?)))
        else {
            return self.done(option, INVALID);
        };
        if !self.is_ours(name) {
            return self.done(option, UNKNOWN);
        }
        let mut out = INFO_EXPORT.to_be_bytes().to_vec();
        out.extend_from_slice(&self.export.size.to_be_bytes());
        out.extend_from_slice(&self.flags().to_be_bytes());
        self.answer(option, INFORMATION, &out)?;
        let mut out = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
        for size in [BLOCK_MIN, self.export.preferred, BLOCK_MAX] {
            out.extend_from_slice(&size.to_be_bytes());
        }
        // Told whether asked or not: a client that does not know it is refused what does not fit.
        self.answer(option, INFORMATION, &out)?;
        for (kind, text) in [(INFO_NAME, self.export.name.as_str()), (INFO_DESCRIPTION, "futago mirror set")]
        {
            if wanted.contains(&kind) {
                let mut out = kind.to_be_bytes().to_vec();
                out.extend_from_slice(text.as_bytes());
                self.answer(option, INFORMATION, &out)?;
            }
        }
        self.answer(option, ACK, &[])?;
        Ok(if option == GO { Next::Enter } else { Next::Option })
    }

    fn contexts(&mut self, option: u32, data: &[u8]) -> Result<Next, Ended> {
        let mut fields = Fields(data);
        let asked = fields.string().filter(|_| fields.queries() && self.agreed.structured);
        let Some(name) = asked else { return self.done(option, INVALID) };
        // There is none: where the local copy has holes says little of the twin's.
        self.done(option, if self.is_ours(name) { ACK } else { UNKNOWN })
    }
}

/// Fields of an option's data, front to back; nothing may be left in the end.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }

    fn u16(&mut self) -> Option<u16> {
        self.bytes(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.bytes(length as usize)
    }

    fn informations(&mut self) -> Option<Vec<u16>> {
        let count = self.u16()?;
        // Bounded by the option's own length.
        let all = (0..count).map(|_| self.u16()).collect::<Option<Vec<u16>>>()?;
        self.0.is_empty().then_some(all)
    }

    /// Whether the rest is a list of queries, well formed.
    fn queries(&mut self) -> bool {
        let count = self.u32();
        // Ends with the bytes, whatever the count says.
        count.is_some_and(|count| (0..count).all(|_| self.string().is_some())) && self.0.is_empty()
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
