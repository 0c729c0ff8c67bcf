//! What a disk, partition or image file is, and every reason for which one is not taken for a mirror set (C2, [4.1.2], [8.5]).

use crate::ids::{NodeId, SetId};
use serde::{Deserialize, Serialize};

/// Smallest control area in front of the data [7.1.2], and the least data behind it, in bytes.
pub const CONTROL_BYTES_MIN: u64 = 1024 * 1024;
/// The least data of a mirror set, in bytes: the unit in which data is aligned.
pub const DATA_BYTES_MIN: u64 = 1024 * 1024;

/// What kind of thing a backing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum BackingKind {
    /// A whole block device: disk, logical volume, array, loop device.
    Disk,
    /// A partition of one.
    Partition,
    /// An image file.
    File,
}

/// Where a backing lies and how large it is: what must not change once it is registered [8.5].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackingShape {
    /// Its kind.
    pub kind: BackingKind,
    /// Its bytes; of a file 0, for it may lie on a file system that grows it.
    pub bytes: u64,
    /// Of a partition: its first sector of 512 bytes.
    pub start: u64,
    /// Of a disk: first sector and sectors of each partition on it, in order.
    pub partitions: Vec<(u64, u64)>,
}

/// A backing as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackingFound {
    /// Its shape; absent if there is no such thing yet (an image file that would be made).
    pub shape: Option<BackingShape>,
    /// Bytes it has.
    pub bytes: u64,
    /// Why it is not taken; empty: it is.
    pub faults: Vec<BackingFault>,
}

impl BackingFound {
    /// Nothing speaks against it, or only data that was confirmed to be lost.
    #[must_use]
    pub fn is_usable(&self, data_may_be_lost: bool) -> bool {
        self.faults.iter().all(|fault| data_may_be_lost && fault.is_confirmable())
    }
}

/// Why a backing is not taken. Each has a stable number (`code`) and a sentence with the remedy in the texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the line over a variant names its fields")]
pub enum BackingFault {
    /// There is nothing at that path, and no image file can be made there.
    Missing,
    /// Neither a block device nor a file.
    NotADisk,
    /// It cannot be looked at.
    Unreadable { reason: String },
    /// The disk that holds the root file system, or a partition of it.
    Root,
    /// It, or a partition on it, is mounted.
    Mounted { point: String },
    /// It, or a partition on it, is swap space in use.
    Swap,
    /// It can be taken out while in use.
    Removable,
    /// Writing is not possible.
    ReadOnly,
    /// A physical volume of LVM.
    Lvm,
    /// A member of an array.
    Raid,
    /// Something of the kernel is stacked on it.
    Held { by: String },
    /// Another program or the kernel has it for itself.
    InUse,
    /// It carries the copy of another mirror set.
    OtherSet { set: SetId, side: NodeId },
    /// It carries the copy of a mirror set that was released: its data is still there.
    Released { set: SetId, side: NodeId },
    /// It carries data, which would be lost.
    Carries { what: String },
    /// Control area and data do not fit.
    TooSmall { needed: u64, found: u64 },
    /// Its size or its partition table is not what was registered.
    Changed,
}

impl BackingFault {
    /// Taken all the same once a person has confirmed that the data on it is lost (C2).
    #[must_use]
    pub fn is_confirmable(&self) -> bool {
        matches!(
            self,
            BackingFault::Carries { .. } | BackingFault::OtherSet { .. } | BackingFault::Released { .. }
        )
    }

    /// The stable number, shown as `M-3201` (G13).
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            BackingFault::Missing => 3201,
            BackingFault::NotADisk => 3202,
            BackingFault::Unreadable { .. } => 3203,
            BackingFault::Root => 3204,
            BackingFault::Mounted { .. } => 3205,
            BackingFault::Swap => 3206,
            BackingFault::Removable => 3207,
            BackingFault::ReadOnly => 3208,
            BackingFault::Lvm => 3209,
            BackingFault::Raid => 3210,
            BackingFault::Held { .. } => 3211,
            BackingFault::InUse => 3212,
            BackingFault::OtherSet { .. } => 3213,
            BackingFault::Carries { .. } => 3214,
            BackingFault::TooSmall { .. } => 3215,
            BackingFault::Changed => 3216,
            BackingFault::Released { .. } => 3217,
        }
    }
}
