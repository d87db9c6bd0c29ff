//! `reconcile` killed with SIGKILL at a random moment on the way from bare servers, and run again:
//! the end state is that of a run that was left alone.

use std::{fs, time::Duration};

use crate::harness::{Lab, figure, normalised, same, seconds, setting};

/// In continuous integration; the issue wants ten once.
const KILLS: u64 = 2;
/// Steps of the first pass, less the last few.
const STEPS: usize = 48;

#[test]
fn a_killed_run_is_finished_by_the_next() {
    let mut lab = Lab::shared();
    let spec = lab.spec();
    lab.secrets(&spec);
    let (reference, whole) = reference(&mut lab);
    let kills = setting("RECONCILE_KILLS", KILLS);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = setting("RECONCILE_SEED", now.map_or(1, |now| now.as_secs()));
    println!("RECONCILE_SEED={seed}, a run left alone took {}", seconds(whole));
    let mut random = Random(seed);
    let mut longest = Duration::ZERO;
    for round in 1..=kills {
        let killed = if round % 2 == 1 {
            // Any moment, from the first two seconds on, which only connect, to four fifths of the way.
            let latest = (whole.as_secs_f64() * 0.8).max(3.0);
            let moment = Duration::from_secs_f64(2.0 + random.fraction() * (latest - 2.0));
            lab.reset();
            println!("kill {round} after {}", seconds(moment));
            lab.start(&spec, &[]).kill_when(|age, _| age >= moment)
        } else {
            // Half of the time goes by in apt; this hits all that happens in the other half.
            let step = 1 + random.below(STEPS);
            lab.reset();
            println!("kill {round} after {step} steps");
            lab.start(&spec, &[]).kill_when(|_, told| steps_done(told) >= step)
        };
        let last = killed.stderr.lines().last().unwrap_or("nothing").trim().to_owned();
        println!("  {} steps done, last word `{last}`", steps_done(&killed.stderr));
        let ran = lab.reconcile(&spec, &[]).expect(0).says("and serves");
        println!("  finished by the next run in {}", seconds(ran.took));
        longest = longest.max(ran.took);
        let what = format!("RECONCILE_SEED={seed}: kill {round} left another end state\n{killed}");
        same(&what, &reference, &normalised(&lab));
        lab.reconcile(&spec, &["plan", "--exit-code"]).expect(0);
    }
    figure(
        "kill -9 anywhere between bare servers and a cluster, then run again",
        "the same end state as a run left alone",
        &format!("{kills} of {kills}, finished by the next run within {}", seconds(longest)),
    );
}

/// Progress lines of steps that took effect.
fn steps_done(told: &str) -> usize {
    told.lines().filter(|line| line.starts_with("  ok ")).count()
}

/// The end state and duration of a run that was left alone: t10's, unless the lab's secrets or the
/// binary are others by now.
fn reference(lab: &mut Lab) -> (String, Duration) {
    let changed =
        |name: &str| fs::metadata(lab.dir().join(name)).and_then(|file| file.modified()).ok();
    let newest = lab.binary_changed().max(changed("secrets.yaml"));
    if changed("reference.seconds") < newest {
        lab.reset();
        let ran = lab.reconcile(&lab.spec(), &[]).expect(0);
        lab.write("reference.state", &normalised(lab));
        lab.write("reference.seconds", &format!("{:.1}", ran.took.as_secs_f64()));
    }
    let read = |name: &str| fs::read_to_string(lab.dir().join(name)).expect("it was written");
    let took = read("reference.seconds").parse().expect("it is a number");
    (read("reference.state"), Duration::from_secs_f64(took))
}

/// splitmix64: the same seed gives the same moments everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1.
    fn fraction(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
    }

    /// Less than a bound.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % bound
    }
}
