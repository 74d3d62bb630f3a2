//! MQTT protocol.
