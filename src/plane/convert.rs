//! From the configuration file's terms to those of the data plane.

use ringmain_mqtt::QoS;
use ringmain_shards::engine::config as engine;
use ringmain_shards::reactor;

use crate::config::{self, Config};

/// What the engines are told.
pub(super) fn engine_config(c: &Config) -> engine::EngineConfig {
    let compat = |form| c.sys.compat.contains(&form);
    engine::EngineConfig {
        node: c.node.name.clone(),
        sysdescr: "Ringmain MQTT broker".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        listeners: c.listeners.iter().map(listener).collect(),
        mqtt: mqtt(&c.mqtt),
        shared: engine::SharedConfig {
            strategy: strategy(c.shared.strategy),
            group_strategies: c
                .shared
                .group_strategies
                .iter()
                .map(|(group, s)| (group.clone(), strategy(*s)))
                .collect(),
            redispatch: match c.shared.redispatch {
                config::Redispatch::Immediate => engine::Redispatch::Immediate,
                config::Redispatch::OnSessionEnd => engine::Redispatch::OnSessionEnd,
            },
            max_group_queue_len: c.shared.max_group_queue_len,
        },
        retained: engine::RetainedConfig {
            max_messages: c.retained.max_messages.into(),
            max_payload_bytes: c.retained.max_payload_bytes,
            reject_oversized: c.retained.reject_oversized,
            default_expiry_s: c.retained.default_expiry_s,
            stop_publish_clear_msg: c.retained.stop_publish_clear_msg,
        },
        limits: engine::LimitConfig {
            max_connections: c.limits.max_connections,
            out_buffer_bytes: c.limits.out_buffer_bytes_max,
            slow_consumer_policy: match c.limits.slow_consumer_policy {
                config::SlowConsumerPolicy::DropQos0 => engine::SlowConsumerPolicy::DropQos0,
                config::SlowConsumerPolicy::Disconnect => engine::SlowConsumerPolicy::Disconnect,
            },
            slow_consumer_grace_s: c.limits.slow_consumer_grace_s,
        },
        sys: engine::SysConfig {
            interval_s: c.sys.interval_s,
            heartbeat_s: c.sys.heartbeat_s,
            client_events: true,
            v4_dots: compat(config::SysCompat::V4Dots),
            faq_singular: compat(config::SysCompat::FaqSingular),
        },
    }
}

fn listener(l: &config::Listener) -> engine::ListenerConfig {
    engine::ListenerConfig {
        name: l.name.clone(),
        accept_protocol_versions: l.accept_protocol_versions.clone(),
        max_connections: l.max_connections,
        max_connection_rate_per_s: l.max_connection_rate_per_s,
        max_connections_per_ip: l.max_connections_per_ip,
        max_connection_rate_per_ip_per_s: l.max_connection_rate_per_ip_per_s,
        mqtt: (!l.mqtt_overrides.is_empty()).then(|| Box::new(mqtt(&l.mqtt))),
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
    engine::MqttConfig {
        max_packet_size: m.max_packet_size_bytes,
        max_client_id_len: m.max_client_id_len,
        max_topic_levels: m.max_topic_levels,
        max_qos: QoS::from_bits(m.max_qos).unwrap_or(QoS::ExactlyOnce),
        retain_available: m.retain_available,
        wildcard_available: m.wildcard_subscription_available,
        subscription_id_available: m.subscription_identifiers_available,
        shared_available: m.shared_subscription_available,
        topic_alias_max: m.max_topic_alias,
        topic_alias_out_max: m.topic_alias_out_max,
        receive_maximum: m.receive_maximum,
        keep_alive_min_s: m.keep_alive_min_s,
        // 65,535 leaves clients the choice of none.
        keep_alive_max_s: if m.keep_alive_max_s == u16::MAX { 0 } else { m.keep_alive_max_s },
        keep_alive_v3_policy: match m.keep_alive_v3_policy {
            config::KeepAliveV3Policy::Clamp => engine::KeepAliveV3Policy::Clamp,
            config::KeepAliveV3Policy::Refuse => engine::KeepAliveV3Policy::Refuse,
        },
        keep_alive_percent: (m.keep_alive_multiplier * 100.0) as u16,
        server_keep_alive_s: m.server_keep_alive_s,
        connect_timeout_ms: m.connect_timeout_ms,
        max_session_expiry_s: m.max_session_expiry_s,
        default_session_expiry_v3_s: m.default_session_expiry_v3_s,
        max_inflight: m.max_inflight,
        max_mqueue_len: m.max_mqueue_len,
        max_mqueue_bytes: m.max_mqueue_bytes,
        mqueue_drop_policy: match m.mqueue_drop_policy {
            config::DropPolicy::Oldest => engine::QueueDropPolicy::Oldest,
            config::DropPolicy::Newest => engine::QueueDropPolicy::Newest,
            config::DropPolicy::Reject => engine::QueueDropPolicy::Reject,
        },
        mqueue_store_qos0: m.mqueue_store_qos0,
        mqueue_priorities: m.mqueue_priorities.clone(),
        mqueue_default_priority: m.mqueue_default_priority,
        max_awaiting_rel: m.max_awaiting_rel,
        await_rel_timeout_s: m.await_rel_timeout_s,
        retry_interval_s: m.retry_interval_s,
        max_subscriptions: m.max_subscriptions,
        upgrade_qos: m.upgrade_qos,
        ignore_loop_deliver: m.ignore_loop_deliver,
        strict_utf8: m.strict_utf8,
        lenient_remaining_length: m.lenient_remaining_length,
        lenient_receive_maximum: m.lenient_receive_maximum,
        lenient_v31_client_id: m.lenient_v31_client_id,
        deny_action: match m.deny_action {
            config::DenyAction::Ignore => engine::DenyAction::Ignore,
            config::DenyAction::Disconnect => engine::DenyAction::Disconnect,
        },
        check_payload_format: m.check_payload_format,
        message_expiry_default_s: m.message_expiry_default_s,
        message_expiry_max_s: m.message_expiry_max_s,
        response_information: m.response_information.clone(),
        server_reference: m.server_reference.clone(),
        max_connection_lifetime_s: m.max_connection_lifetime_s,
        overlap: match m.overlap {
            config::Overlap::Merge => engine::Overlap::Merge,
            config::Overlap::Each => engine::Overlap::Each,
        },
        use_username_as_client_id: m.use_username_as_client_id,
    }
}

/// What the reactor is told. `listeners` are those that can be opened here.
pub(super) fn node_config(c: &Config, listeners: &[config::Listener]) -> reactor::NodeConfig {
    let cpus: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    let shards = match c.node.shards {
        0 => cpus.len().clamp(1, 256),
        n => n as usize,
    };
    // More shards than cores share them in turn; pinning then only keeps them from moving.
    let cpu = |i: usize| (c.node.pin_cores && !cpus.is_empty()).then(|| cpus[i % cpus.len()]);
    let r = &c.reactor;
    reactor::NodeConfig {
        shards: (0..shards).map(|i| reactor::ShardPlacement { cpu: cpu(i) }).collect(),
        listeners: listeners.iter().map(socket).collect(),
        max_connections: c.limits.max_connections,
        recv_buffer_bytes: r.recv_buffer_bytes,
        recv_buffers_per_ring: r.recv_buffers_per_ring as u16,
        rings_per_shard: r.rings_per_shard as u16,
        max_connections_per_ring: (r.max_connections_per_ring != 0)
            .then_some(r.max_connections_per_ring),
        cq_entries: r.cq_entries,
        mailbox_batches: c.limits.mailbox_batches as usize,
        ..reactor::NodeConfig::new(shards, &[])
    }
}

fn socket(l: &config::Listener) -> reactor::ListenerConfig {
    let some = |n: u32| (n != 0).then_some(n);
    reactor::ListenerConfig {
        backlog: l.backlog,
        nodelay: l.nodelay,
        send_buffer_bytes: some(l.send_buffer_bytes),
        recv_buffer_bytes: some(l.receive_buffer_bytes),
        keepalive_idle_s: some(l.tcp_keepalive_s),
        keepalive_interval_s: l.tcp_keepalive_interval_s,
        keepalive_probes: l.tcp_keepalive_probes,
        user_timeout_ms: some(l.tcp_user_timeout_ms),
        ..reactor::ListenerConfig::new(l.url.addr())
    }
}
