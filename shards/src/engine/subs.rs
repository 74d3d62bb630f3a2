//! The shard's own subscription index: filters to subscribers, exactly.

use ringmain_mqtt::QoS;

/// A filter that has at least one subscriber. Reused after its last subscriber is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterId(pub u32);

/// Subscription options, packed as the wire has them: `.. rr p n qq`. [MQTT-3.8.3.1]
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct SubOpts(u8);

impl SubOpts {
    /// Packs options. `retain_handling` is 0..=2.
    #[must_use]
    pub fn new(qos: u8, no_local: bool, retain_as_published: bool, retain_handling: u8) -> Self {
        debug_assert!(qos <= 2 && retain_handling <= 2);
        Self(
            (qos & 3)
                | u8::from(no_local) << 2
                | u8::from(retain_as_published) << 3
                | (retain_handling & 3) << 4,
        )
    }

    /// Granted maximum QoS as a number, 0..=2.
    #[must_use]
    pub fn qos_level(self) -> u8 {
        self.0 & 3
    }

    /// No Local. [S-49]
    #[must_use]
    pub fn no_local(self) -> bool {
        self.0 & 4 != 0
    }

    /// Retain As Published. [S-41]
    #[must_use]
    pub fn retain_as_published(self) -> bool {
        self.0 & 8 != 0
    }

    /// Retain Handling, 0..=2. [S-40]
    #[must_use]
    pub fn retain_handling(self) -> u8 {
        self.0 >> 4 & 3
    }

    /// The packed byte.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// From [`bits`](Self::bits) or from the options byte of SUBSCRIBE, already validated.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

impl std::fmt::Debug for SubOpts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubOpts")
            .field("qos", &self.qos_level())
            .field("no_local", &self.no_local())
            .field("retain_as_published", &self.retain_as_published())
            .field("retain_handling", &self.retain_handling())
            .finish()
    }
}

/// One subscription of one session (or of a shared group) to one filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// Opaque handle of whoever subscribed.
    pub session: u32,
    /// Subscription Identifier, 0 = none.
    pub subscription_id: u32,
    /// Options.
    pub opts: SubOpts,
}

const _: () = assert!(size_of::<Subscriber>() == 12);

/// What [`SubIndex::subscribe`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// The filter's id, valid while it has a subscriber.
    pub filter: FilterId,
    /// The options that the session's subscription to this filter had before, if it existed. [S-40]
    pub replaced: Option<SubOpts>,
    /// This is the filter's first subscriber: insert a route.
    pub first_of_filter: bool,
}

/// What [`SubIndex::unsubscribe`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribed {
    /// The options that the subscription had.
    pub opts: SubOpts,
    /// The filter has no subscriber any more, its id is no longer valid: remove the route.
    pub last_of_filter: bool,
}

/// Lives on: each shard.
#[derive(Debug)]
pub struct SubIndex {
    seed: u64,
}

impl SubIndex {
    /// An empty index.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Adds or replaces the subscription of `session` to `filter` (valid, and without `$share/…/`).
    pub fn subscribe(
        &mut self,
        filter: &str,
        session: u32,
        opts: SubOpts,
        subscription_id: u32,
    ) -> Subscribed {
        let _ = (self.seed, filter, session, opts, subscription_id);
        unimplemented!()
    }

    /// Removes the subscription of `session` to the filter. O(1). Call [`filter_str`](Self::filter_str)
    /// first if the text is still wanted.
    pub fn unsubscribe(&mut self, filter: FilterId, session: u32) -> Option<Unsubscribed> {
        let _ = (filter, session);
        unimplemented!()
    }

    /// The id of a filter that has a subscriber.
    #[must_use]
    pub fn find(&self, filter: &str) -> Option<FilterId> {
        let _ = filter;
        unimplemented!()
    }

    /// The subscription of `session` to the filter.
    #[must_use]
    pub fn get(&self, filter: FilterId, session: u32) -> Option<Subscriber> {
        let _ = (filter, session);
        unimplemented!()
    }

    /// The filter's text.
    ///
    /// # Panics
    /// If the filter has no subscriber.
    #[must_use]
    pub fn filter_str(&self, filter: FilterId) -> &str {
        let _ = filter;
        unimplemented!()
    }

    /// Appends every filter that matches `topic`, once each, in no order. [S-50] [S-51]
    pub fn matches(&self, topic: &str, out: &mut Vec<FilterId>) {
        let _ = (topic, out);
        unimplemented!()
    }

    /// The filter's subscribers, in no order.
    #[must_use]
    pub fn subscribers(&self, filter: FilterId) -> &[Subscriber] {
        let _ = filter;
        unimplemented!()
    }

    /// Distinct filters.
    #[must_use]
    pub fn filters(&self) -> usize {
        0
    }

    /// Subscriptions.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        0
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        0
    }
}

impl From<SubOpts> for QoS {
    fn from(o: SubOpts) -> Self {
        match o.qos_level() {
            0 => Self::AtMostOnce,
            1 => Self::AtLeastOnce,
            _ => Self::ExactlyOnce,
        }
    }
}
