"""Downloads Apache Kafka, the jars in jars.txt, into a directory, and checks their checksums.

Usage: python3 tests/kafka/install.py DIRECTORY

The repository is Maven Central, or the one at MAVEN_REPOSITORY_URL. Jars that are there already are
kept. Exit status 1 if Java is missing or too old for Kafka, or if a jar cannot be downloaded or
differs from its checksum.
"""

import concurrent.futures
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import urllib.error
import urllib.request

REPOSITORY = os.environ.get("MAVEN_REPOSITORY_URL") or "https://repo1.maven.org/maven2"
ATTEMPTS = 3
JAVA_VERSION = 17
TIMEOUT_S = 60


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    check_java()
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    lines = pathlib.Path(__file__).with_name("jars.txt").read_text().splitlines()
    jars = [line.split() for line in lines if line and not line.startswith("#")]
    expected = {f"{artifact}-{version}.jar" for _, artifact, version in map(coordinates, jars)}
    for old in directory.glob("*.jar"):
        if old.name not in expected:
            old.unlink()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for problem in pool.map(lambda jar: install(directory, *jar), jars):
            if problem:
                pool.shutdown(wait=False, cancel_futures=True)
                sys.exit(problem)


def check_java():
    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else "java"
    try:
        output = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
    except OSError:
        sys.exit(f"{java} is missing; install Java {JAVA_VERSION} or later")
    version = re.search(r'version "(\d+)', output)
    if not version or int(version[1]) < JAVA_VERSION:
        found = output.splitlines()[0] if output else "unknown"
        sys.exit(f"Java is too old ({found}); install version {JAVA_VERSION} or later")


def coordinates(jar):
    return jar[1].split(":")


def install(directory, checksum, name):
    """Installs one jar. Returns a problem, or None."""
    group, artifact, version = name.split(":")
    file = directory / f"{artifact}-{version}.jar"
    if file.exists() and sha256(file.read_bytes()) == checksum:
        return None
    url = f"{REPOSITORY.rstrip('/')}/{group.replace('.', '/')}/{artifact}/{version}/{file.name}"
    for attempt in range(ATTEMPTS):
        try:
            content = urllib.request.urlopen(url, timeout=TIMEOUT_S).read()
            break
        except (OSError, urllib.error.URLError) as error:
            if attempt == ATTEMPTS - 1:
                return f"cannot download {url}: {error}; set MAVEN_REPOSITORY_URL to a mirror"
    if sha256(content) != checksum:
        return f"{url} has SHA-256 {sha256(content)} instead of {checksum}"
    # Renamed once complete, so that an interrupted download leaves no jar behind.
    partial = file.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(file)
    return None


def sha256(content):
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    main()
