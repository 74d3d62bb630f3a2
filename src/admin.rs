//! From the configuration to the control plane.

use std::path::Path;

use ringmain_control::{Config as Control, Error, Opened, Place, Running, SocketPath};

use crate::config::{Admin, Config, MetricsListen};

/// Opens what `[admin]` says. Nothing is served yet.
///
/// # Errors
/// When something that was set cannot be opened.
pub(crate) fn open(config: &Config) -> Result<Opened, Error> {
    ringmain_control::open(&control(config))
}

/// Says what is served where.
pub(crate) fn say(running: &Running) {
    if let Some(socket) = running.socket() {
        tracing::info!(socket = %socket.display(), "the operator can ask");
    }
    if let Some(metrics) = running.metrics() {
        tracing::info!(url = format!("http://{metrics}/metrics"), "metrics are served");
    }
}

fn control(config: &Config) -> Control {
    // Taken apart without `..`, as in plane/convert.rs: no key does nothing.
    let Admin { socket, metrics_listen } = &config.admin;
    let defaults = Admin::default();
    let MetricsListen(metrics) = *metrics_listen;
    let socket = (!socket.is_empty()).then(|| Place {
        required: *socket != defaults.socket,
        at: SocketPath {
            path: config.node.data_dir.join(socket),
            // Another folder is somebody else's to make.
            make_folder: Path::new(socket).parent() == Some(Path::new("")),
        },
    });
    let required = *metrics_listen != defaults.metrics_listen;
    Control { socket, metrics: metrics.map(|at| Place { at, required }) }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::Sources;

    fn with(set: &[&str]) -> Control {
        let set = set.iter().map(|s| (*s).to_owned()).collect();
        control(&Sources { set, ..Sources::default() }.load().expect("valid"))
    }

    #[test]
    fn what_is_set_is_required_and_defaults_are_not() {
        let places = |c: &Control| {
            let socket = c.socket.as_ref().map(|s| (s.at.path.clone(), s.at.make_folder));
            (socket, c.metrics.as_ref().map(|m| m.at.to_string()))
        };
        let required = |c: &Control| {
            (c.socket.as_ref().map(|p| p.required), c.metrics.as_ref().map(|p| p.required))
        };
        let by_default = with(&["node.data_dir=/d"]);
        let socket = Some((PathBuf::from("/d/admin.sock"), true));
        assert_eq!(places(&by_default), (socket, Some("127.0.0.1:9883".to_owned())));
        assert_eq!(required(&by_default), (Some(false), Some(false)));
        let set = with(&["admin.socket=/run/x.sock", "admin.metrics_listen=[::1]:9000"]);
        let socket = Some((PathBuf::from("/run/x.sock"), false));
        assert_eq!(places(&set), (socket, Some("[::1]:9000".to_owned())));
        assert_eq!(required(&set), (Some(true), Some(true)));
        assert_eq!(places(&with(&["admin.socket=", "admin.metrics_listen="])), (None, None));
    }

    #[test]
    fn an_address_has_a_port_and_is_no_name() {
        for bad in ["9883", "127.0.0.1", "localhost:9883", "127.0.0.1:65536", "none"] {
            let set = vec![format!("admin.metrics_listen={bad}")];
            let errors = Sources { set, ..Sources::default() }.load().expect_err(bad).to_string();
            assert!(errors.contains("expected an address such as"), "{errors}");
        }
    }
}
