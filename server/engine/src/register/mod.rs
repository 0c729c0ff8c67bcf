//! A group's register: one compare-and-swap value on three acceptors (both servers and the witness), CASPaxos.
//!
//! Pure and free of time: the engine decides when to propose, to repeat and to give up. Every message that leaves here may be
//! sent only after the register's record, as it then is, is durable (rule 2); because a quorum needs somebody else's answer
//! to such a message, the own vote may be counted at once.
//!
//! The rules are those of ARCHITECTURE "The register"; each is marked at the line that keeps it, and [`RegisterFaults`] takes
//! it out for the checker, which must find what breaks.

pub mod acceptor;
pub mod ballot;
pub mod proposer;
pub mod value;

pub use acceptor::Acceptor;
pub use peer::cluster::{Ballot, Proposal, RegisterMessage, RegisterValue, Servers};
pub use proposer::{Acks, Effect, Register, RegisterRecord};
pub use value::Change;

use serde::{Deserialize, Serialize};

/// Rules taken out on purpose, so that the checker shows what each is good for. All false in the product.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RegisterFaults {
    /// Rule 1: propose whatever was read, in sync or not.
    pub propose_out_of_sync: bool,
    /// Rule 1: write the read value back when the change does not apply.
    pub write_back: bool,
    /// Rule 2: the own acceptor accepts only with the others, not before.
    pub own_acceptor_last: bool,
    /// Rule 3: a proposal is not recorded as pending.
    pub forget_pending: bool,
    /// Rule 3: a promise to a later ballot ends an earlier proposal.
    pub promise_ends_pending: bool,
    /// Rule 4: the known value is not stored with the end of pending.
    pub known_in_memory: bool,
    /// Rule 5: acknowledge by the known value alone.
    pub ack_by_known: bool,
    /// Rule 5: of several pending proposals only the latest counts.
    pub ack_by_latest: bool,
    /// Rule 6: a holder re-admits before it has learnt that it holds.
    pub readmit_unlearnt: bool,
    /// Rule 7: promotion keeps the old holder in sync.
    pub promote_keeps_old: bool,
    /// Rule 8: a standby removes itself.
    pub leave_unasked: bool,
    /// Rule 9: the old holder goes on while its hand-over is pending.
    pub ack_while_handing_over: bool,
    /// Rule 10: a restarted holder known to be alone resumes whatever is pending.
    pub resume_with_pending: bool,
    /// An acceptor accepts below its promise.
    pub accept_below_promise: bool,
}
