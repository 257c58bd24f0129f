//! TLS for probes: which certificates are trusted, and what a server shows.

/// Certificates to trust, read when they are first needed.
#[derive(Debug, Default)]
pub struct Roots;
