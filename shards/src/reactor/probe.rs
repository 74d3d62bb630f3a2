//! What this kernel can do, found by trying.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, Probe, opcode, types};

use super::config::StartError;

/// A kernel feature that the reactor uses and has a substitute for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// IORING_OP_FIXED_FD_INSTALL: a descriptor number for a direct descriptor, for a moment.
    FixedFdInstall,
    /// IORING_OP_MSG_RING as the wake of a sleeping shard.
    MsgRingWake,
    /// Multishot accept.
    MultishotAccept,
    /// Multishot receive.
    MultishotRecv,
    /// The ring's own descriptor registered with its thread.
    RegisteredRing,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::FixedFdInstall,
        Self::MsgRingWake,
        Self::MultishotAccept,
        Self::MultishotRecv,
        Self::RegisteredRing,
    ];

    /// The name in `RINGMAIN_DISABLE_FEATURES` and in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FixedFdInstall => "fixed_fd_install",
            Self::MsgRingWake => "msg_ring_wake",
            Self::MultishotAccept => "multishot_accept",
            Self::MultishotRecv => "multishot_recv",
            Self::RegisteredRing => "registered_ring",
        }
    }

    /// Parses a comma-separated list of names, as an operator writes it to rule a feature out.
    ///
    /// # Errors
    ///
    /// The first name that is not known.
    pub fn parse_list(list: &str) -> Result<Vec<Self>, String> {
        list.split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(|name| {
                Self::ALL.into_iter().find(|f| f.name() == name).ok_or_else(|| name.to_owned())
            })
            .collect()
    }

    fn since(self) -> &'static str {
        match self {
            Self::FixedFdInstall => "6.8",
            Self::MsgRingWake | Self::RegisteredRing => "5.18",
            Self::MultishotAccept => "5.19",
            Self::MultishotRecv => "6.0",
        }
    }

    fn cost(self) -> &'static str {
        match self {
            Self::FixedFdInstall => {
                "each accepted connection takes an ordinary descriptor and a registration: more \
                 CPU per connect, and connects in progress count against RLIMIT_NOFILE"
            }
            Self::MsgRingWake => "waking a sleeping shard takes a system call of its own",
            Self::MultishotAccept => "each accepted connection takes a submission of its own",
            Self::MultishotRecv => "each receive takes a submission of its own",
            Self::RegisteredRing => "each enter looks the ring's descriptor up",
        }
    }
}

/// Something that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Degradation {
    /// What.
    pub feature: Feature,
    /// The kernel that brought it.
    pub since: &'static str,
    /// What it costs to do without.
    pub cost: &'static str,
}

/// What to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Features {
    present: [bool; Feature::ALL.len()],
}

impl Features {
    pub(super) fn has(self, feature: Feature) -> bool {
        self.present[feature as usize]
    }

    /// What is missing, for the log.
    pub(super) fn degradations(self) -> Vec<Degradation> {
        Feature::ALL
            .into_iter()
            .filter(|f| !self.has(*f))
            .map(|feature| Degradation { feature, since: feature.since(), cost: feature.cost() })
            .collect()
    }
}

/// Tries the kernel. Features in `disable` count as missing.
///
/// # Errors
///
/// When io_uring is forbidden, or something without a substitute is missing (before Linux 6.1).
pub(super) fn probe(disable: &[Feature]) -> Result<Features, StartError> {
    let plain = IoUring::new(4).map_err(|source| match source.raw_os_error() {
        Some(libc::ENOSYS) => StartError::KernelTooOld { missing: "io_uring" },
        _ => StartError::IoUringForbidden { source },
    })?;
    let mut ops = Probe::new();
    plain.submitter().register_probe(&mut ops).map_err(|_| too_old("IORING_REGISTER_PROBE"))?;
    drop(plain);
    let mut ring = trial_ring().map_err(|_| too_old("IORING_SETUP_DEFER_TASKRUN (6.1)"))?;
    if !ops.is_supported(opcode::MsgRingData::CODE) {
        return Err(too_old("IORING_OP_MSG_RING (5.18)"));
    }
    if ring.submitter().register_files_sparse(8).is_err() {
        return Err(too_old("a sparse table of direct descriptors (5.19)"));
    }
    try_send_fd(&mut ring).map_err(|_| too_old("IORING_MSG_SEND_FD (6.0)"))?;
    let wake = try_msg_ring(&mut ring).is_ok();
    let mut features = Features::default();
    for feature in Feature::ALL {
        let found = match feature {
            Feature::FixedFdInstall => ops.is_supported(opcode::FixedFdInstall::CODE),
            Feature::MsgRingWake => wake,
            // SEND_ZC came with 6.0, as multishot receive did, and later than multishot accept.
            Feature::MultishotAccept | Feature::MultishotRecv => {
                ops.is_supported(opcode::SendZc::CODE)
            }
            Feature::RegisteredRing => true, // registering falls back by itself
        };
        features.present[feature as usize] = found && !disable.contains(&feature);
    }
    Ok(features)
}

fn too_old(missing: &'static str) -> StartError {
    StartError::KernelTooOld { missing }
}

fn trial_ring() -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_taskrun_flag()
        .build(4)
}

fn try_msg_ring(ring: &mut IoUring) -> io::Result<()> {
    let mut peer = trial_ring()?;
    let entry = opcode::MsgRingData::new(types::Fd(peer.as_raw_fd()), 0, 7, None).build();
    complete(ring, entry)?;
    peer.submit_and_wait(1)?;
    match peer.completion().next() {
        Some(cqe) if cqe.user_data() == 7 => Ok(()),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn try_send_fd(ring: &mut IoUring) -> io::Result<()> {
    let peer = trial_ring()?;
    peer.submitter().register_files_sparse(8)?;
    let file = std::fs::File::open("/dev/null")?;
    ring.submitter().register_files_update(0, &[file.as_raw_fd()])?;
    let entry = opcode::MsgRingSendFd::new(
        types::Fd(peer.as_raw_fd()),
        types::Fixed(0),
        types::DestinationSlot::auto_target(),
        0,
    )
    .opcode_flags(super::handover::MSG_RING_CQE_SKIP)
    .build();
    complete(ring, entry)
}

fn complete(ring: &mut IoUring, entry: io_uring::squeue::Entry) -> io::Result<()> {
    // SAFETY: the trial entries point to no memory.
    unsafe { ring.submission().push(&entry).map_err(|_| io::ErrorKind::OutOfMemory)? };
    // Bounded: a kernel that never completes it must not hang the start.
    let second = types::Timespec::new().sec(1);
    ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&second))?;
    let result = ring.completion().next().map_or(-libc::EIO, |cqe| cqe.result());
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}
