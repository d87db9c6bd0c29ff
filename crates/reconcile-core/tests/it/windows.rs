//! Maintenance windows by the clock, the clock changes of Europe included, and what a pause holds.

use reconcile_core::{
    check::check,
    model::{ObjectId, PauseNote},
    plan::{HoldReason, Impact, Step, plan, text},
    status::status,
    windows::{closes, is_open, next, opens},
};
use reconcile_sim::{World, fixture};
use reconcile_spec::valid::{Permission, Window};

fn window(cron: &str, minutes: u64, timezone: &str) -> Window {
    let cron = cron.parse().unwrap();
    Window { cron, duration_s: minutes * 60, timezone: timezone.to_owned() }
}

fn at(text: &str) -> u64 {
    u64::try_from(text.parse::<jiff::Timestamp>().unwrap().as_second()).unwrap()
}

#[test]
fn a_window_is_open_from_its_first_second_to_before_its_end() {
    let saturday = [window("0 2 * * 6", 120, "Europe/Berlin")];
    for (moment, open) in [
        ("2026-11-28T00:59:59Z", false),
        ("2026-11-28T01:00:00Z", true),
        ("2026-11-28T02:59:59Z", true),
        ("2026-11-28T03:00:00Z", false),
        ("2026-11-27T01:30:00Z", false),
        // In summer Berlin is two hours ahead.
        ("2026-07-04T00:00:00Z", true),
        ("2026-07-04T02:00:00Z", false),
    ] {
        assert_eq!(is_open(&saturday, at(moment)), open, "{moment}");
    }
    assert_eq!(
        next(&saturday, at("2026-11-22T10:00:00Z")).as_deref(),
        Some("Sat 2026-11-28 02:00 Europe/Berlin")
    );
    // The next one after one that is open.
    assert_eq!(
        next(&saturday, at("2026-11-28T01:00:00Z")).as_deref(),
        Some("Sat 2026-12-05 02:00 Europe/Berlin")
    );
}

#[test]
fn it_is_told_when_a_window_closes_and_when_the_next_opens() {
    let saturday = window("0 2 * * 6", 120, "Europe/Berlin");
    let one = std::slice::from_ref(&saturday);
    let during = at("2026-11-28T01:30:00Z");
    assert_eq!(closes(one, during), Some(at("2026-11-28T03:00:00Z")));
    assert_eq!(opens(one, during), Some(at("2026-12-05T01:00:00Z")));
    assert_eq!(closes(one, at("2026-11-28T03:00:00Z")), None);
    // What follows without a gap is one window, whichever of them closes first.
    let after = window("30 3 * * 6", 60, "Europe/Berlin");
    let both = [saturday, after];
    assert_eq!(closes(&both, during), Some(at("2026-11-28T03:30:00Z")));
    let day = [window("0 0 * * *", 24 * 60, "UTC")];
    assert_eq!(closes(&day, during), None, "it never closes");
    assert!(is_open(&day, during));
}

#[test]
fn the_first_of_several_windows_is_named_and_any_is_enough() {
    let both = [window("0 3 1 * *", 60, "UTC"), window("30 22 * * mon-fri", 60, "UTC")];
    assert_eq!(
        next(&both, at("2026-11-22T10:00:00Z")).as_deref(),
        Some("Mon 2026-11-23 22:30 UTC")
    );
    assert!(is_open(&both, at("2026-12-01T03:59:00Z")));
    assert!(is_open(&both, at("2026-12-01T22:59:00Z")));
    assert!(!is_open(&[], at("2026-12-01T22:59:00Z")));
    assert_eq!(next(&[], 0), None);
}

#[test]
fn a_window_across_midnight_and_one_of_a_week_are_found() {
    let night = [window("0 23 * * 5", 180, "UTC")];
    assert!(is_open(&night, at("2026-11-28T01:59:00Z")));
    assert!(!is_open(&night, at("2026-11-28T02:00:00Z")));
    let week = [window("0 0 1 * *", 7 * 24 * 60, "UTC")];
    assert!(is_open(&week, at("2026-12-07T23:59:00Z")));
    assert!(!is_open(&week, at("2026-12-08T00:00:00Z")));
}

#[test]
fn a_time_that_the_clocks_skip_comes_later_and_one_that_they_repeat_once() {
    let daily = [window("30 2 * * *", 30, "Europe/Berlin")];
    // 2027-03-28: 02:00 becomes 03:00 at 01:00Z; 02:30 does not exist and counts as 03:30.
    assert!(!is_open(&daily, at("2027-03-28T01:29:00Z")));
    assert!(is_open(&daily, at("2027-03-28T01:30:00Z")));
    // 2026-10-25: 03:00 becomes 02:00 at 01:00Z; 02:30 comes twice, the first counts.
    assert!(is_open(&daily, at("2026-10-25T00:30:00Z")));
    assert!(!is_open(&daily, at("2026-10-25T01:30:00Z")));
}

#[test]
fn a_rare_day_is_found_and_an_impossible_one_is_not() {
    let leap = [window("0 2 29 2 *", 60, "UTC")];
    assert_eq!(
        next(&leap, at("2026-11-22T10:00:00Z")).as_deref(),
        Some("Tue 2028-02-29 02:00 UTC")
    );
    assert_eq!(next(&[window("0 2 30 2 *", 60, "UTC")], at("2026-11-22T10:00:00Z")), None);
}

#[test]
fn a_restart_waits_for_the_window_and_what_disturbs_nothing_does_not() {
    let mut desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    desired.policy.restart = Permission::InWindow;
    desired.policy.switchover = Permission::InWindow;
    desired.policy.windows = vec![window("0 2 * * 6", 120, "UTC")];
    let mut world = World::converged(&desired);
    world.now = at("2026-11-22T10:00:00Z");
    let file = world.server_mut("node2").files.get_mut("/etc/default/etcd").unwrap();
    file.bytes.extend_from_slice(b"ETCD_MAX_SNAPSHOTS=9\n");
    world.server_mut("node3").files.get_mut("/etc/patroni/patroni.yml").unwrap().mode = 0o644;

    let closed = world.observe(&desired);
    let shut = plan(&desired, &closed);
    assert!(!shut.steps.is_empty(), "what disturbs nothing is done at any time");
    assert!(shut.steps.iter().all(|step| !step.impact.disruptive()));
    let told = status(&desired, &closed, &shut, None).maintenance.expect("the file has a window");
    assert!(!told.open && told.closes_at.is_none());
    assert_eq!(told.opens_at, Some(at("2026-11-28T02:00:00Z")));
    assert_eq!(told.opens.as_deref(), Some("Sat 2026-11-28 02:00 UTC"));
    assert_eq!(told.keeps, ["restart", "switchover"]);
    let waits: Vec<_> = told.waiting.iter().map(ToString::to_string).collect();
    assert_eq!(waits, ["node2:/etc/default/etcd"]);
    let told: Vec<_> = shut.held.iter().map(|held| held.reason.to_string()).collect();
    let wanted = "policy: policy.restart is `inWindow`, and a window opens Sat 2026-11-28 02:00 UTC; what waits: ";
    assert!(told.iter().any(|reason| reason.starts_with(wanted)), "{told:?}");
    assert_eq!(shut.stuck().count(), 0, "nobody has to do anything: {told:?}");

    world.now = at("2026-11-28T03:00:00Z");
    let open = world.observe(&desired);
    let plan_in_window = plan(&desired, &open);
    let restart = plan_in_window.steps.iter().find(|step| step.impact == Impact::Restart);
    assert!(restart.is_some(), "{plan_in_window:?}");
    assert_eq!(check(&desired, &open, &plan_in_window), []);
    let told = status(&desired, &open, &plan_in_window, None).maintenance.unwrap();
    assert!(told.open && told.waiting.is_empty());
    assert_eq!(told.closes_at, Some(at("2026-11-28T04:00:00Z")));
    desired.policy.windows.clear();
    assert_eq!(status(&desired, &open, &plan_in_window, None).maintenance, None);
    desired.policy.windows = vec![window("0 2 * * 6", 120, "UTC")];
    // The checker looks at the clock itself.
    let broken = check(&desired, &closed, &plan_in_window);
    assert!(broken.iter().any(|fault| fault.rule == "what the policy does not allow is not done"));
}

fn note(number: u64, until: u64) -> PauseNote {
    PauseNote { number, until, by: "anna@ops1".to_owned(), reason: "disk swap".to_owned() }
}

#[test]
fn a_pause_holds_every_step_until_it_ends() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let mut world = World::converged(&desired);
    world.now = at("2026-11-22T10:00:00Z");
    world.server_mut("node3").files.get_mut("/etc/patroni/patroni.yml").unwrap().mode = 0o644;
    // One server is enough: the others may have been off.
    world.server_mut("node2").pause = Some(note(4, world.now + 1800));

    let observed = world.observe(&desired);
    let held = plan(&desired, &observed);
    assert_eq!(held.steps, []);
    let why = "by anna@ops1 until 2026-11-22 10:30Z: disk swap; `reconcile resume` ends it";
    assert_eq!(held.held[0].reason, HoldReason::Paused(why.to_owned()));
    let shown = status(&desired, &observed, &held, None);
    let paused = shown.conditions.iter().find(|condition| condition.kind == "Paused").unwrap();
    assert_eq!(paused.reason, "ByCommand");
    // What would be done is told, with its verbs, and nothing of it is a step.
    let words = text(&held, false);
    assert!(
        words.starts_with("Plan for cluster main: 0 steps, 1 step held by the pause, 0 held.\n")
    );
    assert!(words.contains(&format!("Would be done, were it not paused: {why}\n")), "{words}");
    assert!(words.contains("  1 ~ update node3:/etc/patroni/patroni.yml: it differs"), "{words}");
    assert!(words.contains(" [held by the pause]\n") && !words.contains("\nHeld:"), "{words}");
    let meant = held.without_pause.as_deref().expect("the plan as it would be");
    assert_eq!(shown.paused[0].object, meant.steps[0].object);
    assert_eq!((shown.pending.len(), shown.queued.len(), shown.held.len()), (0, 0, 1));
    // The checker refuses a plan that was made before.
    let mut before = observed.clone();
    before.at += 1800;
    let after_its_end = plan(&desired, &before);
    assert_eq!(after_its_end.steps.len(), 1);
    let broken = check(&desired, &observed, &after_its_end);
    assert!(broken.iter().any(|fault| fault.rule == "nothing is done while the cluster is paused"));
}

#[test]
fn an_operator_that_only_looks_does_nothing_not_even_resume() {
    let mut desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let mut world = World::converged(&desired);
    world.server_mut("node3").files.get_mut("/etc/patroni/patroni.yml").unwrap().mode = 0o644;
    world.paused.insert("node1".into());
    world.guarded.insert("node1".into());
    let observed = world.observe(&desired);
    let free = plan(&desired, &observed);
    let resumes = |step: &Step| matches!(step.object, ObjectId::Pooler(_));
    assert!(free.steps.iter().any(resumes) && free.steps.len() > 1, "{free:?}");
    let (digest, why) = (desired.digest(), "nothing is changed until the file is good".to_owned());
    desired.only_looks = Some(why.clone());
    assert_ne!(desired.digest(), digest, "the file that is good is another desired state");
    let held = plan(&desired, &observed);
    assert_eq!(held.steps, []);
    assert_eq!(held.paused().count(), free.steps.len());
    assert!(held.held.iter().all(|held| held.reason == HoldReason::Paused(why.clone())));
    let shown = status(&desired, &observed, &held, None);
    let paused = shown.conditions.iter().find(|condition| condition.kind == "Paused").unwrap();
    assert_eq!((paused.reason, &paused.message), ("ByBrokenFile", &why));
    // The checker refuses a plan that was made before.
    let broken = check(&desired, &observed, &free);
    let rule = "an operator that only looks does nothing";
    assert_eq!(broken.iter().filter(|fault| fault.rule == rule).count(), free.steps.len());
}

#[test]
fn the_highest_number_counts_so_a_server_that_was_off_does_not_pause_again() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let mut world = World::converged(&desired);
    world.now = 1_000;
    world.server_mut("node1").pause = Some(note(5, 0));
    world.server_mut("node2").pause = Some(note(4, 9_000));
    assert_eq!(world.observe(&desired).pause(), None);
    world.server_mut("node1").pause = Some(note(3, 0));
    assert!(world.observe(&desired).pause().is_some());
}

#[test]
fn a_note_is_read_as_written_and_a_damaged_one_pauses() {
    let written = note(7, 1_234);
    assert_eq!(PauseNote::parse(&written.line(), "/p"), written);
    let bare = PauseNote { reason: String::new(), ..written };
    assert_eq!(PauseNote::parse(&format!("{}\n", bare.line()), "/p"), bare);
    for damaged in ["", "x", "7", "7 soon anna"] {
        let note = PauseNote::parse(damaged, "/p");
        assert!(note.lasts(u64::MAX - 1), "{damaged:?}");
        assert_eq!(note.number, 0, "whoever resumes writes a higher one");
    }
}

/// What waits for its turn is queued in the plan and in the status, paused or not.
#[test]
fn what_is_queued_is_queued_everywhere() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let mut world = World::converged(&desired);
    world.now = 1_000;
    for host in ["node1", "node2"] {
        let file = world.server_mut(host).files.get_mut("/etc/default/etcd").unwrap();
        file.bytes.extend_from_slice(b"ETCD_MAX_SNAPSHOTS=9\n");
    }
    for paused in [false, true] {
        world.server_mut("node3").pause = paused.then(|| note(1, 9_000));
        let observed = world.observe(&desired);
        let plan = plan(&desired, &observed);
        let shown = status(&desired, &observed, &plan, None);
        assert_eq!(shown.queued.len(), 1, "{:?}", shown.queued);
        assert!(matches!(shown.queued[0].reason, HoldReason::OneAtATime(_)));
        let (pending, held) = (shown.pending.len(), shown.paused.len());
        assert_eq!((pending, held), if paused { (0, 1) } else { (1, 0) });
        assert_eq!(shown.held.len(), usize::from(paused), "{:?}", shown.held);
        let words = text(&plan, false);
        let queued = format!("  . {}: one disruptive step at a time", shown.queued[0].object);
        assert!(words.contains("1 queued") && words.contains(&queued), "{words}");
        assert!(words.contains("0 held.") && !words.contains("\nHeld:"), "{words}");
    }
}
