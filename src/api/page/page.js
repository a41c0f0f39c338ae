"use strict";
// How often the box is asked, how long it may take to answer, and how old an answer may be before that is said.
const EVERY = 2000, PATIENCE = 5000, STALE = 7000;
const $ = (id) => document.getElementById(id);

// Text is set, never parsed: nothing that a box is called can be anything else.
function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function make(tag, text = "", kind = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  node.className = kind;
  return node;
}

// Makes the children of `parent` those of `items`. One that is there already stays, with what has the focus in it.
function fill(parent, items, key, begin, update) {
  const before = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  items.forEach((item, place) => {
    const name = key(item);
    let node = before.get(name);
    if (!node) {
      node = begin(item);
      node.dataset.key = name;
    }
    before.delete(name);
    update(node, item);
    if (parent.children[place] !== node) parent.insertBefore(node, parent.children[place] ?? null);
  });
  before.forEach((node) => node.remove());
}

const places = (urls) => urls.map((url) => url.replace(/^https?:\/\//, ""));
const grouped = (digits) => digits.replace(/(.{4})(?=.)/g, "$1 ");

function span(seconds) {
  const [d, h, m] = [seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60].map(Math.floor);
  if (d) return h ? `${d} d ${h} h` : `${d} d`;
  if (h) return m ? `${h} h ${m} min` : `${h} h`;
  return m ? `${m} min` : `${Math.floor(seconds)} s`;
}

function scaled(count, units) {
  let step = 0;
  while (count >= 1000 && step < units.length - 1) {
    count /= 1000;
    step += 1;
  }
  return `${step && count < 100 ? count.toFixed(1) : Math.round(count)}${units[step]}`;
}
const bytes = (count) => scaled(count, [" B", " kB", " MB", " GB", " TB"]);
const number = (count) => count.toLocaleString("en").replaceAll(",", "\u202f");

let before = null; // The counters of the answer before, and when it came.

// What has been counted in a second since then; a box that has begun anew counts from zero.
function rates(counters) {
  const now = performance.now(), found = {};
  for (const name in counters) {
    const more = before ? counters[name] - before.counters[name] : -1;
    found[name] = more >= 0 ? more * 1000 / (now - before.now) : null;
  }
  before = { counters, now };
  return found;
}
const each = (rate) => (rate === null ? "–" : `${rate && rate < 10 ? rate.toFixed(1) : scaled(rate, ["", "k", "M"])} /s`);
const flow = (rate) => (rate === null ? "–" : `${bytes(rate)}/s`);

function figures(list, pairs) {
  const shown = pairs.filter(([, text]) => text !== null).flatMap(([name, text]) => [["dt", name, name], ["dd", name, text]]);
  fill(list, shown, ([tag, name]) => tag + name, ([tag]) => make(tag), (node, [, , text]) => set(node, text));
}

function showMembers(cluster) {
  const phase = [cluster.committed ? "committed" : "provisional"];
  if (cluster.by_secret) phase.push("open to whoever has the cluster's secret");
  else phase.push(cluster.open_seconds ? `open for ${span(cluster.open_seconds)}` : "sealed");
  set($("phase"), `cluster ${cluster.id}: ${phase.join(", ")}; term ${cluster.term}`);
  const row = () => {
    const node = make("tr"), who = make("th");
    who.scope = "row";
    who.append(make("span"), make("small"), make("small"));
    node.append(who, make("td"), make("td"));
    return node;
  };
  fill($("members"), cluster.members, (member) => member.id, row, (node, member) => {
    const [who, role, state] = node.children;
    set(who.children[0], member.name || member.id);
    set(who.children[1], grouped(member.fingerprint.slice(0, 16)));
    set(who.children[2], places(member.peer_urls).join("\n"));
    set(role, member.leads ? "leader" : member.votes ? "voter" : "learner");
    const [text, tone] = member.id === cluster.member ? ["this box", "good"]
      : !member.fingerprint ? ["awaited", "wait"]
      : member.reached ? ["reached", "good"] : ["AWAY", "bad"];
    set(state, text);
    state.className = `tone ${tone}`;
  });
}

function showPending(nodes, mayApprove) {
  $("pending").hidden = !nodes.length && !$("done").textContent;
  const row = (box) => {
    const node = make("li");
    node.append(make("strong"), make("small"), make("span", "", "print"), make("p"));
    if (mayApprove) {
      const button = make("button", `Let ${box.name} in …`);
      button.addEventListener("click", () => ask(box));
      node.lastChild.append(button);
    } else {
      set(node.lastChild, "To let it in: covey node approve, or this page, on the box itself.");
    }
    return node;
  };
  fill($("nodes"), nodes, (box) => box.fingerprint + box.name, row, (node, box) => {
    set(node.children[0], box.name);
    set(node.children[1], `${places(box.peer_urls).join(" ")}, asked ${span(box.asked_seconds)} ago`);
    set(node.children[2], grouped(box.fingerprint));
  });
}

function showFigures(status, load) {
  const { cluster, disk_written: written } = status, rate = rates(load.counters);
  const all = written && written.log + written.store + written.transfer + written.other;
  const quota = cluster.quota_bytes;
  const part = quota ? ` of ${bytes(quota)} (${Math.round(cluster.bytes_in_use * 100 / quota)} %)` : "";
  figures($("storage"), [
    ["Keys", load.keys === null ? null : number(load.keys)],
    ["Revision", number(load.revision)],
    ["Compacted to", load.compacted ? number(load.compacted) : null],
    ["In use", bytes(cluster.bytes_in_use) + part],
    ["File", bytes(load.file_bytes)],
    ["Written to disk", written ? bytes(all) : null],
    ["For each revision", written && written.revisions ? bytes((written.log + written.store) / written.revisions) : null],
    ["In the last idle hour", written && written.idle_hour !== null ? bytes(written.idle_hour) : null],
  ]);
  figures($("load"), [
    ["Puts", each(rate.puts)],
    ["Deletes", each(rate.deletes)],
    ["Transactions", each(rate.txns)],
    ["Ranges", each(rate.ranges)],
    ["Events to watchers", each(rate.events)],
    ["From clients", flow(rate.received_bytes)],
    ["To clients", flow(rate.sent_bytes)],
    ["Connections", number(load.connections)],
    ["Watchers", number(load.watchers)],
  ]);
}

function clock(millis) {
  const at = new Date(millis), time = at.toLocaleTimeString("en-GB");
  return at.toDateString() === new Date().toDateString() ? time : `${at.toISOString().slice(0, 10)} ${time}`;
}

function showEvents(events) {
  const row = (event) => {
    const node = make("li"), time = make("time", clock(event.at));
    time.dateTime = new Date(event.at).toISOString();
    node.append(time);
    if (event.level !== "info") node.append(make("span", `${event.level} `, event.level === "warn" ? "tone wait" : "tone bad"));
    node.append(event.text);
    return node;
  };
  fill($("events"), [...events].reverse(), (event) => `${event.number} ${event.at}`, row, () => {});
}

function show({ redacted, may_approve: mayApprove, version, status, load, events }) {
  const { cluster } = status, word = status.verdict.split(":")[0];
  set($("name"), status.name || "covey");
  document.title = `${word} · ${status.name || "covey"}`;
  set($("line"), status.verdict);
  $("verdict").className = status.healthy ? "good" : /^(gathering|joining)/.test(word) ? "wait" : "bad";
  fill($("next"), status.next ?? [], (step) => step, (step) => make("li", step), () => {});
  $("redacted").hidden = !redacted;
  for (const id of ["cluster", "figures"]) $(id).hidden = redacted || !cluster;
  if (redacted) {
    set($("line"), `${status.verdict}: ${cluster.reached} of ${cluster.voters + cluster.learners} members reached, ${cluster.voters} vote`);
    for (const id of ["pending", "conflict", "others", "recent"]) $(id).hidden = true;
    set($("box"), "");
    return;
  }
  showPending(cluster?.pending ?? [], mayApprove);
  if (cluster) {
    showMembers(cluster);
    if (load) showFigures(status, load);
  }
  const conflicts = cluster?.conflicts ?? [];
  $("conflict").hidden = !conflicts.length;
  fill($("conflicts"), conflicts, (one) => one.cluster, () => make("li"), (node, one) =>
    set(node, `${one.cluster} at ${one.addresses.join(" ")}, for ${span(one.since_seconds)}: ${one.why}`));
  $("others").hidden = !status.seen.length;
  fill($("seen"), status.seen, (one) => one.fingerprint + one.name, () => make("li"), (node, one) =>
    set(node, `${one.name}, ${grouped(one.fingerprint.slice(0, 16))}, ${one.addresses.join(" ")}: ${one.why}`));
  $("recent").hidden = !events?.length;
  showEvents(events ?? []);
  set($("box"), `covey ${version}, up ${span(status.up_seconds)}. This box's fingerprint: ${grouped(status.fingerprint)}`);
}

function ask(box) {
  set($("who"), `${box.name} at ${places(box.peer_urls).join(" ")}`);
  set($("print"), grouped(box.fingerprint));
  $("yes").onclick = () => approve(box);
  $("no").onclick = () => $("ask").close();
  $("ask").showModal();
  $("no").focus();
}

// Why, of an answer that is JSON or plain words.
function reason(text) {
  try {
    return JSON.parse(text).message;
  } catch {
    return text.trim();
  }
}

async function approve(box) {
  $("ask").close();
  let said = `${box.name} is let in when it asks next.`;
  try {
    const answer = await fetch("status/approve", {
      method: "POST",
      headers: { "content-type": "application/json", "x-covey-page": "1" },
      body: JSON.stringify({ fingerprint: box.fingerprint }),
      signal: AbortSignal.timeout(PATIENCE),
    });
    if (!answer.ok) said = `${box.name} was not let in: ${reason(await answer.text())}`;
  } catch (error) {
    said = `Whether ${box.name} is let in is not known: ${error.message}`;
  }
  set($("done"), said);
  $("pending").hidden = false;
  poll();
}

let timer = 0, asking = false, cameAt = null, failure = "";

async function poll() {
  if (asking) return;
  clearTimeout(timer);
  asking = true;
  try {
    const answer = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error((await answer.text()).trim() || `HTTP ${answer.status}`);
    show(await answer.json());
    cameAt = Date.now();
    failure = "";
  } catch (error) {
    failure = error.message;
  }
  asking = false;
  age();
  if (!document.hidden) timer = setTimeout(poll, EVERY);
}

// Says how old is what is shown.
function age() {
  const old = cameAt === null ? null : Date.now() - cameAt;
  const stale = failure !== "" || old > STALE;
  const since = old === null ? "nothing has come from it yet" : `what is shown is ${span(old / 1000)} old`;
  if (stale) set($("lost"), `This box does not answer: ${since}. (${failure || "waiting"})`);
  $("lost").hidden = !stale;
  document.body.classList.toggle("stale", stale);
  if (cameAt !== null) set($("asof"), `as of ${clock(cameAt)}`);
}

document.addEventListener("visibilitychange", () => document.hidden || poll());
setInterval(() => document.hidden || age(), 1000);
poll();
