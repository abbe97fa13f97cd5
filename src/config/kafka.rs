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
    /// Time without a heartbeat after which the group reassigns a member's partitions.
    pub session_timeout_ms: u64,
}

impl Kafka {
    /// The properties to pass to librdkafka, under its names.
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
        let set = texts
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| (name, text.clone()));
        set.chain([("session.timeout.ms", self.session_timeout_ms.to_string())])
            .collect()
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

/// A password. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}
