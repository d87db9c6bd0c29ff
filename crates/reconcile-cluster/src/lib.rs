//! reconcile-cluster
