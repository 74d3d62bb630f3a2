//! `slow-50of1000`: fifty subscribers of a thousand stop reading. Do the others notice?

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use crate::client::Client;
use crate::scenario::{
    Case, Cx, Failure, FigureKind, Figures, Scale, Scenario, grown, less, more, traffic,
};

pub(crate) struct Slow50Of1000;

const SUBSCRIBERS: u32 = 1000;
const SLOW: u32 = 50;
/// Receive buffer of those who do not read, so that theirs is not where the messages wait.
const RECEIVE_BUFFER: libc::c_int = 4096;

impl Scenario for Slow50Of1000 {
    fn name(&self) -> &'static str {
        "slow-50of1000"
    }

    fn about(&self) -> &'static str {
        "1 KiB, 40 a second to 1,000 subscribers of which 0 or 50 read nothing: the others' latency"
    }

    fn figures(&self) -> &'static [FigureKind] {
        const {
            &[
                less("ns_per_message", "CPU ns/message", 0),
                more("messages_per_s", "messages/s", 0),
                less("p50_us", "p50 µs", 0),
                less("p99_us", "p99 µs", 0),
                less("p999_us", "p99.9 µs", 0),
                less("grown_mib", "memory +MiB", 1),
            ]
        }
    }

    fn cases(&self, _: &Scale) -> Vec<Case> {
        vec![Case::of("none slow", 0), Case::of("50 slow", SLOW)]
    }

    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
        let mut server = cx.start()?;
        let wrong = |e: io::Error| Failure::Contender(e.to_string());
        let mut slow = Vec::new();
        for n in 0..case.count {
            let mut client = Client::connect_with(server.address, &format!("slow-{n}"), narrow)
                .map_err(wrong)?;
            client.subscribe(&["slow".to_owned()], 1, 1).map_err(wrong)?;
            slow.push(client);
        }
        let readers = SUBSCRIBERS - case.count;
        let seconds = cx.scale.pick(20, 4);
        let args = format!("fanout -c {readers} -t slow -s 1024 -I 25 -d {seconds}");
        let args = Case::command("", &args).args;
        let report = cx.load(&mut server, &traffic::timed(cx, &args))?;
        let mut figures = traffic::figures(&report, true)?;
        let grown = grown(&report, "traffic-begin", "traffic-end", |s| s.anonymous);
        figures.insert("grown_mib", grown / 1_048_576.0);
        figures.remove("user_ns_per_message");
        figures.remove("generator_ns_per_message");
        // Let a server that waits for them find out quickly.
        std::thread::sleep(Duration::from_millis(100));
        drop(slow);
        Ok(figures)
    }
}

fn narrow(socket: &TcpStream) -> io::Result<()> {
    let size = RECEIVE_BUFFER;
    // SAFETY: the option is an int that lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const size).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
