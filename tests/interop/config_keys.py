"""Every configuration key that these tests set, in one place.

A test names a setting by the constant; the Ringmain adapter passes `--set key=value` with the string. Rename here.
Values are what the command line takes: integers, true/false, or durations in the unit that the key names.
"""

MAX_PACKET_SIZE = "mqtt.max_packet_size_bytes"  # bytes, whole packet (W16)
MAX_CLIENTID_LEN = "mqtt.max_client_id_len"  # bytes (W17)
MAX_TOPIC_LEVELS = "mqtt.max_topic_levels"  # levels, 0 = no limit (W15)
MAX_SUBSCRIPTIONS = "mqtt.max_subscriptions"  # per client, 0 = no limit (P15)
MAX_QOS = "mqtt.max_qos"  # 0..2 (C12)
RETAIN_AVAILABLE = "mqtt.retain_available"  # bool (C12)
WILDCARD_SUBSCRIPTION = "mqtt.wildcard_subscription_available"  # bool (C12)
SHARED_SUBSCRIPTION = "mqtt.shared_subscription_available"  # bool (C12)
SUBSCRIPTION_IDENTIFIERS = "mqtt.subscription_identifiers_available"  # bool (C12)
SERVER_KEEP_ALIVE_S = "mqtt.server_keep_alive_s"  # seconds, 0 = the client's own (C11)
RECEIVE_MAXIMUM = "mqtt.receive_maximum"  # what the broker announces and enforces (C03)
TOPIC_ALIAS_MAXIMUM = "mqtt.max_topic_alias"  # what the broker announces (C05)
MAX_INFLIGHT = "mqtt.max_inflight"  # the broker's own outbound window (Q07)
MAX_MQUEUE_LEN = "mqtt.max_mqueue_len"  # messages per session, 0 = no limit (Q04)
MAX_SESSION_EXPIRY_S = "mqtt.max_session_expiry_s"  # seconds (Q10)
CONNECT_TIMEOUT_MS = "mqtt.connect_timeout_ms"  # ms a socket may wait before CONNECT (W12)
MAX_HANDSHAKES = "limits.max_handshakes_per_shard"  # connections without a whole CONNECT; others wait (W12)
SYS_HEARTBEAT_S = "sys.heartbeat_s"  # seconds between uptime and date (Y01)
SYS_INTERVAL_S = "sys.interval_s"  # seconds between $SYS publications (Y01)

# Set for every Ringmain process that the tests start. A machine that gives its shards no CPU for a while,
# since other tests run, is not what these tests are about: the broker then refuses clients, as it should (L08).
BASE_SETTINGS: dict[str, object] = {
    "overload.lag_refuse_ms": 60_000,
    "overload.lag_drop_qos0_ms": 60_000,
    "overload.lag_pause_ms": 60_000,
}
