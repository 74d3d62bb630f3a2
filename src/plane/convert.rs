//! From the configuration file's terms to those of the data plane.
//!
//! Sections are taken apart without `..`: a key that is new to the schema does not compile until it is
//! given to somebody, or the comment at its `_` says who else takes it. No key does nothing.

use std::sync::Arc;

use ringmain_acl::Policy;
use ringmain_mqtt::QoS;
use ringmain_shards::engine::config as engine;
use ringmain_shards::engine::rates::{Rate, Rates};
use ringmain_shards::observe::{Delay, Stage};
use ringmain_shards::reactor;

use super::owners;
use crate::config::{self, Config};

/// What the engines are told.
pub(super) fn engine_config(c: &Config, policy: &Arc<Policy>) -> engine::EngineConfig {
    let Config {
        node,
        log: _,
        mqtt: m,
        authorization,
        bans,
        shared,
        retained,
        limits,
        overload,
        reactor: _,
        sys,
        admin: _,
        observe: _,
        authentication,
        listeners,
    } = c; // [admin] is in `crate::admin`, [log] the root's, [reactor] and [observe] in `node_config`
    let config::Node {
        name,
        data_dir: _,          // nothing is stored yet
        shards: _,            // node_config
        hash_seed: _,         // NodeShared, in `start`
        pin_cores: _,         // node_config
        shutdown_grace_ms: _, // the root
    } = node;
    engine::EngineConfig {
        node: name.clone(),
        sysdescr: "Ringmain MQTT broker".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        listeners: listeners
            .iter()
            .enumerate()
            .map(|(at, l)| listener(l, authentication.asks(at)))
            .collect(),
        mqtt: mqtt(m),
        shared: shared_config(shared),
        retained: retained_config(retained),
        limits: limit_config(limits),
        overload: overload_config(overload),
        sys: sys_config(sys),
        flapping: flapping(bans),
        // The rest of [authorization] is in `policy`.
        policy: Arc::clone(policy),
        decisions_kept: authorization.cache_places as usize,
    }
}

fn flapping(b: &config::Bans) -> engine::FlappingConfig {
    let config::Bans { path: _, flapping_max_count, flapping_window_s, flapping_ban_s } = b; // path: the watcher
    engine::FlappingConfig {
        max_count: *flapping_max_count,
        window_s: *flapping_window_s,
        ban_s: *flapping_ban_s,
    }
}

fn shared_config(s: &config::Shared) -> engine::SharedConfig {
    let config::Shared {
        strategy: all,
        group_strategies,
        sticky_pick,
        redispatch,
        max_group_queue_len,
        max_group_queue_bytes,
    } = s;
    engine::SharedConfig {
        strategy: strategy(*all),
        group_strategies: group_strategies
            .iter()
            .map(|(group, s)| (group.clone(), strategy(*s)))
            .collect(),
        sticky_pick: match sticky_pick {
            config::StickyPick::Random => engine::StickyPick::Random,
            config::StickyPick::Local => engine::StickyPick::Local,
            config::StickyPick::HashClientId => engine::StickyPick::HashClientId,
            config::StickyPick::HashTopic => engine::StickyPick::HashTopic,
        },
        redispatch: match redispatch {
            config::Redispatch::Immediate => engine::Redispatch::Immediate,
            config::Redispatch::OnSessionEnd => engine::Redispatch::OnSessionEnd,
        },
        max_group_queue_len: *max_group_queue_len,
        max_group_queue_bytes: *max_group_queue_bytes,
    }
}

fn retained_config(r: &config::Retained) -> engine::RetainedConfig {
    let config::Retained {
        max_messages,
        max_payload_bytes,
        max_bytes,
        default_expiry_s,
        reject_oversized,
        stop_publish_clear_msg,
        page_messages,
    } = r;
    engine::RetainedConfig {
        max_messages: (*max_messages).into(),
        max_bytes: *max_bytes,
        page_messages: *page_messages as usize,
        max_payload_bytes: *max_payload_bytes,
        reject_oversized: *reject_oversized,
        default_expiry_s: *default_expiry_s,
        stop_publish_clear_msg: *stop_publish_clear_msg,
    }
}

fn limit_config(l: &config::Limits) -> engine::LimitConfig {
    let config::Limits {
        max_connections,
        max_connection_rate_per_s,
        message_rate,
        byte_rate,
        subscribe_rate,
        delivery_rate,
        delivery_byte_rate,
        max_sessions,
        max_routes,
        max_handshakes_per_shard,
        memory_high_bytes: _,     // the watcher, `marks`
        memory_critical_bytes: _, // the watcher, `marks`
        max_queued_bytes,
        out_buffer_bytes_max,
        slow_consumer_policy,
        slow_consumer_grace_s,
        mailbox_batches: _, // node_config
    } = l;
    engine::LimitConfig {
        max_connections: *max_connections,
        max_connection_rate_per_s: *max_connection_rate_per_s,
        rates: rates([message_rate, byte_rate, subscribe_rate, delivery_rate, delivery_byte_rate]),
        max_handshakes_per_shard: *max_handshakes_per_shard,
        max_sessions: *max_sessions,
        max_routes: *max_routes,
        max_queued_bytes: *max_queued_bytes,
        out_buffer_bytes: *out_buffer_bytes_max,
        slow_consumer_policy: match slow_consumer_policy {
            config::SlowConsumerPolicy::DropQos0 => engine::SlowConsumerPolicy::DropQos0,
            config::SlowConsumerPolicy::Disconnect => engine::SlowConsumerPolicy::Disconnect,
        },
        slow_consumer_grace_s: *slow_consumer_grace_s,
    }
}

fn overload_config(o: &config::Overload) -> engine::OverloadConfig {
    let config::Overload {
        enabled,
        check_interval_ms, // the watcher uses it too
        lag_refuse_ms,
        lag_drop_qos0_ms,
        lag_pause_ms,
        descriptors_high_percent: _, // the watcher
        recovery_ms,
    } = o;
    engine::OverloadConfig {
        enabled: *enabled,
        check_interval_ms: *check_interval_ms,
        lag_refuse_ms: *lag_refuse_ms,
        lag_drop_qos0_ms: *lag_drop_qos0_ms,
        lag_pause_ms: *lag_pause_ms,
        recovery_ms: *recovery_ms,
    }
}

/// Of the five keys that sections with rates have, in the order of their declaration.
fn rates([messages, bytes, subscribes, deliveries, delivery_bytes]: [&Rate; 5]) -> Rates {
    Rates {
        messages: *messages,
        bytes: *bytes,
        subscribes: *subscribes,
        deliveries: *deliveries,
        delivery_bytes: *delivery_bytes,
    }
}

fn sys_config(s: &config::Sys) -> engine::SysConfig {
    let config::Sys { interval_s, heartbeat_s, client_events, compat } = s;
    engine::SysConfig {
        interval_s: *interval_s,
        heartbeat_s: *heartbeat_s,
        client_events: *client_events,
        v4_dots: compat.contains(&config::SysCompat::V4Dots),
        faq_singular: compat.contains(&config::SysCompat::FaqSingular),
    }
}

fn listener(l: &config::Listener, authenticate: bool) -> engine::ListenerConfig {
    let config::Listener {
        name,
        url: _,      // socket
        optional: _, // `openable`
        backlog: _,  // socket
        max_connections,
        max_connection_rate_per_s,
        max_connections_per_ip,
        max_connection_rate_per_ip_per_s,
        connection_rate_mode,
        message_rate,
        byte_rate,
        subscribe_rate,
        delivery_rate,
        delivery_byte_rate,
        accept_protocol_versions,
        nodelay: _,                  // socket
        tcp_defer_accept_s: _,       // socket
        send_buffer_bytes: _,        // socket
        receive_buffer_bytes: _,     // socket
        tcp_keepalive_s: _,          // socket
        tcp_keepalive_interval_s: _, // socket
        tcp_keepalive_probes: _,     // socket
        tcp_user_timeout_ms: _,      // socket
        tls_certificate_files: _,    // `transports`, as all of tls, websocket and proxy
        tls_key_files: _,
        tls_unknown_name: _,
        tls_client_verification: _,
        tls_client_ca_file: _,
        tls_client_depth: _,
        tls_crl_files: _,
        tls_crl_expired: _,
        tls_crl_unknown: _,
        tls_versions: _,
        tls_cipher_suites: _,
        tls_alpn: _,
        tls_tickets: _,
        websocket_origins: _,
        websocket_subprotocol_optional: _,
        websocket_frame_bytes_max: _,
        websocket_trusted_proxies: _,
        proxy_protocol_from: _,
        unix_mode: _,  // socket
        unix_user: _,  // socket
        unix_group: _, // socket
        mqtt: own,
        mqtt_overrides,
    } = l;
    engine::ListenerConfig {
        name: name.clone(),
        accept_protocol_versions: accept_protocol_versions.clone(),
        max_connections: *max_connections,
        max_connection_rate_per_s: *max_connection_rate_per_s,
        connection_rate_mode: match connection_rate_mode {
            config::ConnectionRateMode::Wait => engine::RateMode::Wait,
            config::ConnectionRateMode::Reset => engine::RateMode::Reset,
        },
        rates: rates([message_rate, byte_rate, subscribe_rate, delivery_rate, delivery_byte_rate]),
        max_connections_per_ip: *max_connections_per_ip,
        max_connection_rate_per_ip_per_s: *max_connection_rate_per_ip_per_s,
        authenticate,
        mqtt: (!mqtt_overrides.is_empty()).then(|| Box::new(mqtt(own))),
    }
}

fn strategy(s: config::ShareStrategy) -> engine::Strategy {
    use config::ShareStrategy as S;
    match s {
        S::Random => engine::Strategy::Random,
        S::RoundRobin => engine::Strategy::RoundRobin,
        S::RoundRobinPerGroup => engine::Strategy::RoundRobinPerGroup,
        S::Sticky => engine::Strategy::Sticky,
        S::Local => engine::Strategy::Local,
        S::HashClientId => engine::Strategy::HashClientId,
        S::HashTopic => engine::Strategy::HashTopic,
        S::LeastInflight => engine::Strategy::LeastInflight,
    }
}

fn mqtt(m: &config::Mqtt) -> engine::MqttConfig {
    let config::Mqtt {
        max_packet_size_bytes,
        max_client_id_len,
        max_topic_levels,
        max_qos,
        retain_available,
        wildcard_subscription_available,
        subscription_identifiers_available,
        shared_subscription_available,
        max_topic_alias,
        topic_alias_out_max,
        receive_maximum,
        keep_alive_min_s,
        keep_alive_max_s,
        keep_alive_v3_policy,
        keep_alive_multiplier,
        server_keep_alive_s,
        connect_timeout_ms,
        max_session_expiry_s,
        default_session_expiry_v3_s,
        max_inflight,
        max_mqueue_len,
        max_mqueue_bytes,
        max_mqueue_age_s,
        mqueue_drop_policy,
        mqueue_store_qos0,
        mqueue_priorities,
        mqueue_default_priority,
        max_awaiting_rel,
        await_rel_timeout_s,
        retry_interval_s,
        max_subscriptions,
        min_wildcard_depth,
        message_rate,
        byte_rate,
        subscribe_rate,
        delivery_rate,
        delivery_byte_rate,
        rate_action,
        upgrade_qos,
        ignore_loop_deliver,
        strict_utf8,
        lenient_remaining_length,
        lenient_receive_maximum,
        lenient_v31_client_id,
        deny_action,
        check_payload_format,
        message_expiry_default_s,
        message_expiry_max_s,
        response_information,
        server_reference,
        max_connection_lifetime_s,
        overlap,
        use_username_as_client_id,
    } = m;
    engine::MqttConfig {
        max_packet_size: *max_packet_size_bytes,
        max_client_id_len: *max_client_id_len,
        max_topic_levels: *max_topic_levels,
        max_qos: QoS::from_bits(*max_qos).unwrap_or(QoS::ExactlyOnce),
        retain_available: *retain_available,
        wildcard_available: *wildcard_subscription_available,
        subscription_id_available: *subscription_identifiers_available,
        shared_available: *shared_subscription_available,
        topic_alias_max: *max_topic_alias,
        topic_alias_out_max: *topic_alias_out_max,
        receive_maximum: *receive_maximum,
        keep_alive_min_s: *keep_alive_min_s,
        // 65,535 leaves clients the choice of none.
        keep_alive_max_s: if *keep_alive_max_s == u16::MAX { 0 } else { *keep_alive_max_s },
        keep_alive_v3_policy: match keep_alive_v3_policy {
            config::KeepAliveV3Policy::Clamp => engine::KeepAliveV3Policy::Clamp,
            config::KeepAliveV3Policy::Refuse => engine::KeepAliveV3Policy::Refuse,
        },
        keep_alive_percent: (*keep_alive_multiplier * 100.0) as u16,
        server_keep_alive_s: *server_keep_alive_s,
        connect_timeout_ms: *connect_timeout_ms,
        max_session_expiry_s: *max_session_expiry_s,
        default_session_expiry_v3_s: *default_session_expiry_v3_s,
        max_inflight: *max_inflight,
        max_mqueue_len: *max_mqueue_len,
        max_mqueue_bytes: *max_mqueue_bytes,
        max_mqueue_age_s: *max_mqueue_age_s,
        mqueue_drop_policy: match mqueue_drop_policy {
            config::DropPolicy::Oldest => engine::QueueDropPolicy::Oldest,
            config::DropPolicy::Newest => engine::QueueDropPolicy::Newest,
            config::DropPolicy::Reject => engine::QueueDropPolicy::Reject,
        },
        mqueue_store_qos0: *mqueue_store_qos0,
        mqueue_priorities: mqueue_priorities.clone(),
        mqueue_default_priority: *mqueue_default_priority,
        max_awaiting_rel: *max_awaiting_rel,
        await_rel_timeout_s: *await_rel_timeout_s,
        retry_interval_s: *retry_interval_s,
        max_subscriptions: *max_subscriptions,
        min_wildcard_depth: *min_wildcard_depth,
        rates: rates([message_rate, byte_rate, subscribe_rate, delivery_rate, delivery_byte_rate]),
        rate_action: match rate_action {
            config::RateAction::Pause => engine::RateAction::Pause,
            config::RateAction::Refuse => engine::RateAction::Refuse,
            config::RateAction::Disconnect => engine::RateAction::Disconnect,
        },
        upgrade_qos: *upgrade_qos,
        ignore_loop_deliver: *ignore_loop_deliver,
        strict_utf8: *strict_utf8,
        lenient_remaining_length: *lenient_remaining_length,
        lenient_receive_maximum: *lenient_receive_maximum,
        lenient_v31_client_id: *lenient_v31_client_id,
        deny_action: match deny_action {
            config::DenyAction::Ignore => engine::DenyAction::Ignore,
            config::DenyAction::Disconnect => engine::DenyAction::Disconnect,
        },
        check_payload_format: *check_payload_format,
        message_expiry_default_s: *message_expiry_default_s,
        message_expiry_max_s: *message_expiry_max_s,
        response_information: response_information.clone(),
        server_reference: server_reference.clone(),
        max_connection_lifetime_s: *max_connection_lifetime_s,
        overlap: match overlap {
            config::Overlap::Merge => engine::Overlap::Merge,
            config::Overlap::Each => engine::Overlap::Each,
        },
        use_username_as_client_id: *use_username_as_client_id,
    }
}

/// What the reactor is told. `listeners` are those that can be opened here.
///
/// # Errors
/// When a user or group is not known here.
pub(super) fn node_config(
    c: &Config,
    listeners: &[config::Listener],
) -> Result<reactor::NodeConfig, String> {
    let cpus: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    let shards = match c.node.shards {
        0 => cpus.len().clamp(1, 256),
        n => n as usize,
    };
    // More shards than cores share them in turn; pinning then only keeps them from moving.
    let cpu = |i: usize| (c.node.pin_cores && !cpus.is_empty()).then(|| cpus[i % cpus.len()]);
    let config::Reactor {
        recv_buffer_bytes,
        recv_buffers_per_ring,
        rings_per_shard,
        max_connections_per_ring,
        cq_entries,
        busy_wait_us,
    } = c.reactor;
    Ok(reactor::NodeConfig {
        shards: (0..shards).map(|i| reactor::ShardPlacement { cpu: cpu(i) }).collect(),
        listeners: listeners.iter().map(socket).collect::<Result<_, _>>()?,
        max_connections: c.limits.max_connections,
        recv_buffer_bytes,
        recv_buffers_per_ring: recv_buffers_per_ring as u16,
        rings_per_shard: rings_per_shard as u16,
        max_connections_per_ring: (max_connections_per_ring != 0)
            .then_some(max_connections_per_ring),
        cq_entries,
        busy_wait_us,
        mailbox_batches: c.limits.mailbox_batches as usize,
        recording: recording(&c.observe),
        ..reactor::NodeConfig::new(shards, &[])
    })
}

fn recording(o: &config::Observe) -> Option<Option<Delay>> {
    let config::Observe { enabled, stall_ms: _, delay_stage, delay_us } = *o; // stalls: the observer
    let stage = match delay_stage {
        config::DelayStage::None => None,
        config::DelayStage::Arrival => Some(Stage::Arrival),
        config::DelayStage::Turn => Some(Stage::Turn),
        config::DelayStage::Decode => Some(Stage::Decode),
        config::DelayStage::Authorise => Some(Stage::Authorise),
        config::DelayStage::Route => Some(Stage::Route),
        config::DelayStage::Crossing => Some(Stage::Crossing),
        config::DelayStage::Coalesce => Some(Stage::Coalesce),
        config::DelayStage::Send => Some(Stage::Send),
    };
    enabled.then_some(stage.map(|stage| Delay { stage, ns: u64::from(delay_us) * 1000 }))
}

fn socket(l: &config::Listener) -> Result<reactor::ListenerConfig, String> {
    let some = |n: u32| (n != 0).then_some(n);
    let address = match l.url.addr() {
        Some(addr) => addr.into(),
        None => reactor::Address::Unix(l.url.path.clone().into()),
    };
    let is_unix = l.url.addr().is_none();
    let id = |file, name: &str, key| {
        let id = (!name.is_empty()).then(|| owners::id(file, name)).transpose();
        id.map_err(|why| format!("listeners.{}.{key}: {why}", l.name))
    };
    Ok(reactor::ListenerConfig {
        name: l.name.clone(),
        unix_mode: Some(l.unix_mode.0),
        unix_owner: (
            id(owners::USERS, &l.unix_user, "unix_user")?,
            id(owners::GROUPS, &l.unix_group, "unix_group")?,
        ),
        backlog: l.backlog,
        nodelay: l.nodelay,
        defer_accept_s: some(l.tcp_defer_accept_s),
        send_buffer_bytes: some(l.send_buffer_bytes),
        recv_buffer_bytes: some(l.receive_buffer_bytes),
        keepalive_idle_s: some(l.tcp_keepalive_s).filter(|_| !is_unix),
        keepalive_interval_s: l.tcp_keepalive_interval_s,
        keepalive_probes: l.tcp_keepalive_probes,
        user_timeout_ms: some(l.tcp_user_timeout_ms),
        ..reactor::ListenerConfig::new(address)
    })
}
