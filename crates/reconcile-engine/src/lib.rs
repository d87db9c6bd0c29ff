//! reconcile-engine
