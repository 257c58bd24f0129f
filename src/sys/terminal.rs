//! The terminal somebody looks at.

/// How many columns the terminal on standard output has (ioctl_tty(2), `TIOCGWINSZ`); `None` when there
/// is no terminal, or it does not say.
#[must_use]
pub fn columns() -> Option<u16> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel fills in the record, which lives here; a descriptor that is no terminal is an error.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then_some(size.ws_col)
}
