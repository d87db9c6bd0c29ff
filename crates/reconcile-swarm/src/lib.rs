//! reconcile-swarm
