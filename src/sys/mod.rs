//! The only unsafe, setuid, kill and fork. Small safe functions over the newtypes of `model`.
