//! `agent`.

use std::net::{SocketAddr, TcpListener};

use clap::Args;

use super::serve;

/// `agent`
#[derive(Clone, Debug, Args)]
pub struct Agent {
    /// Address to listen at for coordinators. One that others than this host can reach needs a
    /// secret.
    #[arg(long, default_value = "127.0.0.1:7883")]
    pub listen: SocketAddr,
    /// The secret that coordinators must know. It goes over the wire as it is: use it in networks
    /// that you trust.
    #[arg(long, env = "RINGMAIN_LOAD_TOKEN", hide_env_values = true, default_value = "")]
    pub agent_token: String,
}

impl Agent {
    /// Serves coordinators for ever.
    ///
    /// # Errors
    /// When the address cannot be had, or is open to others without a secret.
    pub fn start(&self) -> Result<(), String> {
        if !self.listen.ip().is_loopback() && self.agent_token.is_empty() {
            return Err(format!(
                "{}: others than this host can reach it: give --agent-token, or listen at 127.0.0.1",
                self.listen
            ));
        }
        let listen = TcpListener::bind(self.listen).map_err(|e| format!("{}: {e}", self.listen))?;
        let address = listen.local_addr().map_err(|e| e.to_string())?;
        eprintln!("ringmain-load agent: listens at {address}");
        serve::serve(&listen, &self.agent_token).map_err(|e| e.to_string())
    }
}
