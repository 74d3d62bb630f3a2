//! The coordinator: deals the plan, measures clocks, starts all at once, leads them from stage to
//! stage, and puts the results together.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::account::{self, WorkerResult};
use crate::clock::{now_ns, process_cpu_ns};
use crate::cost::Sample;
use crate::environment::Environment;
use crate::judge;
use crate::plan::Plan;
use crate::report::{AgentReport, Mark, Report};
use crate::run::{self, RunOptions, SNAPSHOT_EVERY};
use crate::snapshot::Snapshot;

use super::offset::{EXCHANGES, Exchange, Offset};
use super::wire::{FRAME_MAX, FromAgent, PROTOCOL, ToAgent, receive, send};
use super::{deal, merge};

/// An agent that does not answer a greeting or a ping by then is not there.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// An agent in a stage that says nothing for this long is lost: it looks at its run four times a
/// second.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// All begin this long after they are told to: the word has to reach them.
const START_IN: Duration = Duration::from_millis(300);
/// An agent that was told to stop has this long to end in good order.
const STOP_WAIT: Duration = Duration::from_secs(90);

/// An agent as the coordinator knows it.
struct Agent {
    address: String,
    stream: TcpStream,
    about: AgentReport,
    before: Offset,
    /// Whether it works in a stage, rather than waits for the next.
    busy: bool,
    heard: Instant,
    done: Option<(Report, Vec<WorkerResult>)>,
    lost: Option<String>,
}

/// Makes a run by agents.
///
/// # Errors
/// When the plan cannot be dealt, or an agent cannot be had. One that is lost later makes the run
/// void.
pub(super) fn run(
    plan: &Plan,
    options: &RunOptions,
    addresses: &[String],
    token: &str,
    observer: &mut dyn FnMut(&Snapshot),
) -> io::Result<Report> {
    let refused = |e: String| io::Error::new(io::ErrorKind::InvalidInput, e);
    plan.check().map_err(refused)?;
    let parts = deal::deal(plan, addresses.len()).map_err(refused)?;
    let mut agents = Vec::new();
    for address in addresses {
        let agent = Agent::meet(address, token);
        agents.push(agent.map_err(|e| io::Error::new(e.kind(), format!("agent {address}: {e}")))?);
    }
    for (agent, part) in agents.iter_mut().zip(parts) {
        agent.take_plan(part)?;
    }
    let mut lead = Lead {
        whole: deal::with_drains(plan),
        options,
        looks: vec![None; agents.len()],
        agents,
        stage: 0,
        shown: Instant::now(),
        cpu: process_cpu_ns(),
        report: Report::default(),
    };
    lead.go(observer)
}

impl Agent {
    /// Greets an agent and measures its clock.
    fn meet(address: &str, token: &str) -> io::Result<Self> {
        let to = address.to_socket_addrs()?.next();
        let to = to.ok_or_else(|| io::Error::other("it has no address"))?;
        let mut stream = TcpStream::connect_timeout(&to, ANSWER_WAIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        send(&mut stream, &ToAgent::Hello { protocol: PROTOCOL, token: token.to_owned() })?;
        let (version, kernel, cpu) = match receive(&mut stream, FRAME_MAX)? {
            FromAgent::Welcome { version, kernel, cpu } => (version, kernel, cpu),
            FromAgent::Refused { why } => return Err(io::Error::other(why)),
            _ => return Err(io::Error::other("it said something out of turn")),
        };
        let before = measure(&mut stream)?;
        let about =
            AgentReport { address: address.to_owned(), version, kernel, cpu, clock: before };
        Ok(Self {
            address: address.to_owned(),
            stream,
            about,
            before,
            busy: false,
            heard: Instant::now(),
            done: None,
            lost: None,
        })
    }

    fn take_plan(&mut self, plan: Plan) -> io::Result<()> {
        let message = ToAgent::Plan { plan: Box::new(plan), clock_ahead_ns: self.before.ahead_ns };
        send(&mut self.stream, &message)?;
        match receive(&mut self.stream, FRAME_MAX)? {
            FromAgent::Ready => Ok(()),
            FromAgent::Refused { why } => {
                Err(io::Error::other(format!("agent {}: {why}", self.address)))
            }
            _ => Err(io::Error::other("an agent said something out of turn")),
        }
    }

    fn lose(&mut self, why: &str) {
        if self.lost.is_none() && self.done.is_none() {
            self.lost = Some(why.to_owned());
            self.busy = false;
        }
    }
}

/// Asks for the time a few times.
fn measure(stream: &mut TcpStream) -> io::Result<Offset> {
    let mut exchanges = Vec::new();
    for number in 0..EXCHANGES {
        let sent_ns = now_ns();
        send(stream, &ToAgent::Ping { number })?;
        match receive(stream, FRAME_MAX)? {
            FromAgent::Pong { number: same, at_ns } if same == number => {
                exchanges.push(Exchange { sent_ns, theirs_ns: at_ns, received_ns: now_ns() });
            }
            _ => return Err(io::Error::other("it did not answer a ping")),
        }
    }
    Offset::of(&exchanges).ok_or_else(|| io::Error::other("its clock was not measured"))
}

struct Lead<'a> {
    whole: Plan,
    options: &'a RunOptions,
    agents: Vec<Agent>,
    looks: Vec<Option<Snapshot>>,
    stage: usize,
    shown: Instant,
    cpu: u64,
    report: Report,
}

impl Lead<'_> {
    fn go(&mut self, observer: &mut dyn FnMut(&Snapshot)) -> io::Result<Report> {
        self.mark("start");
        let (tell, hear) = channel();
        for (n, agent) in self.agents.iter().enumerate() {
            let mut reader = agent.stream.try_clone()?;
            reader.set_read_timeout(None)?;
            let tell = tell.clone();
            thread::spawn(move || relay(&mut reader, n, &tell));
        }
        drop(tell);
        self.begin_stage();
        let mut stopping: Option<Instant> = None;
        while self.agents.iter().any(|a| a.done.is_none() && a.lost.is_none()) {
            self.hear(&hear);
            self.show(observer);
            self.find_lost(stopping);
            let lost = self.agents.iter().any(|a| a.lost.is_some());
            if stopping.is_none() && (lost || run::interrupted()) {
                stopping = Some(Instant::now());
                self.tell_all(&ToAgent::Stop);
            }
            let waiting = |a: &Agent| a.busy || a.done.is_some() || a.lost.is_some();
            if stopping.is_none() && !self.agents.iter().any(waiting) {
                self.end_stage();
                self.stage += 1;
                self.begin_stage();
            }
        }
        self.mark("closed");
        self.conclude();
        Ok(std::mem::take(&mut self.report))
    }

    /// Tells all to begin the stage; the first one all at the same time.
    fn begin_stage(&mut self) {
        let at = now_ns() + START_IN.as_nanos() as u64;
        for agent in &mut self.agents {
            let theirs = at.saturating_add_signed(agent.before.ahead_ns);
            let go = ToAgent::Go { stage: self.stage, at_ns: theirs };
            match send(&mut agent.stream, &go) {
                Ok(()) => {
                    agent.busy = true;
                    agent.heard = Instant::now();
                }
                Err(e) => agent.lose(&e.to_string()),
            }
        }
    }

    fn end_stage(&mut self) {
        match self.whole.stages.get(self.stage).map(|s| s.stage.kind()) {
            Some("connect") if self.report.broker_at("connected").is_none() => {
                self.mark("connected");
                if !self.options.settle.is_zero() {
                    thread::sleep(self.options.settle);
                }
                self.mark("settled");
            }
            Some("hold") => self.mark("held"),
            _ => {}
        }
    }

    fn hear(&mut self, hear: &Receiver<(usize, io::Result<FromAgent>)>) {
        match hear.recv_timeout(Duration::from_millis(20)) {
            Ok((n, message)) => self.take(n, message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                self.agents.iter_mut().for_each(|a| a.lose("it hung up"));
            }
        }
    }

    fn take(&mut self, n: usize, message: io::Result<FromAgent>) {
        let agent = &mut self.agents[n];
        agent.heard = Instant::now();
        match message {
            Ok(FromAgent::Look(look)) => self.looks[n] = Some(*look),
            Ok(FromAgent::Ended { stage }) if stage == self.stage => agent.busy = false,
            Ok(FromAgent::Done { report, results }) => {
                agent.done = Some((*report, results));
                agent.busy = false;
            }
            Ok(FromAgent::Refused { why }) => agent.lose(&why),
            Ok(_) => agent.lose("it said something out of turn"),
            Err(e) => agent.lose(&e.to_string()),
        }
    }

    fn show(&mut self, observer: &mut dyn FnMut(&Snapshot)) {
        if self.shown.elapsed() < SNAPSHOT_EVERY {
            return;
        }
        self.shown = Instant::now();
        let mut look = merge::look(&self.looks);
        if let Some(pid) = self.options.broker_pid {
            look.broker = Sample::brief(pid).ok();
        }
        observer(&look);
    }

    fn find_lost(&mut self, stopping: Option<Instant>) {
        for agent in &mut self.agents {
            if agent.busy && agent.heard.elapsed() > SILENCE_MAX {
                agent.lose("it is silent");
            }
            if stopping.is_some_and(|since| since.elapsed() > STOP_WAIT) {
                agent.lose("it did not stop");
            }
        }
    }

    fn tell_all(&mut self, message: &ToAgent) {
        for agent in self.agents.iter_mut().filter(|a| a.done.is_none() && a.lost.is_none()) {
            if let Err(e) = send(&mut agent.stream, message) {
                agent.lose(&e.to_string());
            }
        }
    }

    fn mark(&mut self, moment: &str) {
        let Some(pid) = self.options.broker_pid else { return };
        match Sample::of(pid) {
            Ok(sample) => self.report.broker.push(Mark { moment: moment.to_owned(), sample }),
            Err(e) => self.report.problems.push(format!("the broker's process is gone: {e}")),
        }
    }

    /// Puts all together.
    fn conclude(&mut self) {
        let report = &mut self.report;
        report.version = env!("CARGO_PKG_VERSION").to_owned();
        report.command = std::env::args().collect();
        report.environment = Environment::here();
        report.seed = self.whole.seed;
        let mut results = Vec::new();
        for agent in &mut self.agents {
            let name = format!("agent {}", agent.address);
            if let Some(why) = &agent.lost {
                report.void.push(format!("{name} was lost: {why}"));
                continue;
            }
            let Some((part, theirs)) = agent.done.take() else { continue };
            merge::add(report, &part);
            report.void.extend(part.void.iter().map(|why| format!("{name}: {why}")));
            report.remarks.extend(part.remarks.iter().map(|why| format!("{name}: {why}")));
            results.extend(theirs);
            let after = agent
                .stream
                .set_read_timeout(Some(ANSWER_WAIT))
                .and_then(|()| measure(&mut agent.stream));
            match after {
                Ok(after) => {
                    let void = agent.before.void(&after);
                    report.void.extend(void.map(|why| format!("{name}: {why}")));
                }
                Err(e) => report.void.push(format!("{name}: its clock is not known: {e}")),
            }
            report.agents.push(agent.about.clone());
        }
        report.generator.cpu_ns += process_cpu_ns() - self.cpu;
        report.account = account::account(&self.whole, &results);
        // What the agents said of their parts is said of the whole instead.
        let said = judge::problems(report, &self.whole, self.options.allow_loss);
        report.problems.extend(said);
    }
}

/// Passes on what an agent says.
fn relay(reader: &mut TcpStream, n: usize, tell: &Sender<(usize, io::Result<FromAgent>)>) {
    loop {
        let message = receive(reader, FRAME_MAX);
        let last = matches!(message, Err(_) | Ok(FromAgent::Done { .. }));
        if tell.send((n, message)).is_err() || last {
            return;
        }
    }
}
