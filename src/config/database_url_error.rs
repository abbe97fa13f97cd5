//! Why a connection string cannot be used.

/// Why a connection string cannot be used. No variant contains the password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// The text is neither a URL nor `key=value` pairs.
    #[error("not a PostgreSQL URL: {0} (e.g. postgresql://user@host:5432/database)")]
    Syntax(String),
    /// A user name or password has a special character that is not encoded. The parser would take
    /// the rest of the password for the host.
    #[error(
        "not a PostgreSQL URL: there is an @ after the host; percent-encode special characters in the \
         user name and password (@ is %40, / is %2F)"
    )]
    UnescapedAt,
    /// Like [`Self::Syntax`], but the parser's error may quote a part of the password.
    #[error(
        "not a PostgreSQL URL: a parameter is unknown or has no value; percent-encode special \
         characters in the user name and password (& is %26, ? is %3F), and quote values in a \
         key=value string (password='…')"
    )]
    Parameter,
    /// A URL of something else.
    #[error(
        "not a PostgreSQL URL: use postgresql:// instead of {0}:// (e.g. postgresql://user@host:5432/database)"
    )]
    Scheme(String),
    /// An option that libpq does not have.
    #[error("{0}: there is no such option in libpq; correct its spelling or remove it")]
    Unknown(String),
    /// An option, or a value of it, that has no equivalent here; and why.
    #[error("{0}: {1}")]
    Unsupported(String, &'static str),
    /// A value that the option does not have, and those that it has.
    #[error("{0} cannot be '{1}'; use {2}")]
    Value(String, String, &'static str),
    /// A service that no service file contains.
    #[error("there is no service {0} in {1}; add it to one of them, or correct its name")]
    NoService(String, String),
    /// A line of a service file that cannot be parsed.
    #[error("{0}: not key=value")]
    ServiceLine(String),
    /// The port of a URL, which may be part of a password.
    #[error(
        "{0} is not a number from 1 to 65535; write special characters of a password as % and two hexadecimal \
         digits (e.g. %2F for /)"
    )]
    Port(String),
    /// Several hosts with another number of ports or addresses.
    #[error("{0} has {1} values for {2} hosts; set one for each host")]
    Count(&'static str, usize, usize),
    /// `sslmode=verify-ca` without `sslrootcert`.
    #[error("sslmode=verify-ca needs sslrootcert=FILE, the CA certificates to trust")]
    NoRoots,
    /// `sslrootcert=system` with a mode that does not verify the host name.
    #[error(
        "sslrootcert=system needs sslmode=verify-full: without verifying the host name, any certificate from a \
         public authority would be accepted"
    )]
    SystemRootsWithoutHostname,
    /// Only one of `sslcert` and `sslkey`.
    #[error("{0} is set but {1} is not; set both")]
    Incomplete(&'static str, &'static str),
}
