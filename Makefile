# make demo: the whole program on generated usage, with the embedded TimescaleDB. Ctrl-C ends it.
# make test: everything that must hold before a change lands.
# make screenshots: the README's pictures, made by the test of the web page; in Inter, where it is installed (Debian:
# fonts-inter).

CARGO ?= cargo
# npm writes this file last, so it tells that the packages are whole.
PACKAGES := embedded/node_modules/.package-lock.json
BROWSER_PACKAGES := tests/browser/node_modules/.package-lock.json
SCHEMATHESIS := target/schemathesis/installed

.PHONY: demo test screenshots packages browser schemathesis tools

demo: tools packages
	$(CARGO) build --locked --release
	bash examples/demo.sh

test: tools packages browser schemathesis
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
	$(CARGO) test --locked

screenshots: tools packages browser
	SIMUSAGE_SCREENSHOTS=$(CURDIR)/docs $(CARGO) test --locked --test it -- page::

packages: $(PACKAGES)

%/node_modules/.package-lock.json: %/package-lock.json
	cd $* && npm ci --no-audit --no-fund
	@touch $@

# The web page is tested in Chromium, which Debian has as a package.
browser: tools $(BROWSER_PACKAGES)
	@node tests/browser/chromium.mjs >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends chromium; \
	  else \
	    echo "Chromium is missing, which tests the web page: install it (Debian: apt-get install chromium)," >&2; \
	    echo "or name it, as CHROMIUM=/path/to/chromium make test" >&2; \
	    exit 1; \
	  fi; \
	}

# What asks the API for everything that its description allows.
schemathesis: $(SCHEMATHESIS)

$(SCHEMATHESIS): tests/schemathesis/requirements.txt
	@command -v python3 >/dev/null || { echo "Python is missing: version 3.10 or later tests the API" >&2; exit 1; }
	python3 -m venv --clear target/schemathesis
	target/schemathesis/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# What a fresh machine must have. Everything else installs itself.
tools:
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: cargo is not on the PATH (https://rustup.rs)" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "A C compiler is missing: librdkafka, OpenSSL and zstd are built from source" >&2; exit 1; }
	@command -v perl >/dev/null || { echo "Perl is missing: OpenSSL is built with it" >&2; exit 1; }
	@command -v node >/dev/null || { echo "Node.js is missing: version 20 or later runs the embedded TimescaleDB" >&2; exit 1; }
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || { echo "Node.js 20 or later is needed, this is $$(node --version)" >&2; exit 1; }
	@command -v npm >/dev/null || { echo "npm is missing: it comes with Node.js" >&2; exit 1; }
