//! `type = "http"`.
