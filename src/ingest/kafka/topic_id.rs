//! The identifier of a topic, which differs once the topic has been deleted and created again.
//!
//! rdkafka does not give access to it. librdkafka, which is built from the version that Cargo.lock
//! names, logs it with `debug=metadata`; a test with a real broker fails if it no longer does.

/// The setting of librdkafka that makes it log identifiers.
pub(super) const DEBUG: (&str, &str) = ("debug", "metadata");

/// How librdkafka writes the identifier of a topic that has none or is unknown yet.
const NONE: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// The identifier of a topic, if this message of librdkafka's log says that it has changed.
pub(super) fn changed_to<'a>(message: &'a str, topic: &str) -> Option<&'a str> {
    // A message of a broker begins with its name.
    let (_, change) = message.split_once("Topic ")?;
    let ids = change
        .strip_prefix(topic)?
        .strip_prefix(" changed id from ")?;
    let (_, id) = ids.split_once(" to ")?;
    Some(id).filter(|id| !id.trim_end_matches('=').starts_with(NONE))
}

#[cfg(test)]
mod tests {
    use super::changed_to;

    #[test]
    fn only_a_change_of_this_topic_is_found() {
        let of = |message| changed_to(message, "usage");
        let first = "[thrd:main]: Topic usage changed id from AAAAAAAAAAAAAAAAAAAAAA to l3MSkiRcR7GGgLDLDfWANA";
        assert_eq!(of(first), Some("l3MSkiRcR7GGgLDLDfWANA"));
        let gone = "Topic usage changed id from l3MSkiRcR7GGgLDLDfWANA to AAAAAAAAAAAAAAAAAAAAAA";
        assert_eq!(of(gone), None);
        assert_eq!(of("Topic usage-2 changed id from a to b"), None);
        assert_eq!(of("Topic usage [0] Leader 1 Epoch 0"), None);
    }
}
