//! A plan's holds and steps, by object.

use std::collections::BTreeSet;

use serde_json::Value;

/// What a plan holds, and what it does all the same.
pub(crate) struct Held<'a> {
    plan: &'a Value,
    holds: Vec<(String, String)>,
    steps: BTreeSet<String>,
}

impl<'a> Held<'a> {
    /// Of a plan as `plan -o json` prints it.
    pub(crate) fn of(plan: &'a Value) -> Self {
        let list = |name: &str| plan[name].as_array().cloned().unwrap_or_default();
        let object = |value: &Value| value["object"].as_str().unwrap_or_default().to_owned();
        let holds = list("held")
            .iter()
            .map(|held| (object(held), held["reason"]["detail"].to_string()))
            .collect();
        Self { plan, holds, steps: list("steps").iter().map(object).collect() }
    }

    /// True where nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.holds.is_empty()
    }

    /// Fails unless the object is held, for a reason in these words, and no step touches it.
    #[track_caller]
    pub(crate) fn says(&self, object: &str, words: &str) {
        let found =
            self.holds.iter().any(|(held, reason)| held == object && reason.contains(words));
        let objects: Vec<_> = self.holds.iter().collect();
        assert!(found, "{object} is not held because of `{words}`; held: {objects:#?}");
        assert!(!self.steps.contains(object), "{object} is held and changed\n{:#}", self.plan);
    }

    /// Fails unless these objects have steps.
    #[track_caller]
    pub(crate) fn steps(&self, objects: &[&str]) {
        for object in objects {
            assert!(self.steps.contains(*object), "no step for {object}; steps: {:#?}", self.steps);
        }
    }
}
