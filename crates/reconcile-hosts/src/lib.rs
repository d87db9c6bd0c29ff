//! reconcile-hosts
