'use strict';
// The page: follows the event stream and draws what it says. Every text goes in as text.

const $ = id => document.getElementById(id);
const MARK = { good: '✓', warn: '!', bad: '✕', doubt: '?', work: '◐', info: '·', none: '–' };
const WORD = { good: 'well', warn: 'attention', bad: 'wrong', doubt: 'unknown', work: 'in progress', info: '', none: '' };
/** A server that is silent for longer than two ticks is lost. */
const SILENCE = 12000;
const KEPT = 200;

let doc = null;
let events = [];
let lastId = '';
let heard = 0;
let connected = false;
let lostSince = Date.now();
/** The operator's clock minus ours, in milliseconds. */
let skew = 0;
let dirty = false;
const open = new Set();

/** An element with attributes and children; strings become text nodes. */
function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value);
  }
  for (const child of children.flat()) {
    if (child !== undefined && child !== null && child !== false && child !== '') element.append(child);
  }
  return element;
}

/** Marks are drawn and no text: a font may lack the sign, and its contrast could not be judged. */
const SHAPE = {
  good: 'M2.5 8.5 6.5 12.5 13.5 4', warn: 'M8 2.5V9.5M8 12.6V13', bad: 'M3.5 3.5 12.5 12.5M12.5 3.5 3.5 12.5',
  doubt: 'M4.8 5.4C5 3.6 6.3 2.8 8 2.8S11.2 3.8 11.2 5.5C11.2 7.7 8 7.6 8 10M8 12.6V13',
  work: 'M8 2.5A5.5 5.5 0 1 1 2.5 8', info: 'M8 7.6V8.4', none: 'M4.5 8H11.5',
};
function shape(level) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  for (const [name, value] of [['viewBox', '0 0 16 16'], ['aria-hidden', 'true'], ['class', 'shape']]) svg.setAttribute(name, value);
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  path.setAttribute('d', SHAPE[level]);
  svg.append(path);
  return svg;
}

function mark(level, turning) {
  return h('span', { class: 'tone' + (turning ? ' turning' : ''), 'data-level': level, role: 'img', 'aria-label': WORD[level] || 'note' }, shape(level));
}

const now = () => Date.now() + skew;

function ago(time) {
  if (!time) return 'never';
  const seconds = Math.max(0, Math.round((now() - Date.parse(time)) / 1000));
  if (seconds < 90) return seconds + ' s ago';
  if (seconds < 5400) return Math.round(seconds / 60) + ' min ago';
  if (seconds < 129600) return Math.round(seconds / 3600) + ' h ago';
  return Math.round(seconds / 86400) + ' days ago';
}

function ahead(time) {
  const seconds = Math.round((Date.parse(time) - now()) / 1000);
  if (seconds < 0) return 'now';
  if (seconds < 90) return 'in ' + seconds + ' s';
  if (seconds < 5400) return 'in ' + Math.round(seconds / 60) + ' min';
  if (seconds < 129600) return 'in ' + Math.round(seconds / 3600) + ' h';
  return 'in ' + Math.round(seconds / 86400) + ' days';
}

/** Times are UTC, as in the journal and on the servers. */
const clock = time => new Date(time).toISOString().slice(11, 19) + 'Z';

function bytes(count) {
  if (count < 1024) return count + ' B';
  if (count < 1048576) return (count / 1024).toFixed(1) + ' KiB';
  if (count < 1073741824) return (count / 1048576).toFixed(1) + ' MiB';
  return (count / 1073741824).toFixed(1) + ' GiB';
}

/** Text that grows old by itself; refreshed every second. */
const since = (time, before = '', after = '') =>
  h('span', { 'data-since': time, 'data-before': before, 'data-after': after }, before + ago(time) + after);

/** The same for what is to come. */
const until = time => h('span', { 'data-until': time }, ahead(time));

// ---- what is well and what is not ------------------------------------------------------------

function etcdLevel(word) {
  return { leader: 'good', member: 'good', unknown: 'doubt', '-': 'none' }[word] || 'bad';
}
function databaseLevel(host) {
  if (host.role === 'primary' || host.role === 'standby leader') return 'good';
  if (host.role === 'replica') return host.state === 'streaming' ? 'good' : 'warn';
  return { unknown: 'doubt', '-': 'none' }[host.role] || (/creat|start/.test(host.state) ? 'warn' : 'bad');
}
function swarmLevel(word) {
  return { leader: 'good', manager: 'good', worker: 'good', drain: 'warn', pause: 'warn', unknown: 'doubt', '-': 'none' }[word] || 'bad';
}
function taskLevel(task) {
  if (task.silent) return 'bad';
  if (task.state === 'running') return 'good';
  return /fail|reject|orphan|shutdown|complete/.test(task.state) ? 'bad' : 'warn';
}
const shortName = service => service.name.slice(service.name.indexOf('_') + 1);

const shortHash = commit => commit.hash.slice(0, 12);
const titled = commit => 'commit ' + shortHash(commit) + ' “' + commit.subject + '” by ' + commit.author;
/** What stays in force while the newest is not taken, in a few words. */
function lastGood() {
  const { commit, inForceSince, refused } = doc.source;
  // Git's own reason may name it already.
  if (commit && refused && refused.reason.includes(shortHash(commit) + ', which is in force')) return 'that stays in force';
  if (commit) return 'commit ' + shortHash(commit) + ' stays in force';
  return inForceSince ? 'what was read at ' + clock(inForceSince) + ' stays in force' : 'none is in force yet';
}

/** Who keeps the cluster, where this operator is a standby: it observes nothing. */
const keeper = () => { const lease = doc.operator.lease; return lease && !lease.held && lease.keeper; };

const counted = (count, word) => count + ' ' + word + (count === 1 ? '' : 's');
/** Held by the pause and by nothing else: it is shown as the step that it would be. */
const byPause = held => doc.plan.paused.some(step => step.object === held.object);

/** Everything that needs attention, worst first: level, where, what. */
function problems() {
  const list = [];
  const add = (level, where, what) => list.push({ level, where, what });
  const refused = doc.source.refused;
  if (refused) add('bad', refused.commit ? 'commit ' + shortHash(refused.commit) : refused.file, (refused.unread ? 'cannot be read, ' : 'refused, ') + refused.reason + '; ' + lastGood());
  const lease = doc.operator.lease, certificate = doc.operator.certificate;
  if (lease && !lease.held && !keeper()) add('warn', 'operator', 'does nothing, it waits for the lease: ' + lease.waits);
  const paused = doc.conditions.find(condition => condition.type === 'Paused' && condition.status === 'True');
  if (paused) add('warn', 'paused', paused.message + (doc.plan.paused.length ? '; ' + counted(doc.plan.paused.length, 'step') + ' would be done' : ''));
  const locked = doc.conditions.find(condition => condition.type === 'LockedOut' && condition.status === 'True');
  if (locked) add('warn', 'pg_hba', locked.message);
  if (certificate && certificate.fault) add('warn', 'certificate', certificate.fault + '; the one before stays in use');
  if (certificate && certificate.notAfter && Date.parse(certificate.notAfter) - now() < 14 * 86400000) add('warn', 'certificate', 'of this page is valid until ' + certificate.notAfter.slice(0, 10));
  for (const { name, archive } of doc.hosts) {
    if (archive && archive.lastFailedAt && (archive.lastArchivedAt || '') < archive.lastFailedAt) add('warn', name, 'WAL is not archived: it last failed at ' + clock(archive.lastFailedAt));
  }
  if (doc.passes.refused) add('bad', 'plan', 'was refused: ' + doc.passes.refused);
  // Whether clients are served comes before all else.
  const ready = doc.conditions.find(condition => condition.type === 'Ready');
  const failing = ready && /^(NotServing|NoWrites|PartlyServing|ProofFailed)$/.test(ready.reason);
  const doubtful = ready && ready.reason === 'HostUnknown';
  if (failing || doubtful) list.unshift({ level: failing ? 'bad' : 'doubt', where: 'service', what: ready.message });
  // What is named there, or by its server, is not said again.
  const told = new Set(), away = doc.hosts.filter(host => host.unreachable || host.swarm === 'drain');
  if (doc.proof && !doc.proof.holds && !doc.proof.outdated) {
    for (const part of doc.proof.parts) {
      if (part.holds || part.untried) continue;
      const cause = part.comesOf || part.what + ': ' + part.detail;
      if (told.has(cause) || failing && ready.message.includes(cause) || away.some(host => cause.startsWith(host.name + ' '))) continue;
      told.add(cause);
      add('bad', part.host || 'service', 'not proven: ' + cause);
    }
  }
  for (const host of doc.hosts) {
    if (host.unreachable) { add(host.answers ? 'doubt' : 'bad', host.name, (host.answers ? 'cannot be looked at: ' : 'does not answer: ') + host.unreachable); continue; }
    // Of a node that somebody drained the hold says what to do.
    const parts = [['etcd', etcdLevel(host.etcd), host.etcd], ['PostgreSQL', databaseLevel(host), host.role === 'replica' ? 'a replica that does not stream yet (' + host.state + ')' : /^Patroni /.test(host.state) ? host.state : host.role], ['Swarm', /^(drain|pause)$/.test(host.swarm) ? 'good' : swarmLevel(host.swarm), host.swarm]];
    for (const level of ['bad', 'warn', 'doubt']) {
      const such = parts.filter(part => part[1] === level);
      if (such.length) add(level, host.name, such.map(([part, , word]) => /^Patroni /.test(word) ? word : part + ' is ' + word).join(', '));
    }
  }
  // What is missing where a server does not answer is said by the server; a drained node has none.
  for (const service of doc.services) {
    if (service.running === undefined) continue;
    if (service.running + away.length < service.wanted) add('bad', shortName(service), service.running + ' of ' + service.wanted + ' tasks run');
  }
  for (const step of doc.plan.steps) {
    if (step.progress.state === 'failed') add('bad', step.object, step.verb + ' failed: ' + step.progress.error);
  }
  for (const held of doc.plan.held) {
    if (byPause(held)) continue;
    // What an unreachable server holds is said by the server.
    const said = doc.hosts.some(host => host.unreachable && host.name === held.host);
    const entry = { level: 'warn', where: held.object, what: 'held: ' + held.message };
    // A node that is drained is the cause of what is missing.
    if (!said) held.object.startsWith('swarm/node/') ? list.unshift(entry) : list.push(entry);
  }
  const rank = { bad: 0, warn: 1, doubt: 2 };
  return list.sort((a, b) => rank[a.level] - rank[b.level]);
}

/** Nothing serves yet and packages are still to be installed: that is no outage. */
function settingUp() {
  const steps = doc.plan.steps;
  return steps.some(step => step.class === 'packages') && steps.every(step => step.progress.state !== 'failed')
    && doc.hosts.every(host => !host.unreachable && host.role !== 'primary' && host.role !== 'replica');
}

function headline(found) {
  const ready = doc.conditions.find(condition => condition.type === 'Ready');
  const steps = doc.plan.steps;
  const running = steps.filter(step => step.progress.state === 'running');
  const ended = steps.filter(step => /done|failed|skipped/.test(step.progress.state)).length;
  const work = steps.length && ended < steps.length;
  const doing = running.map(step => step.verb + ' ' + step.object).slice(0, 3).join(', ') + (running.length > 3 ? ', …' : '');
  const proven = doc.proof && !doc.proof.outdated && doc.proof.at;
  const worst = found.length ? found[0].level : 'good';
  if (keeper()) {
    const seen = doc.observedAt ? 'What is shown here is of ' + clock(doc.observedAt) + ', when this operator last looked.' : 'This operator has not looked at the servers.';
    return { level: 'info', text: 'Standby: ' + keeper() + ' keeps this cluster', sub: seen + ' It takes over when that one is gone.' };
  }
  if (!doc.observedAt) return { level: 'none', text: 'Waiting for the first pass', sub: doc.source.refused ? 'The desired state ' + (doc.source.refused.unread ? 'cannot be read: ' : 'is not taken: ') + doc.source.refused.reason : '' };
  if (work && settingUp()) return { level: 'work', text: 'Setting up: ' + ended + ' of ' + steps.length + ' steps', sub: doing };
  if (found.length) {
    const first = found[0];
    const more = found.length > 1 ? ', and ' + (found.length - 1) + ' more' : '';
    const sub = work ? 'Working: ' + ended + ' of ' + steps.length + ' steps' + (doing ? ', now ' + doing : '') : '';
    const service = first.where === 'service' && first.what === (ready && ready.message);
    const lost = service && doc.lastGoodProof ? ['Last proven to serve ', since(doc.lastGoodProof), ' (' + clock(doc.lastGoodProof) + '). '] : [];
    return { level: worst, text: (service ? sentence(first.what) : first.where + ': ' + first.what) + more, sub: [...lost, sub], proven: !service && proven && !doc.proof.holds && proven };
  }
  if (work) return { level: 'work', text: 'Working: ' + ended + ' of ' + steps.length + ' steps', sub: doing };
  if (steps.length) return { level: 'work', text: 'Looking whether anything is left', sub: '' };
  if (ready && ready.status === 'True') return { level: 'good', text: 'All is well', sub: ready.message, proven };
  if (ready && ready.status === 'False') return { level: 'warn', text: ready.message, sub: ready.reason };
  return { level: 'doubt', text: 'As desired; service not proven yet', sub: '' };
}

const sentence = text => text.charAt(0).toUpperCase() + text.slice(1);

// ---- drawing ----------------------------------------------------------------------------------

function node(level, word, lines, extra) {
  if (level === 'none') return h('div', { class: 'node none' }, word || '–');
  return h('div', { class: 'node ' + (extra || ''), 'data-level': level },
    mark(level, level === 'work'), ' ', h('span', { class: 'word' }, word), lines.filter(Boolean).map(line => h('small', null, line)));
}

function serviceNodes(host, services, named) {
  return services.map(service => {
    const label = named ? shortName(service) : '';
    const short = image => image.split('@')[0].split('/').pop();
    const tag = short(service.image);
    const next = service.desiredImage && 'to be ' + short(service.desiredImage);
    if (service.running === undefined || host.unreachable) return node('doubt', 'unknown', [label, tag, next]);
    const task = service.tasks.find(task => task.host === host.name);
    if (!task) return host.swarm === '-' ? node('none', '–') : node('bad', 'no task', [label, tag, next]);
    return node(taskLevel(task), task.silent ? 'silent' : task.state, [label, tag, task.silent && 'no sign of life', next]);
  });
}

function databaseNode(host) {
  const level = databaseLevel(host);
  if (level === 'none') return node('none', '–');
  const versions = host.versions;
  const lines = [
    host.role === 'replica' ? host.state : '',
    versions.postgresql ? 'PostgreSQL ' + versions.postgresql : '',
    versions.patroni ? 'Patroni ' + versions.patroni : '',
    host.archive && host.archive.lastArchivedAt ? since(host.archive.lastArchivedAt, 'WAL archived ') : '',
    host.timeline !== undefined ? 'timeline ' + host.timeline + (host.lagBytes !== undefined && host.role !== 'primary' ? ', lag ' + bytes(host.lagBytes) : '') : '',
  ];
  return node(level, host.role, lines, host.role === 'primary' ? 'chief' : '');
}

function drawMap() {
  const hosts = doc.hosts;
  const of = name => doc.services.filter(service => shortName(service).replace(/-read$/, '') === name);
  const known = ['haproxy', 'pgbouncer', 'router'];
  const others = doc.services.filter(service => !known.includes(shortName(service).replace(/-read$/, '')));
  const map = $('map');
  map.style.setProperty('--servers', hosts.length);
  const head = h('thead', null, h('tr', null, h('td', { class: 'layer' }), hosts.map(host =>
    h('th', { scope: 'col' }, mark(host.unreachable ? host.answers ? 'doubt' : 'bad' : 'good'), ' ', h('b', null, host.name),
      h('small', null, host.address),
      h('small', null, host.unreachable ? host.answers ? 'cannot be looked at' : 'does not answer' : 'answers in ' + Math.round((host.answerSeconds || 0) * 1000) + ' ms'),
      host.leaving && h('small', { class: 'leaves' }, host.leaving.left ? 'has left' : 'is to leave')))));
  const layer = (name, about, cells) => h('tr', null, h('th', { scope: 'row', class: 'layer' }, name, about && h('small', null, about)), cells);
  const wires = (kind, about) => h('tr', { class: 'wires ' + kind, 'aria-hidden': 'true' }, h('th', null, about), hosts.map(() => h('td')));
  const cells = make => hosts.map(host => h('td', null, make(host)));
  const body = h('tbody');
  if (doc.services.length) {
    body.append(layer('Applications', '', [h('td', { colspan: hosts.length }, h('div', { class: 'node none apps' }, 'write to haproxy:5432, read from haproxy:5433'))]), wires('bus', 'any front'));
  }
  if (of('haproxy').length) body.append(layer('HAProxy', 'Swarm', cells(host => serviceNodes(host, of('haproxy')))), wires('bus', 'any pooler'));
  if (of('pgbouncer').length) body.append(layer('PgBouncer', 'Swarm', cells(host => serviceNodes(host, of('pgbouncer'), true))), wires('own', 'same server'));
  if (of('router').length) body.append(layer('Router', 'Swarm', cells(host => serviceNodes(host, of('router')))), wires('bus', 'by role'));
  if (others.length) body.append(layer('Others', 'Swarm', cells(host => serviceNodes(host, others, true))));
  body.append(layer('PostgreSQL', 'systemd', cells(databaseNode)), wires('bus', 'leader key'));
  body.append(layer('etcd', 'systemd', cells(host => {
    const level = etcdLevel(host.etcd);
    return node(level, level === 'none' ? '–' : host.etcd, [host.versions.etcd && 'etcd ' + host.versions.etcd]);
  })));
  if (doc.services.length) {
    body.append(h('tr', { class: 'gap', 'aria-hidden': 'true' }, h('td', { colspan: hosts.length + 1 })));
    body.append(layer('Swarm', 'Docker', cells(host => node(swarmLevel(host.swarm), host.swarm, [host.versions.docker && 'Docker ' + host.versions.docker]))));
  }
  map.replaceChildren(...(hosts.length ? [head, body] : [h('tbody', null, h('tr', null, h('td', { class: 'empty' }, 'Not observed' + (keeper() ? ': this operator is a standby.' : ' yet.'))))]));
}

const STEP = { pending: 'none', running: 'work', done: 'good', failed: 'bad', skipped: 'info' };

function drawSteps() {
  const steps = keeper() ? [] : doc.plan.steps;
  const ended = steps.filter(step => step.progress.state === 'done').length;
  $('plan-count').textContent = steps.length ? ended + ' of ' + steps.length + ' steps done' : '';
  if (!steps.length) {
    const none = keeper() ? 'Not made: this operator is a standby.' : doc.plan.paused.length ? 'Nothing is done while it is paused.' : doc.plan.held.length ? 'Nothing can be done now: what differs is held.' : 'Nothing to do: no drift.';
    $('steps').replaceChildren(h('li', { class: 'empty' }, none));
    return;
  }
  // What runs or failed comes first; among hundreds of pending steps nobody would find it.
  const order = { failed: 0, running: 0, pending: 1, skipped: 1, done: 2 };
  const shown = [...steps].sort((a, b) => order[a.progress.state] - order[b.progress.state] || a.id - b.id);
  $('steps').replaceChildren(...shown.map(stepRow));
}

function stepRow(step) {
  const { state, seconds, startedAt, error } = step.progress;
  const level = STEP[state];
  const key = 'step ' + step.verb + ' ' + step.object;
  const took = seconds !== undefined ? seconds.toFixed(1) + ' s' : state === 'running' && startedAt ? since(startedAt, 'since ') : state === 'pending' ? '' : state;
  const line = [
    mark(level, state === 'running'),
    h('span', { class: 'object' }, step.verb + ' ' + step.object),
    h('span', { class: 'took' }, step.impact !== 'none' && h('span', { class: 'tag', 'data-level': step.impact === 'restart' ? 'warn' : 'work' }, step.impact), ' ', took),
    h('span', { class: 'why' }, step.reason),
    error && h('span', { class: 'fail' }, error),
  ];
  if (!step.changes.length) return h('li', null, h('div', { class: 'step' }, line));
  const details = h('details', { open: open.has(key) ? '' : null }, h('summary', { class: 'step', 'data-key': key }, line),
    h('div', { class: 'diff', tabindex: '0', role: 'group', 'aria-label': 'changes of ' + step.object }, step.changes.map(change => h('div', null,
      h('b', null, change.field),
      change.from !== undefined && h('pre', { 'data-level': 'bad' }, '− ' + change.from),
      change.to !== undefined && h('pre', { 'data-level': 'good' }, '+ ' + change.to)))));
  details.addEventListener('toggle', () => details.open ? open.add(key) : open.delete(key));
  return h('li', null, details);
}

function drawHeld() {
  const { paused, queued } = doc.plan;
  const held = doc.plan.held.filter(one => !byPause(one));
  for (const [id, list] of [['paused', paused], ['queued', queued], ['held', held]]) {
    $(id + '-box').hidden = !list.length;
    $(id + '-count').textContent = list.length || '';
  }
  const rows = (list, level) => list.map(one => h('li', null, mark(level), h('span', { class: 'object' }, one.object), h('small', null, since(one.since)), h('span', { class: 'detail' }, one.message)));
  $('paused').replaceChildren(...paused.map(stepRow));
  $('queued').replaceChildren(...rows(queued, 'none'));
  $('held').replaceChildren(...rows(held, 'warn'));
}

function drawConditions() {
  $('conditions').replaceChildren(...doc.conditions.map(condition => {
    // False is how these should be.
    const when = { Reconciling: 'work', Stalled: 'warn', Paused: 'warn', Leaving: 'work', OrphanedMember: 'warn', LockedOut: 'warn' }[condition.type];
    const level = condition.status === 'Unknown' ? 'doubt'
      : when ? (condition.status === 'False' ? 'good' : when)
      : condition.status === 'True' ? 'good' : 'bad';
    return h('li', null, mark(level), h('span', null, h('b', null, condition.type), ' ' + condition.status), h('small', null, since(condition.lastTransitionTime)), h('span', { class: 'detail' }, condition.message),
      condition.type === 'Leaving' && doc.hosts.filter(host => host.leaving && !host.leaving.left).map(host =>
        h('span', { class: 'detail' }, host.name + ': ' + host.leaving.remains.join(', '))));
  }));
  const proof = doc.proof;
  $('proof-when').replaceChildren(proof ? since(proof.at) : 'not made yet', proof && proof.outdated ? ', too old to count' : '');
  $('proof').replaceChildren(...(proof ? proof.parts : []).map(part =>
    h('li', null, mark(part.holds ? 'good' : part.untried ? 'doubt' : 'bad'), h('span', null, part.what, h('small', null, ' ' + part.detail + (part.comesOf ? '; ' + part.comesOf : ''))), h('small', null, part.millis ? part.millis + ' ms' : ''))));
}

/** Maintenance windows: the one that is open or the next, what is kept to them, what waits. */
function drawUpkeep() {
  const upkeep = doc.maintenance;
  $('upkeep-box').hidden = !upkeep;
  if (!upkeep) return;
  const at = time => time.slice(0, 16).replace('T', ' ') + 'Z';
  const next = upkeep.opensAt ? ['the next opens ' + upkeep.opens + ', ', until(upkeep.opensAt)] : ['none ever opens'];
  const words = { restart: 'restarts', switchover: 'switchovers' };
  const keeps = upkeep.keeps.length ? upkeep.keeps.map(one => words[one] || one).join(' and ') + ' are kept to them' : 'nothing is kept to them';
  const line = upkeep.open
    ? h('li', null, mark('work'), h('span', null, h('b', null, 'Open')), h('small', null, upkeep.closesAt && until(upkeep.closesAt)),
      h('span', { class: 'detail' }, upkeep.closesAt ? 'until ' + at(upkeep.closesAt) + '; ' : '', next, '; ' + keeps))
    : h('li', null, mark('none'), h('span', null, h('b', null, 'Closed')), h('small'),
      h('span', { class: 'detail' }, next, '; ' + keeps));
  const waits = upkeep.waiting.length
    ? h('li', null, mark('warn'), h('span', null, upkeep.waiting.length === 1 ? '1 waits for it' : upkeep.waiting.length + ' wait for it'), h('small'),
      h('span', { class: 'detail' }, upkeep.waiting.join(', ')))
    : h('li', null, mark('good'), h('span', null, 'Nothing waits for it'), h('small'));
  $('upkeep').replaceChildren(line, waits);
}

function drawEvents() {
  const list = events.slice().reverse().map(entry =>
    h('li', null, h('time', { datetime: entry.at, title: entry.at }, clock(entry.at)), mark(entry.level), h('span', null, entry.text)));
  $('events').replaceChildren(...(list.length ? list : [h('li', { class: 'empty' }, 'Nothing yet.')]));
}

function setText(id, text) {
  // Only what is new is put in, so that a live region does not speak twice.
  if ($(id).textContent !== text) $(id).textContent = text;
}

function draw() {
  dirty = false;
  if (!doc) return;
  const focus = document.activeElement && document.activeElement.dataset.key;
  const found = problems();
  const head = headline(found);
  setText('cluster', doc.cluster);
  $('headline').dataset.level = head.level;
  $('headline-mark').replaceChildren(shape(head.level));
  setText('headline-text', head.text);
  $('headline-sub').replaceChildren(...[head.sub].flat(), ...(head.proven ? [since(head.proven, [head.sub].flat().some(Boolean) ? ', proven ' : 'proven ')] : []));
  document.title = MARK[head.level] + ' ' + doc.cluster + ': ' + head.text;
  const colour = { good: '%231a6b43', warn: '%23b87400', bad: '%23c62a20', doubt: '%2355578a', work: '%231d4f84' }[head.level] || '%23777';
  $('icon').href = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><circle cx='8' cy='8' r='7' fill='" + colour + "'/></svg>";
  $('problems').hidden = found.length < (keeper() ? 1 : 2);
  $('problems').replaceChildren(...found.slice(0, 12).map(one => h('li', null, mark(one.level), h('b', null, one.where), h('span', null, one.what))),
    ...(found.length > 12 ? [h('li', null, h('span'), h('b', null, found.length - 12 + ' more'))] : []));
  drawRefused();
  $('main').hidden = false;
  drawMap(); drawSteps(); drawHeld(); drawConditions(); drawUpkeep(); drawEvents(); drawFoot();
  if (focus) {
    for (const element of document.querySelectorAll('[data-key]')) if (element.dataset.key === focus) element.focus({ preventScroll: true });
  }
}

function drawRefused() {
  const { refused, commit, inForceSince } = doc.source;
  $('broken').hidden = !refused;
  if (!refused) return;
  setText('h-broken', refused.unread ? 'The newest desired state cannot be read' : 'The newest desired state is not taken');
  setText('broken-what', refused.unread ? 'Not read' : 'Refused');
  setText('refused', refused.commit ? titled(refused.commit) + ', ' + refused.commit.time + ', file ' + refused.file : refused.file);
  const digest = doc.observedGeneration ? ', desired state ' + doc.observedGeneration.slice(0, 12) : '';
  setText('in-force', !inForceSince ? 'nothing yet' : commit ? titled(commit) + ', ' + commit.time : 'what was read at ' + inForceSince + digest);
  setText('report', refused.report);
}

function drawFoot() {
  const passes = doc.passes;
  const digest = doc.observedGeneration ? ', desired state ' + doc.observedGeneration.slice(0, 12) : '';
  const last = passes.endedAt ? ', the last took ' + passes.seconds.toFixed(2) + ' s' : '';
  const commit = doc.source.commit, lease = doc.operator.lease;
  const holds = lease && lease.held ? ['holds lease ' + lease.token + ' ', since(lease.since, 'since '), ', '] : [];
  const from = commit ? ', ' + titled(commit) : '';
  $('foot').replaceChildren('reconcile ' + doc.operator.version + ', pass ' + passes.number + last + digest + from + ', ', ...holds, 'started ', since(doc.operator.startedAt));
}

function drawLink() {
  const silent = Date.now() - heard > SILENCE;
  const live = connected && !silent;
  $('link-mark').replaceChildren(mark(live ? 'good' : 'bad'));
  const age = doc && doc.observedAt ? 'observed ' + ago(doc.observedAt) : 'nothing observed yet';
  setText('link', (live ? 'live, ' : 'not connected, ') + age);
  const lost = doc && !live && Date.now() - lostSince > 1500;
  $('lost').hidden = !lost;
  if (lost) setText('lost', 'The connection to the operator is lost since ' + clock(lostSince) + '. What you see is how it was at ' + (doc.observedAt ? clock(doc.observedAt) : '–') + '. Trying again.');
  document.body.classList.toggle('stale', Boolean(lost));
  for (const element of document.querySelectorAll('[data-since]')) {
    const text = element.dataset.before + ago(element.dataset.since) + element.dataset.after;
    if (element.textContent !== text) element.textContent = text;
  }
  for (const element of document.querySelectorAll('[data-until]')) {
    const text = ahead(element.dataset.until);
    if (element.textContent !== text) element.textContent = text;
  }
}

// ---- the stream -------------------------------------------------------------------------------

function later() {
  if (!dirty) { dirty = true; setTimeout(draw, 40); }
}

function take(kind, data) {
  if (kind === 'status') {
    doc = data;
    if (data.events) events = data.events;
  } else if (kind === 'tick') {
    skew = Date.parse(data.now) - Date.now();
    return;
  } else if (!doc) {
    return;
  } else if (kind === 'step') {
    const step = doc.plan.steps.find(step => step.id === data.id && step.object === data.object);
    if (step) step.progress = data.progress;
  } else if (kind === 'log') {
    events.push(data);
    if (events.length > KEPT) events.shift();
  } else if (kind === 'calm') {
    doc.observedAt = data.observedAt;
    doc.passes = data.passes;
    doc.lastGoodProof = data.lastGoodProof;
    if (doc.proof && data.proofAt) doc.proof.at = data.proofAt;
  }
  later();
}

function frame(text) {
  let kind = '', data = '', id = '';
  for (const line of text.split('\n')) {
    if (line.startsWith('event: ')) kind = line.slice(7);
    else if (line.startsWith('data: ')) data = line.slice(6);
    else if (line.startsWith('id: ')) id = line.slice(4);
  }
  if (data) take(kind, JSON.parse(data));
  if (id) lastId = id;
}

async function follow(signal) {
  const headers = {};
  const token = sessionStorage.getItem('token');
  if (token) headers.Authorization = 'Bearer ' + token;
  if (lastId && doc) headers['Last-Event-ID'] = lastId;
  const answer = await fetch('events', { headers, signal, cache: 'no-store' });
  if (answer.status === 401) { await login(Boolean(token)); return; }
  if (!answer.ok) throw new Error('the operator answers ' + answer.status);
  $('login').hidden = true;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard = Date.now();
    if (!connected) { connected = true; drawLink(); }
    rest += value;
    const parts = rest.split('\n\n');
    rest = parts.pop();
    parts.forEach(frame);
  }
}

function login(wrong) {
  $('login').hidden = false;
  setText('login-error', wrong ? 'That token is not the right one.' : '');
  $('token').focus();
  return new Promise(done => {
    $('login').onsubmit = event => {
      event.preventDefault();
      sessionStorage.setItem('token', $('token').value.trim());
      $('token').value = '';
      done();
    };
  });
}

async function run() {
  let pause = 500;
  for (;;) {
    const abort = new AbortController();
    heard = Date.now();
    const watch = setInterval(() => { if (connected && Date.now() - heard > SILENCE) abort.abort(); }, 1000);
    const began = Date.now();
    try { await follow(abort.signal); } catch (error) { console.info('stream:', error.message); }
    clearInterval(watch);
    if (connected) lostSince = Date.now();
    connected = false;
    drawLink();
    if (Date.now() - began > 10000) pause = 500;
    await new Promise(done => setTimeout(done, pause * (0.75 + Math.random() / 2)));
    pause = Math.min(pause * 2, 8000);
  }
}

setInterval(drawLink, 1000);
run();
