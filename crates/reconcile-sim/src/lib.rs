//! reconcile-sim
