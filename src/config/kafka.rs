//! `[kafka]`

use std::fmt;

use serde::Deserialize;

use super::error::{InvalidValue, check_range};

/// How to connect to Kafka. The keys are librdkafka's with `_` for `.`; an empty string keeps
/// librdkafka's default.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    pub security_protocol: String,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub sasl_mechanism: String,
    /// User name for SASL.
    pub sasl_username: String,
    /// Password for SASL.
    pub sasl_password: Secret,
    /// PEM file with the CA certificates to trust.
    pub ssl_ca_location: String,
    /// PEM file with the client certificate.
    pub ssl_certificate_location: String,
    /// PEM file with the client's private key.
    pub ssl_key_location: String,
    /// Password of the private key.
    pub ssl_key_password: Secret,
    /// How the members of a consumer group share partitions.
    pub group_protocol: GroupProtocol,
    /// Time without a heartbeat after which the group reassigns a member's partitions, in the classic
    /// protocol.
    pub session_timeout_ms: u64,
}

impl Kafka {
    /// The properties for connecting, under librdkafka's names.
    #[must_use]
    pub fn properties(&self) -> Vec<(&'static str, String)> {
        let texts = [
            ("security.protocol", &self.security_protocol),
            ("sasl.mechanism", &self.sasl_mechanism),
            ("sasl.username", &self.sasl_username),
            ("sasl.password", &self.sasl_password.0),
            ("ssl.ca.location", &self.ssl_ca_location),
            ("ssl.certificate.location", &self.ssl_certificate_location),
            ("ssl.key.location", &self.ssl_key_location),
            ("ssl.key.password", &self.ssl_key_password.0),
        ];
        texts
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| (name, text.clone()))
            .collect()
    }

    /// The properties of a member of a consumer group, under librdkafka's names, besides those for
    /// connecting.
    #[must_use]
    pub fn group_properties(&self) -> Vec<(&'static str, String)> {
        match self.group_protocol {
            GroupProtocol::Classic => vec![
                ("group.protocol", "classic".to_owned()),
                (
                    "partition.assignment.strategy",
                    "cooperative-sticky".to_owned(),
                ),
                ("session.timeout.ms", self.session_timeout_ms.to_string()),
            ],
            GroupProtocol::Consumer => vec![("group.protocol", "consumer".to_owned())],
        }
    }

    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        check_range("session_timeout_ms", self.session_timeout_ms, 1..=3_600_000)?;
        for (key, Secret(secret)) in [
            ("sasl_password", &self.sasl_password),
            ("ssl_key_password", &self.ssl_key_password),
        ] {
            if secret.contains('\0') {
                return Err(InvalidValue::new(key, "the value contains a NUL character"));
            }
        }
        Ok(())
    }
}

/// A protocol of consumer groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupProtocol {
    /// That of all versions of Kafka.
    Classic,
    /// That of Kafka 4.0 and later, in which the brokers assign the partitions.
    Consumer,
}

/// A password. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}
