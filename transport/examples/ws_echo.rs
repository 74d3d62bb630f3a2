//! `cargo run -p ringmain-transport --example ws_echo [address]`: a WebSocket at `/mqtt` that sends
//! back what it gets, a thread per connection. For clients of others, and for measuring nothing.
//!
//! Prints the address that it listens on.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use ringmain_transport::{Layers, Stack, ws::WsConfig};

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address)?;
    println!("{}", listener.local_addr()?);
    let layers = Layers { ws: Some(Arc::new(WsConfig::default())), ..Layers::default() };
    for socket in listener.incoming() {
        let (socket, layers) = (socket?, layers.clone());
        std::thread::spawn(move || {
            if let Err(end) = echo(socket, &layers) {
                eprintln!("{end}");
            }
        });
    }
    Ok(())
}

fn echo(mut socket: TcpStream, layers: &Layers) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let peer = socket.peer_addr().map_err(text)?.ip();
    let mut stack = Stack::new(layers, peer).map_err(|end| end.sentence)?.expect("a WebSocket");
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let len = socket.read(&mut buffer).map_err(text)?;
        if len == 0 {
            return Ok(());
        }
        let mut out = Vec::new();
        let result = stack.received(0, &mut buffer[..len], &mut out);
        if let Ok(received) = &result
            && stack.is_open()
        {
            let plain = [&buffer[..received.mqtt]];
            stack.seal(&plain, &mut out).map_err(|end| end.sentence)?;
        }
        socket.write_all(&out).map_err(text)?;
        if result.map_err(|end| end.sentence)?.peer_closed {
            return Ok(());
        }
    }
}
