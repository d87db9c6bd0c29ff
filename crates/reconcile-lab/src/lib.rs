//! reconcile-lab
