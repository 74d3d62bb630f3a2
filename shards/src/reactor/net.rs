//! The net task of a shard: reap, one turn of the machine, perform, submit, sleep.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use io_uring::{cqueue, opcode, squeue, types};

use super::accept::Acceptor;
use super::background;
use super::children::Children;
use super::conn::{Conn, Conns, Phase, Pool};
use super::follow::Follow;
use super::layers::LayeredConns;
use super::probe::{Feature, Features};
use super::ring::Ring;
use super::shared::{Shared, Stage};
use super::token::{self, Kind};
use super::verdicts::{TURN_VERDICTS_MAX, Verdicts};
use crate::boundary::{Control, Event};
use crate::engine::Machine;
use crate::engine::counters::DriverCounts;
use crate::engine::effects::{Effects, Op};
use crate::engine::ids::{ConnId, Now, Peer, ShardId};
use crate::engine::input::Input;
use crate::mesh::{Delivery, Lanes};
use crate::observe::{Between, DriverMemory, Stage as Part, TurnCounts};

/// Completions handled in one turn, of all rings. Bounds the time that a mail waits behind sockets.
const TURN_COMPLETIONS_MAX: usize = 1024;
/// Mailbox deliveries handled in one turn.
const TURN_DELIVERIES_MAX: usize = 256;
/// Orders of the control plane handled in one turn.
const TURN_CONTROLS_MAX: usize = 16;
/// Longest sleep while other tasks of this executor exist.
const SLEEP_WITH_TASKS: Duration = Duration::from_millis(2);
/// How long the net task stays on the core while other tasks of this executor exist.
const STAY_WITH_TASKS: Duration = Duration::from_millis(1);
/// How long it leaves the core to them then, at least. They run until they wait.
const LEAVE_WITH_TASKS: Duration = Duration::from_micros(50);
/// Sends of a turn that may complete without ending the sleep that follows: see
/// [`NetTask::sleep_or_submit`]. After more of them more is on its way, and the pass that they cause
/// finds it.
const QUIET_SENDS_MAX: u32 = 4;
/// A larger one is more likely to find its socket full, or to have somebody wait for its end: the
/// next page of a retained replay, say.
pub(super) const QUIET_SEND_BYTES_MAX: usize = 512;
/// Longest sleep of that kind. If a send does not complete at once, it takes two events to end it; so
/// that long one event may wait, once for each socket that fills up. Shorter, and a shard with little
/// to do would get up for nothing after each message.
const SLEEP_AFTER_SENDS: Duration = Duration::from_millis(10);
/// Sleep while mail waits for room at a peer: nobody tells the sender of room.
const SLEEP_WITH_FULL_LANE: Duration = Duration::from_micros(500);
/// How old the wall clock's distance from the monotonic clock may be: only people read it.
const WALL_CLOCK_NS: u64 = 100_000_000;
/// Longest sleep of an idle shard: everything that can happen wakes it, so this only bounds the
/// damage of a mistake.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Lives on: its shard. All that the reactor has besides the machine.
pub(super) struct Net {
    pub me: ShardId,
    pub shared: Arc<Shared>,
    pub features: Features,
    pub rings: Vec<Ring>,
    pub conns: Conns,
    pub layered: LayeredConns,
    pub pool: Pool,
    pub lanes: Lanes,
    pub acceptor: Acceptor,
    /// Connections to start a send for at the end of the turn.
    pub dirty: Vec<ConnId>,
    /// Connections whose receive may have to be armed at the end of the turn, or of a later one.
    pub to_arm: Vec<ConnId>,
    /// Connections whose peer sent FIN in this turn.
    pub fins: Vec<ConnId>,
    /// Of connections that could not move: their machine hears of it in the next turn.
    pub unmoved: Vec<Peer>,
    /// Small sends started on the main ring since it was last entered, whose end nobody waits for.
    pub quiet_sends: u32,
    /// When the shard last began to sleep through the completions of such sends, ns.
    pub slept_quiet_ns: u64,
    /// Sends started.
    pub sends: u64,
    pub follow: Follow,
    /// Closing connections, by deadline (all have the same patience).
    pub closing: VecDeque<(u64, ConnId)>,
    pub now: Now,
    /// Wall clock less monotonic clock, ms, and until when to believe it, ns.
    unix_offset: (u64, u64),
    children: Children,
    pub stage: Stage,
    stop_deadline_ms: u64,
}

/// Lives on: its shard. The loop.
pub(super) struct NetTask<M> {
    pub net: Net,
    pub machine: M,
    pub fx: Effects,
    control: flume::Receiver<Control>,
    events: flume::Sender<Event>,
    auth: Verdicts,
    reaped: Vec<cqueue::Entry>,
    fed: bool,
    busy_wait: Duration,
    /// When something was last to be done.
    busy_ns: u64,
    /// When the last turn ended.
    ended_ns: u64,
    /// The system call after it.
    between: Between,
}

impl<M: Machine> NetTask<M> {
    pub(super) fn new(
        net: Net,
        machine: M,
        control: flume::Receiver<Control>,
        events: flume::Sender<Event>,
        auth: Verdicts,
        busy_wait: Duration,
    ) -> Self {
        let shards = net.shared.shards.len();
        let mut fx = Effects::new(shards);
        fx.observe.start(net.shared.recording);
        Self {
            net,
            machine,
            fx,
            control,
            events,
            auth,
            reaped: Vec::with_capacity(TURN_COMPLETIONS_MAX),
            fed: false,
            busy_wait,
            busy_ns: 0,
            ended_ns: 0,
            between: Between::Submit,
        }
    }

    /// Runs until stopped.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to enter a ring, which nothing can mend.
    pub(super) async fn run(mut self) -> io::Result<()> {
        self.net.start();
        let mut left = Instant::now();
        loop {
            self.turn();
            if self.net.stage_passed() {
                return Ok(());
            }
            self.net.enter_children()?;
            self.sleep_or_submit()?;
            // With the executor to itself the task never leaves it. Otherwise it leaves by a timer, not
            // by a yield: only a timer makes sure that the executor's own sleep ends.
            if background::tasks() > 0 && left.elapsed() >= STAY_WITH_TASKS {
                glommio::timer::sleep(LEAVE_WITH_TASKS).await;
                left = Instant::now();
            }
        }
    }

    /// One turn: all that happened, in; all that is to be done, out.
    fn turn(&mut self) {
        self.net.read_clock();
        let Now { mono_ns: now_ns, unix_ms } = self.net.now;
        self.net.shared.heartbeat(self.net.me, now_ns);
        self.fx.observe.start_turn(now_ns, unix_ms, self.between);
        let sends_before = self.net.sends;
        self.fed = false;
        let mut handled = 0;
        handled += self.reap(0, TURN_COMPLETIONS_MAX);
        // More of them may get hot meanwhile, but have no completions yet.
        for nth in 0..self.net.children.hot() {
            let ring = self.net.children.nth_hot(nth);
            handled += self.reap(ring, TURN_COMPLETIONS_MAX - handled);
        }
        self.net.children.rotate();
        self.take_waiting();
        self.fx.observe.part(0);
        let mails = self.take_deliveries();
        self.take_controls();
        self.take_verdicts();
        while let Some(peer) = self.net.lanes.pop_drained() {
            self.feed(Input::LaneDrained { peer });
        }
        while let Some(peer) = self.net.unmoved.pop() {
            self.feed(Input::NotMoved { peer });
        }
        if self.machine.deadline_ms() <= self.net.now.mono_ms() {
            self.feed(Input::Tick);
        }
        self.fx.observe.part(1);
        if self.fed {
            self.feed(Input::TurnEnd);
            self.busy_ns = self.net.now.mono_ns;
            self.net.shared.stats(self.net.me).turns.inc();
        }
        self.send_and_perform();
        self.finish_turn();
        let sends = self.net.sends - sends_before;
        let counts = TurnCounts { completions: handled as u64, mails, sends };
        self.ended_ns = self.fx.observe.end_turn(self.net.me, self.fed, counts);
        if let Some((token, spans)) = self.fx.observe.turns_recorded(self.ended_ns) {
            self.fx.events.push(Event::Turns { token, spans });
        }
        self.send_out();
        self.net.publish_gauges();
    }

    /// What follows the operations of a turn: FINs, sends, receives, deadlines, accepts.
    fn finish_turn(&mut self) {
        let net = &mut self.net;
        net.follow_written(&mut self.fx.observe);
        net.take_fins();
        net.expire_closing();
        if !net.dirty.is_empty() {
            self.fx.observe.spin(Part::Coalesce);
            let now_ns = self.fx.observe.clock().max(net.now.mono_ns);
            while let Some(id) = net.dirty.pop() {
                if let Some(waited_ns) = net.start_send(id, now_ns) {
                    self.fx.observe.coalesced(waited_ns);
                }
            }
            self.fx.observe.spin(Part::Send);
        }
        net.arm_recvs();
        net.drive_accepts(self.machine.accept_room());
    }

    /// Gives one input to the machine.
    pub(super) fn feed(&mut self, input: Input<'_>) {
        self.fed = true;
        self.machine.handle(self.net.now, input, &mut self.fx);
        if self.fx.is_heavy() {
            self.send_and_perform();
        }
    }

    /// Mail first: an acknowledgement must not reach its client before the message that it is for
    /// reached the mailboxes. [S-39, S-55]
    fn send_and_perform(&mut self) {
        self.net.send_mail(&mut self.fx);
        self.perform();
        self.fx.clear_written();
    }

    fn reap(&mut self, ring: usize, max: usize) -> usize {
        let mut reaped = std::mem::take(&mut self.reaped);
        let n = self.net.rings[ring].reap(&mut reaped, max);
        for cqe in reaped.drain(..) {
            self.complete(ring, &cqe);
        }
        self.reaped = reaped;
        self.net.shared.stats(self.net.me).completions.add(n as u64);
        if n > 0 {
            self.net.rings[ring].publish_buffers();
            if self.net.rings[ring].overflowed() {
                self.net.shared.stats(self.net.me).cq_overflows.inc();
            }
        }
        n
    }

    fn complete(&mut self, ring: usize, cqe: &cqueue::Entry) {
        let (kind, generation, index) = token::parse(cqe.user_data());
        match kind {
            Kind::Ignore | Kind::Woken => return,
            Kind::AcceptMany | Kind::AcceptOne => return self.on_accept(ring, kind, index, cqe),
            Kind::PollWake => return self.net.on_poll_wake(cqe),
            Kind::PollChild => return self.net.on_poll_child(index, cqe),
            Kind::Wake => return self.net.on_wake_failed(index),
            _ => {}
        }
        let Some(id) = self.net.conns.id_of(index, generation) else {
            debug_assert!(false, "a completion outlived its connection: {kind:?}");
            return self.net.drop_stray(ring, kind, cqe);
        };
        match kind {
            Kind::InstallForPeer => self.on_installed(id, cqe.result()),
            Kind::Register => self.on_registered(id, cqe.result()),
            Kind::Recv => self.on_recv(ring, id, cqe),
            Kind::Send => self.on_send(id, cqe.result()),
            Kind::InstallForShutdown => self.net.on_installed_for_shutdown(id, cqe.result()),
            Kind::Shutdown | Kind::Disconnect | Kind::Cancel => self.net.on_misc_done(id),
            Kind::SendFd => self.net.on_fd_sent(id, cqe.result()),
            Kind::Close => self.on_closed(id),
            _ => unreachable!("handled above"),
        }
    }

    /// How many mails there were.
    fn take_deliveries(&mut self) -> u64 {
        let mut mails = 0;
        let mut taken = None;
        for _ in 0..TURN_DELIVERIES_MAX {
            match self.net.lanes.pop() {
                Some(Delivery::Batch { from, sent, mut batch }) => {
                    let taken = *taken.get_or_insert_with(|| self.fx.observe.tick());
                    self.fx.observe.crossed(sent, taken);
                    mails += batch.len() as u64;
                    self.net.shared.stats(self.net.me).mails_received.add(batch.len() as u64);
                    for mail in batch.mail.drain(..) {
                        self.feed(Input::Mail { from, mail, packed: &batch.packed });
                    }
                    self.net.lanes.recycle(batch);
                }
                Some(Delivery::Arrived { ring, slot, parcel, layers }) => {
                    let listener = parcel.peer.listener;
                    let conn = self.net.arrive((ring, slot), listener, layers);
                    self.feed(Input::Arrived { conn, parcel });
                }
                None => break,
            }
        }
        mails
    }

    fn take_controls(&mut self) {
        for _ in 0..TURN_CONTROLS_MAX {
            let Ok(control) = self.control.try_recv() else { return };
            if matches!(control, Control::Report { .. }) {
                self.fx.observe.driver_memory = self.net.memory();
            }
            self.feed(Input::Control(control));
        }
    }

    fn take_verdicts(&mut self) {
        for _ in 0..TURN_VERDICTS_MAX {
            let Some((conn, verdict)) = self.auth.pop() else { return };
            self.feed(Input::Authenticated { conn, verdict });
        }
    }

    fn perform(&mut self) {
        let mut ops = std::mem::take(&mut self.fx.ops);
        for op in ops.drain(..) {
            self.net.perform(op, &mut self.fx);
        }
        self.fx.ops = ops;
    }

    fn send_out(&mut self) {
        for event in self.fx.events.drain(..) {
            if self.events.try_send(event).is_err() {
                self.net.shared.stats(self.net.me).events_dropped.inc();
            }
        }
        for request in self.fx.auth.drain(..) {
            self.auth.ask(request);
        }
        self.fx.clear();
        self.fx.lanes_full = self.net.lanes.full();
        self.fx.driver = self.net.driver_counts();
    }

    /// Submits what the turn queued. Sleeps for as long as nothing is to be done.
    ///
    /// Nearly every send completes while it is being submitted. Its completion alone is no reason to
    /// get up: nothing follows from it that can't wait for the next event. So the sleep is to end
    /// with one completion more than there are such sends, and a message that comes alone costs one
    /// enter instead of two. A send that finds its socket full completes later: then one event is
    /// missed for [`SLEEP_AFTER_SENDS`] at most.
    fn sleep_or_submit(&mut self) -> io::Result<()> {
        let sends = std::mem::take(&mut self.net.quiet_sends);
        self.between = Between::Submit;
        if self.net.rings[0].is_busy() {
            return self.net.rings[0].enter_again();
        }
        if self.net.now.mono_ns - self.busy_ns < self.busy_wait.as_nanos() as u64 {
            return self.net.rings[0].enter_again();
        }
        let until_ns = self.fx.observe.turns_until_ns();
        let deadline_ms = self.machine.deadline_ms().min(until_ns.div_ceil(1_000_000));
        let timeout = self.net.sleep_time(deadline_ms);
        self.net.lanes.announce_sleep();
        let idle = self.net.lanes.mailbox().is_empty()
            && self.control.is_empty()
            && self.auth.is_empty()
            && !self.net.lanes.has_drained()
            && self.net.stage == self.net.shared.stage()
            && !self.net.has_work()?;
        let entered = if idle && !timeout.is_zero() {
            let work = self.net.rings[0].announces_work();
            self.between = if work { Between::SleepWithWork } else { Between::Sleep };
            self.net.shared.heartbeat(self.net.me, 0);
            match sends {
                1..=QUIET_SENDS_MAX => {
                    self.net.slept_quiet_ns = self.ended_ns;
                    self.net.rings[0].enter(1 + sends, timeout.min(SLEEP_AFTER_SENDS))
                }
                _ => self.net.rings[0].enter(1, timeout),
            }
        } else {
            self.net.rings[0].enter_again()
        };
        self.net.lanes.wake_up();
        entered
    }
}

impl Net {
    pub(super) fn new(
        me: ShardId,
        shared: Arc<Shared>,
        features: Features,
        rings: Vec<Ring>,
        children: Children,
        acceptor: Acceptor,
    ) -> Self {
        let lanes = Lanes::new(me, Arc::clone(&shared.mailboxes));
        Self {
            me,
            features,
            rings,
            conns: Conns::default(),
            layered: LayeredConns::default(),
            pool: Pool::default(),
            lanes,
            acceptor,
            dirty: Vec::new(),
            to_arm: Vec::new(),
            fins: Vec::new(),
            unmoved: Vec::new(),
            quiet_sends: 0,
            slept_quiet_ns: 0,
            sends: 0,
            follow: Follow::default(),
            closing: VecDeque::new(),
            now: Now::default(),
            unix_offset: (0, 0),
            children,
            stage: Stage::Running,
            stop_deadline_ms: u64::MAX,
            shared,
        }
    }

    /// The first submissions: what wakes this shard.
    fn start(&mut self) {
        self.read_clock();
        self.poll_eventfd(self.shared.wake_fd(self.me), token::of_index(Kind::PollWake, 0));
        for child in 1..self.rings.len() {
            self.poll_child(child as u32);
        }
    }

    fn read_clock(&mut self) {
        let mono_ns = self.shared.now_ns();
        let mono_ms = mono_ns / 1_000_000;
        if mono_ns >= self.unix_offset.1 {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.unix_offset =
                ((unix.as_millis() as u64).wrapping_sub(mono_ms), mono_ns + WALL_CLOCK_NS);
        }
        self.now = Now { mono_ns, unix_ms: self.unix_offset.0.wrapping_add(mono_ms) };
    }

    /// Queues a submission on a ring.
    ///
    /// # Safety
    ///
    /// See [`Ring::push`]: what the entry points to lives until its completion was reaped.
    pub(super) unsafe fn submit(&mut self, ring: u16, entry: squeue::Entry) {
        self.children.heat(usize::from(ring), &self.rings);
        // SAFETY: passed on to the caller.
        unsafe { self.rings[usize::from(ring)].push(entry) }
    }

    fn perform(&mut self, op: Op, fx: &mut Effects) {
        let known = match op {
            Op::Write { conn, at, len } => {
                let at = at as usize;
                self.write(conn, &fx.arena[at..at + len as usize])
            }
            Op::WriteShared { conn, ix } => self.write_shared(conn, &fx.shared[ix as usize]),
            Op::Close { conn, how } => self.close(conn, how),
            Op::Established { conn } => self.established(conn),
            Op::ProbePeer { conn } => self.probe_peer(conn),
            Op::PauseRead { conn } => self.pause_read(conn),
            Op::ResumeRead { conn } => self.resume_read(conn),
            Op::Handover { conn, to, parcel } => self.hand_over(conn, to, parcel),
            Op::PauseAccept { listener } => self.acceptor.pause(listener, true),
            Op::ResumeAccept { listener } => self.acceptor.pause(listener, false),
        };
        if !known {
            self.shared.stats(self.me).stale_ops.inc();
        }
    }

    /// The connection, if the machine still knows it.
    pub(super) fn open_conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get(id).filter(|c| c.phase == Phase::Open)
    }

    fn send_mail(&mut self, fx: &mut Effects) {
        self.lanes.send_turn(fx);
        while let Some(peer) = self.lanes.pop_wake() {
            self.wake(peer);
        }
    }

    fn wake(&mut self, peer: ShardId) {
        if !self.features.has(Feature::MsgRingWake) {
            return self.shared.wake(peer);
        }
        let fd = self.shared.ring(peer, 0).fd.as_raw_fd();
        let entry =
            opcode::MsgRingData::new(types::Fd(fd), 0, token::of_index(Kind::Woken, 0), None)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(token::of_index(Kind::Wake, u32::from(peer.0)));
        // SAFETY: points to no memory.
        unsafe { self.submit(0, entry) }
    }

    fn on_wake_failed(&mut self, peer: u32) {
        self.shared.wake(ShardId(peer as u16));
    }

    fn poll_eventfd(&mut self, fd: RawFd, user_data: u64) {
        let entry = opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(user_data);
        // SAFETY: points to no memory.
        unsafe { self.submit(0, entry) }
    }

    fn on_poll_wake(&mut self, cqe: &cqueue::Entry) {
        let fd = self.shared.wake_fd(self.me);
        drain_eventfd(fd);
        if !cqueue::more(cqe.flags()) {
            self.poll_eventfd(fd, token::of_index(Kind::PollWake, 0));
        }
    }

    fn poll_child(&mut self, ring: u32) {
        let fd = self.children.signal(ring as usize);
        self.poll_eventfd(fd, token::of_index(Kind::PollChild, ring));
    }

    fn on_poll_child(&mut self, ring: u32, cqe: &cqueue::Entry) {
        drain_eventfd(self.children.signal(ring as usize));
        self.children.signalled(ring as usize, &self.rings);
        if !cqueue::more(cqe.flags()) {
            self.poll_child(ring);
        }
    }

    /// Enters the child rings that have something to submit or to run.
    fn enter_children(&mut self) -> io::Result<()> {
        let mut nth = 0;
        while let Some((at, ring)) = self.children.next_to_enter(nth, &mut self.rings) {
            self.rings[ring].enter_now()?;
            nth = at + 1;
        }
        Ok(())
    }

    /// Whether a turn has something to do already. If not, all rings may wake the shard from here on.
    fn has_work(&mut self) -> io::Result<bool> {
        Ok(self.rings[0].has_completions()
            || !self.to_arm.is_empty()
            || self.layered.has_waiting()
            || !self.unmoved.is_empty()
            || self.children.cool(&mut self.rings)?)
    }

    fn sleep_time(&self, deadline_ms: u64) -> Duration {
        let mut wait = SLEEP_MAX;
        if background::tasks() > 0 {
            wait = SLEEP_WITH_TASKS;
        }
        if self.lanes.is_waiting() {
            wait = wait.min(SLEEP_WITH_FULL_LANE);
        }
        let closing = self.closing.front().map_or(u64::MAX, |(at, _)| *at);
        let retry = self.acceptor.retry_ms();
        let next = deadline_ms.min(closing).min(retry).min(self.stop_deadline_ms);
        let until = next.saturating_sub(self.now.mono_ms());
        wait.min(Duration::from_millis(until))
    }

    /// For the machine, which tells the operator.
    fn driver_counts(&self) -> DriverCounts {
        let (lanes, stats) = (self.lanes.counts(), self.shared.stats(self.me));
        DriverCounts {
            turns: stats.turns.get(),
            enters: stats.enters.get(),
            receives: stats.receives.get(),
            sends: stats.sends.get(),
            mails: lanes.mails,
            batches: lanes.batches,
            wakes: lanes.wakes,
            line_writes: lanes.line_writes,
            mail_lines: lanes.mail_lines,
        }
    }

    /// What the machine does not know of.
    fn memory(&self) -> DriverMemory {
        let rings: u64 = self.rings.iter().map(Ring::buffer_bytes).sum();
        DriverMemory {
            connections: self.conns.bytes() as u64,
            buffers: rings + self.pool.bytes() as u64,
        }
    }

    fn publish_gauges(&mut self) {
        let lanes = self.lanes.counts();
        let stats = self.shared.stats(self.me);
        stats.connections.set(self.conns.live() as u64);
        stats.sends.set(self.sends);
        stats.mails_sent.set(lanes.mails);
        stats.batches_sent.set(lanes.batches);
        stats.wakes_sent.set(lanes.wakes);
        stats.lanes_filled.set(lanes.full);
        stats.lane_waiting_peak.set(lanes.waiting_peak);
        stats
            .slots_used
            .set(self.rings.iter().map(|r| u64::from(r.addr.used.load(Ordering::Relaxed))).sum());
        stats.enters.set(self.rings.iter().map(|r| r.enters).sum());
    }

    /// Follows the stage that the node is in; whether the task is done.
    fn stage_passed(&mut self) -> bool {
        let stage = self.shared.stage();
        if stage != self.stage {
            self.stage = stage;
            self.acceptor.stop();
            if stage == Stage::Stopping {
                self.stop_deadline_ms = self.now.mono_ms() + super::close::STOP_MS;
                for id in self.conns.ids() {
                    self.stop_conn(id);
                }
            }
        }
        if self.stage != Stage::Stopping {
            return false;
        }
        self.conns.live() == 0 || self.now.mono_ms() >= self.stop_deadline_ms
    }
}

fn drain_eventfd(fd: RawFd) {
    let mut count = 0u64;
    // SAFETY: reads 8 bytes into a u64; the eventfd is non-blocking.
    unsafe { libc::read(fd, (&raw mut count).cast(), 8) };
}
