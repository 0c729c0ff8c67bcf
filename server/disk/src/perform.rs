//! Performs the core's actions: one match.

use crate::backing::{Bytes, Durable};
use crate::link::bundle::Bundle;
use crate::nbd::Nbd;
use crate::ring::memory::Buffer;
use crate::token::DiskJob;
use crate::turn::{ControlJob, Loop, OWN};
use mirror::action::{Action, Data, LinkFault, OpId};
use mirror::input::{Input, LocalFault, Range};
use peer::block::{Body, Frame};
use peer::control::FromDisk;
use std::sync::Arc;

impl Loop {
    /// Does one thing the core wants. What fails at once comes back as an input.
    pub(crate) fn perform(&mut self, action: Action) {
        match action {
            Action::WriteLocal { op, range, data } => self.write_local(op, range, data),
            Action::ZeroLocal { op, range, unmap } => self.zero_local(op, range, unmap),
            Action::ReadLocal { op, range, into } => self.read_local(op, range, into),
            Action::HashLocal { op, range, keep } => {
                self.parts.backing.hash(op, self.data_at + range.offset, range.length as usize, keep);
            }
            Action::GatherLocal { op, ranges } => self.gather(op, &ranges),
            Action::WriteControl { op, write } => self.write_control(op, &write.bytes, write.offset),
            Action::FlushLocal { op } => {
                self.parts.backing.flush(&mut self.parts.ring, DiskJob::Flush { op }, Durable::Data);
            }
            Action::StoreControl { op, writes } => {
                let idle = self.control_jobs.is_empty();
                self.control_jobs.push_back(ControlJob { op, writes: writes.into(), failed: None });
                if idle {
                    self.control_next();
                }
            }
            Action::LoadControl { op, offset, length } => {
                let length = length as usize;
                let Some(buffer) = Buffer::new(length) else { return self.fail(op, libc::ENOMEM) };
                let job = DiskJob::Load { op, length };
                self.parts.backing.read(&mut self.parts.ring, job, offset, buffer, length);
            }
            Action::Send { frame, data } => self.send(&frame, data),
            Action::Release { data } => match data {
                Data::Payload(payload) => drop(self.payloads.remove(&payload)),
                Data::Buffer(op) => drop(self.buffers.remove(&op)),
                // A request's data lives until its reply, a part with its buffer.
                Data::Request(_) | Data::Part { .. } => {}
            },
            Action::Fill { request, payload } => {
                let data = self.payloads.get(&payload).cloned();
                if let (Some(data), Some(front)) = (data, self.owner(request)) {
                    front.filled(request, data);
                }
            }
            Action::Reply { request, errno } => {
                self.reply(request, errno);
            }
            Action::CloseLink { reason } => {
                if self.stream.is_some() {
                    match reason {
                        // Part of every change of term; a side that refuses makes it happen several times a second.
                        LinkFault::Restart => tracing::debug!(?reason, "block link closed"),
                        LinkFault::Stale | LinkFault::Protocol | LinkFault::Stranger | LinkFault::Silent => {
                            tracing::info!(?reason, "block link closed");
                        }
                    }
                    self.drop_stream();
                    self.parts.connector.again();
                }
            }
            Action::OpenFrontEnd { op } => self.open_fronts(op),
            Action::CloseFrontEnd { op, abort } => self.close_fronts(op, abort),
            Action::LeaseEnded | Action::LeaseRuns => {
                self.parts.guard.lease(self.parts.core.lease());
                self.parts.guard.look();
            }
            Action::Fenced => {
                self.end_export();
                self.parts.guard.fence();
            }
            Action::Tell(message) => self.tell(message),
            Action::Exit => self.exit = true,
        }
    }

    fn data(&mut self, data: Data) -> Option<Arc<Buffer>> {
        match data {
            Data::Request(request) => self.owner(request)?.data(request),
            Data::Payload(payload) => self.payloads.get(&payload).cloned(),
            Data::Buffer(op) | Data::Part { op, .. } => self.buffers.get(&op).cloned(),
        }
    }

    pub(crate) fn fail(&mut self, op: OpId, errno: i32) {
        self.inputs.push_back(Input::LocalDone { op, result: Err(LocalFault { errno }) });
    }

    fn write_local(&mut self, op: OpId, range: Range, data: Data) {
        // Only a front end that was aborted has lost its data: nobody waits for that write any more.
        let from = part_from(data);
        let Some(data) = self.data(data) else { return self.fail(op, libc::ECANCELED) };
        let length = range.length as usize;
        let job = DiskJob::Write { op, length };
        let data = Bytes { data, from, length };
        self.parts.backing.write(&mut self.parts.ring, job, self.data_at + range.offset, data);
    }

    fn read_local(&mut self, op: OpId, range: Range, into: Data) {
        let length = range.length as usize;
        let buffer = match into {
            Data::Request(request) => self.owner(request).and_then(|front| front.room(request)),
            Data::Buffer(_) | Data::Payload(_) | Data::Part { .. } => self.parts.spare.take(length),
        };
        let Some(buffer) = buffer else { return self.fail(op, libc::ECANCELED) };
        let job = DiskJob::Read { op, length, into };
        self.parts.backing.read(&mut self.parts.ring, job, self.data_at + range.offset, buffer, length);
    }

    fn send(&mut self, frame: &Frame, data: Option<Data>) {
        let from = data.map_or(0, part_from);
        let data = data.and_then(|data| self.data(data));
        // An asynchronous write is answered, and its slot another's, long before it has left: the frame keeps its own bytes.
        let journals = self.parts.core.keeps_frames() && matches!(frame.body, Body::Write { .. });
        let data = if journals { data.and_then(|data| copied(&data, frame.payload_length())) } else { data };
        let Some(stream) = &mut self.stream else { return };
        match stream.queue(frame, data.as_ref().map(|data| (data, from))) {
            Ok(true) => return,
            Ok(false) => tracing::warn!("the twin takes nothing: block link closed"),
            Err(error) => tracing::warn!(%error, "a frame cannot be sent: block link closed"),
        }
        self.drop_stream();
        self.parts.connector.again();
        self.inputs.push_back(Input::LinkLost);
    }

    fn tell(&mut self, message: FromDisk) {
        let message = match message {
            FromDisk::Done { ticket, .. } if ticket == OWN => return,
            FromDisk::Done { .. } => message,
            FromDisk::Status(mut status) => {
                if status.rebuild.is_none() {
                    self.parts.spare.clear();
                    self.segments.clear();
                }
                status.device = self.device.as_ref().map(|path| path.display().to_string());
                status.exports = self.parts.nbd.as_ref().map(Nbd::places).unwrap_or_default();
                status.link_address = self.stream.as_ref().and_then(Bundle::address);
                status.sent_bytes = self.sent_before + self.stream.as_ref().map_or(0, Bundle::sent);
                FromDisk::Status(status)
            }
        };
        self.parts.control.tell(&message);
    }
}

/// The first bytes in memory of their own; `None` without any: then the frame cannot be sent and the link is closed.
fn copied(data: &Buffer, length: u32) -> Option<Arc<Buffer>> {
    let bytes = data.bytes().get(..length as usize)?;
    let mut copy = Buffer::new(bytes.len())?;
    copy.bytes_mut().get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(Arc::new(copy))
}

/// The first byte of a buffer that is meant.
fn part_from(data: Data) -> usize {
    match data {
        Data::Part { from, .. } => from as usize,
        Data::Request(_) | Data::Payload(_) | Data::Buffer(_) => 0,
    }
}
