//! Every bound of the disk process, each with its reason.

use std::time::Duration;

/// Bytes of a small slot: file systems write 4 KiB blocks, journals up to 16 KiB at once.
pub const SMALL_BYTES: usize = 16 * 1024;
/// Small slots: one for each request the kernel may have under way ([`BACKGROUND_MAX`]).
pub const SMALL_SLOTS: usize = 256;
/// Bytes of a large slot: the largest request of the front end and the longest payload of a frame.
pub const LARGE_BYTES: usize = 1024 * 1024;
/// Large slots: four under way fill any disk, one more stands ready to be read into; all slots stay below 10 MiB so that
/// a set fits the 18 MB of requirement C14.
pub const LARGE_SLOTS: usize = 5;
/// Bytes of a buffer of a rebuild: its longest run. There are as many as its runs in flight need, 4 MiB
/// (`mirror::config::BUFFERED_MAX`), and none without one.
pub const RUN_BYTES: usize = (mirror::config::RUN_BLOCKS_LONG * peer::block::BLOCK_BYTES) as usize;
/// Bytes of a buffer of what is kept of an older version: one segment. As many as are under way at once, 4 MiB
/// (`mirror::undo::keeping`), and none without any.
pub const SEGMENT_BYTES: usize =
    (mirror::layout::segment::SEGMENT_BLOCKS_MAX * peer::block::BLOCK_BYTES) as usize;
/// Threads that read and hash: while one hashes, the others' reads keep the disk busy.
pub const HASHERS: usize = 4;
/// Largest write the kernel may send in one request; the kernel's own limit is 256 pages.
pub const WRITE_MAX: u32 = 1024 * 1024;
/// Requests the kernel may have under way; its default of 12 costs a third of the throughput (DATA-PATH).
pub const BACKGROUND_MAX: u16 = 256;
/// Requests that a connection is drained of at most when it is taken over: many times [`BACKGROUND_MAX`].
pub const UNANSWERED_MAX: usize = 16 * 1024;
/// Requests taken from the kernel before what they caused is submitted: batches without letting the disk idle.
pub const REQUESTS_PER_TURN: usize = 64;

/// Submission entries of the ring: a full turn of requests, each with a write and a send, fits.
pub const RING_ENTRIES: u32 = 256;
/// Completion entries: four times the submissions, so that a burst never overflows.
pub const RING_COMPLETIONS: u32 = 1024;
/// Busy-poll before sleeping: most of a single write's latency is wake-ups (DATA-PATH). Longer than a fast disk takes for a
/// write and its flush, so that one who waits for each is met awake.
pub const SPIN: Duration = Duration::from_micros(250);
/// Waits that must have ended soon enough, one after another, before spinning is begun.
pub const SPIN_AFTER: u32 = 4;
/// Spins in vain, one after another, that end it.
pub const SPIN_VAIN_MAX: u32 = 3;

/// Nice value of the process: everybody's. It is started by a thread of node that goes before others; a process that spins
/// must not, or the threads it waits for do not get the processor (a flush after each write: a quarter of the speed).
pub const PRIORITY: i32 = 0;

/// Frames of one send: with [`SEND_BYTES`] the length of a batch.
pub const SEND_FRAMES: usize = 64;
/// Bytes of one send: what a socket buffer takes at once.
pub const SEND_BYTES: usize = 1024 * 1024;
/// Bytes received at once into the staging buffer.
pub const STAGING_BYTES: usize = 256 * 1024;
/// Frames that wait to be sent; the core's own windows stay far below, so more means a broken core.
pub const OUTGOING_MAX: usize = 65_536;

/// Connections of one block link: one for each interconnect of a mirror set (C9).
pub const LANES_MAX: usize = 2;
/// How often a lane says that it lives: several times within [`LANE_SILENT`].
pub const LANE_BEAT: Duration = Duration::from_millis(60);
/// A lane from which nothing came for so long while the other one lives is given up: well before the link as a whole counts
/// as silent (600 ms), so that what it took with it still arrives in time over the other.
pub const LANE_SILENT: Duration = Duration::from_millis(250);
/// How much further behind the usual lane may be before frames take the other: smaller batches gain nothing.
pub const LANE_SLACK_BYTES: usize = 128 * 1024;
/// Frames that may come before their turn: above what the windows of the core allow, an asynchronous set's journal being the
/// largest (`mirror::config::JOURNAL_WRITES_MAX`). Those with a payload are bounded by the slots.
pub const AHEAD_MAX: usize = 16 * 1024;
/// How often an interconnect without a connection is tried while another one carries the link.
pub const LANE_AGAIN: Duration = Duration::from_millis(500);

/// Shortest payload worth packing: a block.
pub const PACK_MIN: usize = 4096;
/// A packed payload must be smaller by one part in so many: unpacking costs time too.
pub const PACK_GAIN: usize = 8;

/// One attempt to reach the twin over one interconnect: many times a round trip, short enough to try both before
/// `reconnect_grace` (500 ms) is over.
pub const DIAL: Duration = Duration::from_millis(200);
/// The whole handshake: two messages each way.
pub const HANDSHAKE: Duration = Duration::from_millis(500);
/// Pause after a failed round of dialling: first and longest.
pub const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// A connection that lived so long was a good one: the next attempt needs no pause.
pub const LASTING: Duration = Duration::from_millis(500);
/// How often a listener that could not be opened is tried again.
pub const LISTEN_AGAIN: Duration = Duration::from_millis(500);
/// Connections in their handshake at once: a stranger must not use up threads.
pub const HANDSHAKES_MAX: usize = 8;

/// Clients of the export at once: a virtual machine or tool uses up to eight connections.
pub const NBD_CONNECTIONS_MAX: usize = 16;
/// Handshakes at once: a stranger must not use up threads.
pub const NBD_HANDSHAKES_MAX: usize = 8;
/// The whole handshake: some ten messages each way.
pub const NBD_HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest option of a handshake: a name of 4096 bytes, the protocol's limit, and queries.
pub const NBD_OPTION_BYTES_MAX: usize = 16 * 1024;
/// Options of one handshake: tools send fewer than ten.
pub const NBD_OPTIONS_MAX: usize = 64;
/// Requests of one client under way: with all clients and the kernel's 256 they stay below the core's 1024.
pub const NBD_REQUESTS_MAX: usize = 32;
/// The export's own slots: a slow client keeps only other clients waiting. 5 MiB, only where there is an export.
pub const NBD_SMALL_SLOTS: usize = 64;
/// Of the large ones: as [`LARGE_SLOTS`], none stands ready.
pub const NBD_LARGE_SLOTS: usize = 4;
/// Bytes received at once from a client.
pub const NBD_STAGING_BYTES: usize = 64 * 1024;
/// Longest payload of a refused write that is passed over: what clients that ask for no block sizes take for granted (32
/// MiB), with room. Behind a longer one the connection ends.
pub const NBD_SKIP_MAX: u64 = 64 * 1024 * 1024;
/// How long a client may keep a slot by sending half a payload or taking no replies.
pub const NBD_STALL: Duration = Duration::from_secs(30);
/// How long a withdrawal waits for what the export has taken to be answered.
pub const NBD_DRAIN: Duration = Duration::from_secs(2);

/// The lock of a dead predecessor goes with its last write: some 35 ms were seen (DATA-PATH), a hung disk takes longer.
pub const LOCK: Duration = Duration::from_secs(10);
/// Mounting and attaching the device; a healthy one takes milliseconds.
pub const ATTACH: Duration = Duration::from_secs(10);
/// How long a withdrawal waits for a probe of the device to end, or an unmounted file system to let go.
pub const CLOSING: Duration = Duration::from_secs(1);
/// How often the guard looks at the lease and refreshes addresses; kernel lifetimes are whole seconds.
pub const GUARD: Duration = Duration::from_millis(200);
/// How often the keeper looks at the leases, if none ends earlier.
pub const KEEPER_LOOK: Duration = Duration::from_secs(1);
/// A disk process that lives fences itself; one that has not so long after is stopped, and the keeper does it (microseconds).
/// Within the margin that a promotion waits.
pub const KEEPER_SLACK: u64 = 50_000;
/// A message that is announced is there.
pub const KEEPER_TAKE: Duration = Duration::from_millis(10);
/// For an answer of the keeper: it starts a process or less.
pub const KEEPER_ANSWER: Duration = Duration::from_secs(1);
/// For a keeper to come up.
pub const KEEPER_START: Duration = Duration::from_secs(1);
/// How often a disk process looks whether its keeper lives, and tries again to tell it.
pub const KEEPER_AGAIN: Duration = Duration::from_millis(100);
/// Connections to the keeper: two for each set, and node's.
pub const KEEPER_CONNECTIONS: usize = 128;
/// So many deaths of a set's processes within [`DEATHS_WITHIN`] end it: what kills them each time would go on doing so, and the
/// application is better off with an error here and a failover (DESIGN section 3).
pub const DEATHS_MAX: usize = 5;
/// See [`DEATHS_MAX`].
pub const DEATHS_WITHIN: Duration = Duration::from_secs(60);
/// How long the end of the process waits for its own fence; the kernel's part takes milliseconds.
pub const FENCE_WAIT: Duration = Duration::from_secs(3);
/// Status messages for mere progress (`peer::control::FromDisk`).
pub const CONTROL_OUT_MAX: usize = 1024 * 1024;
/// Bytes the volatile backing holds before it applies some early, as a disk's cache does.
pub const VOLATILE_BYTES: usize = 64 * 1024 * 1024;
/// Jobs that wait for a worker thread.
pub const JOBS_MAX: usize = 4096;
/// Stack of a worker thread: locked in memory, and none recurses.
pub const STACK_BYTES: usize = 256 * 1024;
