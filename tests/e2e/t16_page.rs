//! The page, in a real browser before the real operator: it says that all is well, shows what
//! happens on a server within moments, and says so when it has lost the operator.

use std::{
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::harness::{Browser, Job, Lab, PATIENCE, figure, seconds, until};

/// Twice the figure of issue 4, as elsewhere.
const SHOWN: Duration = Duration::from_secs(3);

fn watch(lab: &Lab, spec: &Path, address: &str) -> (Job, String) {
    let job = lab.start(spec, &["--watch", "--interval", "600", "--listen", address]);
    let url = told_url(&job);
    (job, url)
}

fn told_url(job: &Job) -> String {
    until("the page's address", PATIENCE, || {
        let told = job.told();
        let url = told.split("status and page on ").nth(1).and_then(|rest| rest.lines().next());
        url.map(str::to_owned).ok_or(told)
    })
}

fn headline(browser: &mut Browser, wanted: &str) -> Duration {
    let started = Instant::now();
    until(&format!("the page to say `{wanted}`"), PATIENCE, || {
        let title = browser.value("document.title").to_string();
        if title.contains(wanted) { Ok(()) } else { Err(title) }
    });
    started.elapsed()
}

/// Text that cannot be read well, as `ratio text`: WCAG's contrast of each piece of text with all that
/// lies under it. What cannot be judged, for an image or a see-through element, is told as 0.
const FAINT: &str = r"(() => {
  const parts = colour => { const n = colour.match(/[\d.]+/g).map(Number); return [n[0], n[1], n[2], n.length > 3 ? n[3] : 1]; };
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3]));
  const light = rgb => { const c = rgb.map(v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]; };
  const faint = []; let judged = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; (text = walker.nextNode());) {
    const words = text.textContent.trim(), element = text.parentElement;
    if (!words || !element.checkVisibility() || ['SCRIPT', 'STYLE', 'NOSCRIPT'].includes(element.tagName)) continue;
    const layers = []; let clear = true;
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      if (style.opacity !== '1' || style.backgroundImage !== 'none' || style.filter !== 'none') clear = false;
      layers.push(parts(style.backgroundColor));
    }
    const ground = layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
    const style = getComputedStyle(element), ink = over(parts(style.color), ground);
    const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
    const ratio = clear ? (a + 0.05) / (b + 0.05) : 0;
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    judged += 1;
    if (ratio < (large ? 3 : 4.5) || /^[^\p{L}\p{N}]+$/u.test(words) && !/^[-\u2013:.,()]+$/.test(words)) faint.push(ratio.toFixed(2) + ' ' + words);
  }
  return judged > 40 ? faint.join('\n') : 'only ' + judged + ' texts';
})()";

/// Nothing is wider than the page or too faint, in any width and colour.
fn fits(browser: &mut Browser) {
    for (width, colours) in [(1280, "light"), (1280, "dark"), (768, "light"), (390, "dark")] {
        browser.look(width, colours);
        sleep(Duration::from_millis(200));
        let wide = browser.value("document.documentElement.scrollWidth").as_u64().unwrap_or(9999);
        assert!(wide <= u64::from(width), "{wide} of {width} pixels");
        let ground = browser.value("getComputedStyle(document.body).backgroundColor").to_string();
        assert_eq!(ground.contains("rgb(18"), colours == "dark", "{ground}");
        assert_eq!(browser.value(FAINT), "", "in {colours}, {width} pixels wide");
    }
}

fn drawn(browser: &mut Browser, nodes: &[String], primary: &str) {
    let cells = "[...document.querySelectorAll('#map thead th b')].map(b => b.textContent).join()";
    assert_eq!(browser.value(cells), nodes.join(","));
    let at = nodes.iter().position(|node| node == primary).expect("the primary is a server");
    let rows = "[...document.querySelectorAll('#map tbody tr')]";
    let chief = format!(
        "{rows}.find(row => row.textContent.startsWith('PostgreSQL')).querySelectorAll('td')[{at}].textContent"
    );
    let chief = browser.value(&chief).to_string();
    assert!(chief.contains("primary") && chief.contains("PostgreSQL 15."), "{chief}");
    for layer in ["Applications", "HAProxy", "PgBouncer", "Router", "PostgreSQL", "etcd"] {
        let there = format!("{rows}.some(row => row.textContent.startsWith('{layer}'))");
        assert_eq!(browser.value(&there), true, "{layer}");
    }
    let bad = "document.querySelectorAll('.node[data-level=bad], .node[data-level=doubt]').length";
    assert_eq!(browser.value(bad), 0);
}

/// The first stop is the skip link, and what scrolls can be reached.
fn by_keyboard(browser: &mut Browser) {
    browser.press("Tab", 9);
    assert_eq!(browser.value("document.activeElement.className"), "skip");
    browser.press("Tab", 9);
    assert_eq!(browser.value("document.activeElement.getAttribute('role')"), "region");
}

/// A file that is broken is shown with the line and the marks below it, and no secret of it.
fn broken_file(lab: &Lab, spec: &Path, browser: &mut Browser) {
    let good = std::fs::read_to_string(spec).expect("the file");
    let line = "  parametres: { work_mem: 8MB, pasword: canary-4711 }";
    lab.write("cluster.yaml", &format!("{}\n{line}\n", good.trim_end()));
    headline(browser, "refused, unknown field `parametres` in `spec`");
    let report = browser.value("document.getElementById('report').innerText").to_string();
    assert!(report.contains("parametres: { work_mem: 8MB, pasword: ***"), "{report}");
    assert!(report.contains("^^^^^^^^^^") && !report.contains("canary"), "{report}");
    let stays = browser.value("document.getElementById('in-force').textContent").to_string();
    assert!(stays.contains("what was read at 20"), "{stays}");
    fits(browser);
    lab.write("cluster.yaml", &good);
    headline(browser, "All is well");
    assert_eq!(browser.value("document.getElementById('broken').hidden"), true);
}

/// A second operator names the first one, and shows as its own nothing that it has not seen.
fn standby(lab: &Lab, spec: &Path, browser: &mut Browser) {
    let state = lab.dir().join("state-standby");
    let state = state.to_str().expect("the lab's folder is text");
    let job = lab.start(spec, &["--watch", "--listen", "127.0.0.1:0", "--state-dir", state]);
    let url = told_url(&job);
    browser.open(&url);
    headline(browser, "Standby: ");
    let text = |id: &str| format!("document.getElementById('{id}').textContent");
    let head = browser.value(&text("headline-text")).to_string();
    assert!(head.contains(" (process ") && head.contains("keeps this cluster"), "{head}");
    assert_eq!(browser.value(&text("steps")), "Not made: this operator is a standby.");
    assert_eq!(browser.value(&text("map")), "Not observed: this operator is a standby.");
    job.kill();
}

#[test]
fn the_page_follows_the_cluster() {
    let mut lab = Lab::shared();
    let spec = lab.converged();
    let primary = lab.primary();
    let nodes: Vec<String> = lab.nodes().into_iter().map(str::to_owned).collect();
    let replica = nodes.iter().find(|node| **node != primary).expect("there are three servers");
    let (job, url) = watch(&lab, &spec, "127.0.0.1:0");
    let mut browser = Browser::start();
    browser.open(&url);
    headline(&mut browser, "All is well");
    let foot = browser.value("document.getElementById('foot').textContent").to_string();
    assert!(foot.contains("holds lease "), "{foot}");
    drawn(&mut browser, &nodes, &primary);
    by_keyboard(&mut browser);
    fits(&mut browser);
    // The events of the servers must be heard before one is made.
    sleep(Duration::from_secs(3));

    lab.sh(replica, "systemctl stop etcd");
    let shown = headline(&mut browser, &format!("{replica}: etcd is down"));
    figure("a change on a server → on the page", "≤ 1.5 s", &seconds(shown));
    assert!(shown <= SHOWN, "{}", job.told());
    headline(&mut browser, "All is well");
    let events = browser.value("document.getElementById('events').textContent").to_string();
    assert!(events.contains(&format!("start {replica}/etcd.service")), "{events}");
    assert!(events.contains(&format!("drift {replica}/etcd.service (units): ")), "{events}");
    broken_file(&lab, &spec, &mut browser);

    job.kill();
    until("the page to say that it lost the operator", PATIENCE, || {
        let text = browser.value("document.getElementById('lost').textContent").to_string();
        let hidden = browser.value("document.getElementById('lost').hidden");
        if hidden == false && text.contains("is lost") { Ok(()) } else { Err(text) }
    });
    let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let (job, _) = watch(&lab, &spec, &address);
    until("the page to find the operator again", PATIENCE, || {
        let lost = browser.value("document.getElementById('lost').hidden");
        if lost == true { Ok(()) } else { Err(lost.to_string()) }
    });
    headline(&mut browser, "All is well");
    standby(&lab, &spec, &mut browser);
    drop(browser);
    job.kill();
}
