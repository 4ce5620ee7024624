//! The only unsafe code of Weft: network namespace entry and file descriptor passing.
