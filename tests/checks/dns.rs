//! `type = "dns"`.
