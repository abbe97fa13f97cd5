//! Sends lines to a Kafka topic, one message per line, so that ingest can be tried out.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use crate::config::Kafka;

/// How long a message may take to be delivered.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait for room in the queue before sending again.
const PAUSE: Duration = Duration::from_millis(50);

/// Sends each line written to it as a message. After a flush, the brokers have all of them.
pub struct Producer {
    client: BaseProducer<Deliveries>,
    topic: String,
    /// The start of an incomplete line.
    line: Vec<u8>,
}

/// Keeps the first delivery error.
#[derive(Default)]
struct Deliveries(Mutex<Option<KafkaError>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert_with(|| error.clone());
        }
    }
}

impl Producer {
    /// A producer for a topic. It connects to the brokers when the first message is sent.
    ///
    /// # Errors
    /// Returns an error if librdkafka rejects a setting.
    pub fn new(kafka: &Kafka, brokers: &str, topic: &str) -> anyhow::Result<Self> {
        let mut config = ClientConfig::new();
        config
            .set("client.id", "simusage")
            .set("bootstrap.servers", brokers);
        config.set(
            "message.timeout.ms",
            DELIVERY_TIMEOUT.as_millis().to_string(),
        );
        for (name, value) in kafka.properties() {
            config.set(name, value);
        }
        let producer = config
            .create_with_context(Deliveries::default())
            .context("configuring the Kafka client")?;
        Ok(Self {
            client: producer,
            topic: topic.to_owned(),
            line: vec![],
        })
    }

    fn send(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        let mut record: BaseRecord<'_, (), [u8]> = BaseRecord::to(&self.topic).payload(&line);
        loop {
            match self.client.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.client.poll(PAUSE);
                }
                Err((error, _)) => return Err(io::Error::other(error)),
            }
        }
    }
}

impl Write for Producer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ended) = piece
                .strip_suffix(b"\n")
                .map_or((piece, false), |text| (text, true));
            self.line.extend_from_slice(text);
            if ended {
                self.send()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.client
            .flush(DELIVERY_TIMEOUT)
            .map_err(io::Error::other)?;
        let failed = self
            .client
            .context()
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        failed.map_or(Ok(()), |error| Err(io::Error::other(error)))
    }
}
