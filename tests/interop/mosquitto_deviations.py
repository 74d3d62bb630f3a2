"""Where Debian's mosquitto (2.0.11) deviates from what these tests require. Patterns over `file.py::test[parameters]`.

Only the mosquitto adapter reads this table: nothing here is ever allowed to Ringmain. Without `--run-deviations`
these tests do not run, for many of them wait in vain. Some lines are defects of mosquitto, others are choices that
the specification leaves open and Ringmain's rulings close.
"""

NO_REASON = "closes without a reason where Ringmain gives one"
OVERLAP = "one copy for each overlapping filter, or the QoS of the first"
NO_TAKEOVER_REASON = "no DISCONNECT 0x8E at a takeover, no will of the old connection"
FLAGS = "does not check the flags of this packet type, or closes without a reason"
UNEXPECTED = "ignores packets that only a server may send"
SHARED = "does not refuse invalid shared filters"

DEVIATIONS: dict[str, str] = {
    "test_hostile.py::test_a_client_that_never_reads_does_not_delay_others*": "keeps everything for a stuck client",
    "test_paho_v3.py::test_overlapping_subscriptions_test*": OVERLAP,
    "test_paho_v5.py::test_overlapping_subscriptions*": OVERLAP,
    "test_paho_v5.py::test_subscribe_identifiers*": OVERLAP,
    "test_subscriptions.py::test_s47_*": OVERLAP,
    "test_paho_v5.py::test_basic*": NO_REASON,
    "test_paho_v5.py::test_keepalive*": NO_REASON,
    "test_paho_v5.py::test_client_topic_alias*": "alias 0 is 0x81, not 0x94",
    "test_paho_v5.py::test_server_topic_alias*": "never uses aliases towards clients",
    "test_paho_v5.py::test_flow_control2*": "does not enforce its Receive Maximum strictly (D8)",
    "test_paho_v5.py::test_will_delay[*-600-*": "does not end the will delay with the session",
    "test_properties.py::test_s13_*": "expires messages in flight",
    "test_properties.py::test_s21_*-3-*": "exceeds the client's Receive Maximum after a full window",
    "test_properties.py::test_s21_*-20-*": "exceeds the client's Receive Maximum after a full window",
    "test_properties.py::test_s22_*": "resends the whole old window whatever the new Receive Maximum",
    "test_properties.py::test_s30_s32_*": "compares the remaining length, not the packet's size",
    "test_properties.py::test_w16_s32_*": "compares the remaining length, not the packet's size",
    "test_properties.py::test_s53_a_client_cannot_publish_to_reserved_prefixes*": "other prefixes, 0x87 for $share",
    "test_properties.py::test_y01_y03_*": "other $SYS topics",
    "test_raw_framing.py::test_a_packet_identifier_of_zero_is_refused[v5-*-4]": NO_REASON,
    "test_raw_framing.py::test_a_packet_identifier_of_zero_is_refused[v5-*-6]": NO_REASON,
    "test_raw_framing.py::test_a_packet_type_that_no_client_sends_is_refused[*-9]": UNEXPECTED,
    "test_raw_framing.py::test_a_packet_type_that_no_client_sends_is_refused[*-11]": UNEXPECTED,
    "test_raw_framing.py::test_a_packet_type_that_no_client_sends_is_refused[*-13]": UNEXPECTED,
    "test_raw_framing.py::test_a_packet_type_that_no_client_sends_is_refused[v5-*-2]": NO_REASON,
    "test_raw_framing.py::test_a_qos_0_publish_with_dup_is_malformed*": "accepts it",
    "test_raw_framing.py::test_w04_*_v5_shaped_connect_*-6-132]": "answers level 6 with 0x01",
    "test_raw_framing.py::test_w06_a_remaining_length_of_five_bytes_is_malformed[v5-*": NO_REASON,
    "test_raw_framing.py::test_w06_an_overlong_remaining_length_*": "accepts over-long encodings",
    "test_raw_framing.py::test_w06_bytes_behind_the_body_are_malformed[*-12]": "accepts a PINGREQ with a body",
    "test_raw_framing.py::test_w07_wrong_fixed_header_flags_*AUTH]": FLAGS,
    "test_raw_framing.py::test_w07_wrong_fixed_header_flags_*DISCONNECT]": FLAGS,
    "test_raw_framing.py::test_w07_wrong_fixed_header_flags_*PINGREQ]": FLAGS,
    "test_raw_framing.py::test_w07_wrong_fixed_header_flags_*PUB*]": FLAGS,
    "test_raw_framing.py::test_w08_ill_formed_utf8_*": NO_REASON,
    "test_raw_framing.py::test_w11_a_second_connect_*v5-*": NO_REASON,
    "test_raw_framing.py::test_w19_a_tls_hello_is_told_in_the_log*": "says nothing of TLS",
    "test_reason_codes.py::test_c03_c04_*CONNECT-*": NO_REASON,
    "test_reason_codes.py::test_c03_c04_*PUBLISH-props*": "accepts these values",
    "test_reason_codes.py::test_c16_*": NO_REASON,
    "test_reason_codes.py::test_c17_a_property_in_a_wrong_packet_is_refused*": NO_REASON,
    "test_reason_codes.py::test_connack_0x90_*": NO_REASON,
    "test_reason_codes.py::test_connack_0x95_*": NO_REASON,
    "test_reason_codes.py::test_p03_*-2]": "tells of no subscribers in PUBACK only",
    "test_reason_codes.py::test_pubcomp_0x92_*": "never answers 0x92",
    "test_reason_codes.py::test_s34_*": "closes instead of refusing in PUBREC",
    "test_reason_codes.py::test_s49_no_local_on_a_shared_*": "accepts No Local on shared subscriptions",
    "test_reason_codes.py::test_s95_*after CONNACK]": NO_REASON,
    "test_retained.py::test_s40_a_shared_subscription_*": "sends retained messages to shared subscriptions",
    "test_sessions.py::test_s01_*v5-*": NO_TAKEOVER_REASON,
    "test_sessions.py::test_s02_*v5-*": NO_TAKEOVER_REASON,
    "test_wills.py::test_s17_*": NO_TAKEOVER_REASON,
    "test_sessions.py::test_s33_*": "closes when a QoS 2 identifier is repeated without DUP",
    "test_sessions.py::test_s35_*": "never answers 0x92",
    "test_subscriptions.py::test_h01_h02_*$queue*": "has no $queue",
    "test_subscriptions.py::test_p13_*": SHARED,
    "test_subscriptions.py::test_s60_an_invalid_shared_filter_*$share/g]": SHARED,
    "test_subscriptions.py::test_s60_an_invalid_shared_filter_*$share/g/]": SHARED,
    "test_subscriptions.py::test_s60_an_invalid_shared_filter_*$share//a]": SHARED,
    "test_subscriptions.py::test_s63_*": "loses what an ended member had not acknowledged",
    "test_subscriptions.py::test_s66_*": "queues for offline members",
    "test_wills.py::test_s15_a_disconnect_with_any_other_reason_*-128]": "publishes the will for 0x04 only",
    "test_wills.py::test_s15_a_disconnect_with_any_other_reason_*-139]": "publishes the will for 0x04 only",
    "test_wills.py::test_s15_a_disconnect_with_any_other_reason_*-255]": "publishes the will for 0x04 only",
    "test_wills.py::test_s15_a_lost_connection_*second connect]": "does not publish the will",
    "test_wills.py::test_s20_*": NO_REASON,
}
