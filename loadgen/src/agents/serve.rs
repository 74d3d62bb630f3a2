//! The agent: serves one coordinator after another.

use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::clock::{now_ns, set_ahead_ns};
use crate::environment::Environment;
use crate::run::{self, RunOptions};

use super::wire::{FRAME_MAX, FromAgent, HELLO_MAX, PROTOCOL, ToAgent, receive, same_secret, send};

/// A coordinator that says nothing before its plan is sent away: it holds up others.
const PATIENCE: Duration = Duration::from_secs(60);

/// Serves coordinators for ever.
///
/// # Errors
/// When the listener fails.
pub(super) fn serve(listener: &TcpListener, token: &str) -> io::Result<()> {
    loop {
        let (stream, peer) = listener.accept()?;
        eprintln!("ringmain-load agent: {peer} coordinates");
        match session(stream, token) {
            Ok(()) => eprintln!("ringmain-load agent: {peer} is done"),
            Err(e) => eprintln!("ringmain-load agent: {peer}: {e}"),
        }
        // The next coordinator has a clock of its own, and a run of its own.
        set_ahead_ns(0);
        run::forget_interrupt();
    }
}

/// One coordinator from its greeting to the end of its run.
fn session(mut stream: TcpStream, token: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    greet(&mut stream, token)?;
    let (plan, ahead) = loop {
        match receive(&mut stream, FRAME_MAX)? {
            ToAgent::Ping { number } => {
                send(&mut stream, &FromAgent::Pong { number, at_ns: now_ns() })?;
            }
            ToAgent::Plan { plan, clock_ahead_ns } => break (*plan, clock_ahead_ns),
            ToAgent::Stop => return Ok(()),
            _ => return Err(unexpected()),
        }
    };
    if let Err(why) = check(&plan) {
        return send(&mut stream, &FromAgent::Refused { why });
    }
    send(&mut stream, &FromAgent::Ready)?;
    // Stages last as long as they do: from here the coordinator may be silent.
    stream.set_read_timeout(None)?;
    let (go, begun) = channel();
    let mut reader = stream.try_clone()?;
    let listener = thread::spawn(move || listen(&mut reader, &go));
    let outcome = work(&mut stream, plan, ahead, &begun);
    // The coordinator asks for the time once more, and hangs up.
    let listened = listener.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")));
    outcome.and(listened)
}

fn greet(stream: &mut TcpStream, token: &str) -> io::Result<()> {
    let ToAgent::Hello { protocol, token: theirs } = receive(stream, HELLO_MAX)? else {
        return Err(unexpected());
    };
    let why = if protocol != PROTOCOL {
        format!("this agent speaks version {PROTOCOL}, the coordinator {protocol}")
    } else if !same_secret(token, &theirs) {
        "the secret is another one: see --agent-token".to_owned()
    } else {
        let here = Environment::here();
        return send(
            stream,
            &FromAgent::Welcome { version: here.load_version, kernel: here.kernel, cpu: here.cpu },
        );
    };
    send(stream, &FromAgent::Refused { why: why.clone() })?;
    Err(io::Error::new(ErrorKind::PermissionDenied, why))
}

fn check(plan: &crate::plan::Plan) -> Result<(), String> {
    if plan.clients() == 0 {
        return Err("there are more agents than clients".to_owned());
    }
    plan.check()
}

/// Takes what the coordinator says while the run goes on. When it hangs up, the run ends.
fn listen(reader: &mut TcpStream, go: &Sender<(usize, u64)>) -> io::Result<()> {
    let mut writer = reader.try_clone()?;
    loop {
        match receive(reader, HELLO_MAX) {
            Ok(ToAgent::Go { stage, at_ns }) => {
                // A run that has ended does not listen.
                let _ = go.send((stage, at_ns));
            }
            Ok(ToAgent::Stop) => run::interrupt(),
            // After the run alone: nobody else writes then.
            Ok(ToAgent::Ping { number }) => {
                set_ahead_ns(0);
                send(&mut writer, &FromAgent::Pong { number, at_ns: now_ns() })?;
            }
            Ok(_) => return Err(unexpected()),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
                run::interrupt();
                return Ok(());
            }
            Err(e) => {
                run::interrupt();
                return Err(e);
            }
        }
    }
}

/// Makes the run, and stops before each stage until the coordinator says go.
fn work(
    stream: &mut TcpStream,
    plan: crate::plan::Plan,
    ahead: i64,
    begun: &Receiver<(usize, u64)>,
) -> io::Result<()> {
    let Ok((_, at_ns)) = begun.recv() else { return Ok(()) };
    thread::sleep(Duration::from_nanos(at_ns.saturating_sub(now_ns())));
    // Stamps say the coordinator's time, so that any agent can read those of any other.
    set_ahead_ns(ahead);
    let last = plan.stages.len().saturating_sub(1);
    let options = RunOptions { allow_loss: true, ..RunOptions::default() };
    let mut broken = None;
    let outcome = run::run_part(plan, &options, &mut |look| {
        let mut say = |message: &FromAgent| {
            if broken.is_none()
                && let Err(e) = send(stream, message)
            {
                run::interrupt();
                broken = Some(e);
            }
        };
        say(&FromAgent::Look(Box::new(look.clone())));
        if look.stage_ended && look.stage < last {
            say(&FromAgent::Ended { stage: look.stage });
            wait_for(begun, look.stage + 1);
        }
    });
    if let Some(e) = broken {
        return Err(e);
    }
    match outcome {
        Ok((report, results)) => {
            send(stream, &FromAgent::Done { report: Box::new(report), results })
        }
        Err(e) => send(stream, &FromAgent::Refused { why: e.to_string() }),
    }
}

/// Waits until the coordinator says go, or the run is over.
fn wait_for(begun: &Receiver<(usize, u64)>, wanted: usize) {
    while !run::interrupted() {
        match begun.recv_timeout(Duration::from_millis(5)) {
            Ok((stage, _)) if stage >= wanted => return,
            Ok(_) | Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn unexpected() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the coordinator said something out of turn")
}
