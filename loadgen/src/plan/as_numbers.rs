//! The protocol's types as the numbers that they have on the wire, in JSON.

/// A protocol version as its level.
pub(super) mod level {
    use ringmain_mqtt::Version;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::plan) fn serialize<S: Serializer>(v: &Version, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(*v as u8)
    }

    pub(in crate::plan) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Version, D::Error> {
        match u8::deserialize(d)? {
            3 => Ok(Version::V31),
            4 => Ok(Version::V311),
            5 => Ok(Version::V5),
            n => Err(D::Error::custom(format!("{n} is no protocol level"))),
        }
    }
}

/// A QoS as its number.
pub(super) mod qos {
    use ringmain_mqtt::QoS;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::plan) fn serialize<S: Serializer>(q: &QoS, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(*q as u8)
    }

    pub(in crate::plan) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<QoS, D::Error> {
        let n = u8::deserialize(d)?;
        QoS::from_bits(n).ok_or_else(|| D::Error::custom(format!("{n} is no QoS")))
    }
}

/// A Retain Handling as its number.
pub(super) mod handling {
    use ringmain_mqtt::RetainHandling;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::plan) fn serialize<S: Serializer>(
        h: &RetainHandling,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.serialize_u8(*h as u8)
    }

    pub(in crate::plan) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<RetainHandling, D::Error> {
        match u8::deserialize(d)? {
            0 => Ok(RetainHandling::Send),
            1 => Ok(RetainHandling::SendIfNew),
            2 => Ok(RetainHandling::DoNotSend),
            n => Err(D::Error::custom(format!("{n} is no Retain Handling"))),
        }
    }
}
