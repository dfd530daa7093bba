// What the review pages do beyond plain forms: save as you go, keep working without a connection, keys, scrolling.
// Every page works without it.
"use strict";

(() => {
  const byId = (id) => document.getElementById(id);
  const memory = (area) => ({
    get(name) {
      try {
        return JSON.parse(area().getItem(name));
      } catch {
        return null;
      }
    },
    set(name, value) {
      try {
        if (value === null) area().removeItem(name);
        else area().setItem(name, JSON.stringify(value));
      } catch {
        // Without storage what is not sent yet lives as long as the page.
      }
    },
  });
  const kept = memory(() => window.localStorage);
  const visit = memory(() => window.sessionStorage);

  // --- the entrance: what stands behind '#' never leaves the browser in an address ---

  const entrance = byId("entrance");
  function takeLink() {
    const link = byId("link");
    if (location.hash.length < 2 || !link) return;
    link.value = location.hash.slice(1);
    byId("paste").hidden = true;
    history.replaceState(null, "", location.pathname);
  }
  if (entrance) {
    takeLink();
    window.addEventListener("hashchange", takeLink);
  }

  // --- submitting clears what was kept for sending ---

  const submit = document.querySelector("#submit button[data-queue]");
  if (submit) {
    byId("submit").addEventListener("submit", () => kept.set(`simsa.review.${submit.dataset.queue}`, null));
  }

  // --- both answers scroll together ---

  const sides = [byId("answer-a"), byId("answer-b")];
  const sync = byId("sync");
  if (sync && sides[0] && sides[1]) {
    byId("sync-switch").hidden = false;
    sync.checked = kept.get("simsa.review.sync") !== false;
    sync.addEventListener("change", () => kept.set("simsa.review.sync", sync.checked));
    let led = null; // the side that was moved by us, whose next event is an echo
    sides.forEach((side, n) =>
      side.addEventListener("scroll", () => {
        const other = sides[1 - n];
        if (led === side) {
          led = null;
          return;
        }
        const room = side.scrollHeight - side.clientHeight;
        const target = room > 0 ? (side.scrollTop / room) * (other.scrollHeight - other.clientHeight) : 0;
        if (!sync.checked || Math.abs(other.scrollTop - target) < 1) return;
        led = other;
        other.scrollTop = target;
      }),
    );
  }

  const form = byId("judgement");
  if (!form) return;

  // Enter on a choice would send the form.
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.ctrlKey && !event.metaKey && event.target.matches("input")) event.preventDefault();
  });
  if (!form.dataset.item) return;

  // --- what is chosen, and how long it took ---

  const words = form.dataset;
  const fields = form.elements;
  const state = byId("state");
  const seconds = { before: Number(fields.seconds.value) || 0, spent: 0, active: Date.now() };
  const IDLE_MS = 120000;
  setInterval(() => {
    if (document.visibilityState === "visible" && Date.now() - seconds.active < IDLE_MS) seconds.spent += 1;
    fields.seconds.value = String(Math.min(86400, seconds.before + seconds.spent));
  }, 1000);
  for (const kind of ["pointermove", "keydown", "scroll", "touchstart"]) {
    document.addEventListener(kind, () => (seconds.active = Date.now()), { passive: true, capture: true });
  }

  function judgement() {
    const said = { grades: {} };
    for (const field of fields) {
      if (!field.name || (field.type === "radio" && !field.checked)) continue;
      if (field.name === "choice") said.choice = field.value;
      else if (field.name.startsWith("grade.")) said.grades[field.name.slice(6)] = Number(field.value);
      else if (field.name === "reason" || field.name === "comment") said[field.name] = field.value;
      else if (field.name === "recognised") said.recognised = field.checked;
    }
    said.seconds = Number(fields.seconds.value);
    return said;
  }

  function fill(said) {
    const radios = { choice: said.choice };
    for (const [criterion, grade] of Object.entries(said.grades || {})) radios[`grade.${criterion}`] = String(grade);
    for (const field of fields) {
      if (field.type === "radio") field.checked = radios[field.name] === field.value;
      else if (field.name === "recognised") field.checked = Boolean(said.recognised);
      else if (field.name === "reason" || field.name === "comment") field.value = said[field.name] || "";
    }
  }

  const sameAs = (one) => JSON.stringify(plain(one));
  function plain(said) {
    const grades = Object.fromEntries(Object.entries(said.grades || {}).sort());
    const text = (value) => (value || "").replaceAll("\r\n", "\n").trim();
    return [said.choice || "", grades, text(said.reason), text(said.comment), Boolean(said.recognised)];
  }

  // --- saving: one request at a time for an item, in order, until it is acknowledged ---

  const shelf = `simsa.review.${words.queue}`;
  let known = sameAs(judgement()); // what the server has
  let sending = null; // the promise of the request under way
  let unsure = null; // sent, and no answer came
  let isBlocked = false;
  let isUndecided = false; // the form holds what was kept here, and another judgement has come since
  let retryMs = 1000;
  let timer = null;
  let isComposing = false;

  function tell(text, isTrouble = false) {
    state.textContent = text;
    state.classList.toggle("trouble", isTrouble);
  }

  function tellOf(item) {
    const link = document.createElement("a");
    link.href = `/review/items/${item}`;
    tell(words.left, true);
    link.textContent = state.textContent;
    state.replaceChildren(link);
  }

  function shelve(said) {
    const all = kept.get(shelf) || {};
    if (said === null) delete all[words.item];
    else all[words.item] = { base: Number(fields.base_revision.value), judgement: said };
    kept.set(shelf, Object.keys(all).length ? all : null);
  }

  async function post(item, said, base, keepalive = false) {
    return fetch(`/review/items/${item}/judgement`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ form: fields.form.value, judgement: said, base_revision: base }),
      keepalive,
    });
  }

  // True once everything that is in the form is acknowledged.
  async function save() {
    clearTimeout(timer);
    while (sending) await sending;
    if (isBlocked) return false;
    const said = judgement();
    if (sameAs(said) === known) return true;
    shelve(said);
    tell(words.saving);
    sending = attempt(said).finally(() => (sending = null));
    if (!(await sending)) return false;
    return save();
  }

  async function attempt(said) {
    let answer = null;
    try {
      answer = await post(words.item, said, Number(fields.base_revision.value));
    } catch {
      unsure = said;
      return later(words.offline);
    }
    if (answer.ok) return acknowledged(said, (await answer.json()).revision);
    if (answer.status >= 500 || answer.status === 429) return later(words.failed);
    return refused(said, answer);
  }

  function acknowledged(said, revision) {
    fields.base_revision.value = String(revision);
    known = sameAs(said);
    unsure = null;
    retryMs = 1000;
    shelve(null);
    tell(words.saved);
    return true;
  }

  function later(text) {
    tell(text, true);
    timer = setTimeout(save, retryMs);
    retryMs = Math.min(30000, retryMs * 2);
    return false;
  }

  async function refused(said, answer) {
    const body = await answer.json().catch(() => ({}));
    const code = body.error ? body.error.code : "";
    if (code === "overtaken" && unsure && sameAs(body.judgement) === sameAs(unsure)) {
      acknowledged(body.judgement, body.revision); // our own, of which we had no answer
      return true;
    }
    isBlocked = code !== "judgement_invalid";
    if (code === "overtaken") shelve(null);
    const told = { overtaken: words.overtaken, no_session: words.ended, judgement_invalid: words.invalid };
    tell(told[code] || words.refused, true);
    return false;
  }

  function saveSoon(delayMs) {
    clearTimeout(timer);
    isUndecided = false;
    shelve(judgement());
    if (!isComposing) timer = setTimeout(save, delayMs);
  }

  form.addEventListener("change", () => saveSoon(0));
  form.addEventListener("input", (event) => {
    if (event.target.tagName === "TEXTAREA") saveSoon(800);
  });
  form.addEventListener("compositionstart", () => (isComposing = true));
  form.addEventListener("compositionend", () => {
    isComposing = false;
    saveSoon(800);
  });
  window.addEventListener("online", async () => {
    if (await save()) tell(fields.base_revision.value === "0" ? "" : words.saved);
  });
  window.addEventListener("offline", () => tell(words.offline, true));
  document.addEventListener("visibilitychange", () => {
    const said = judgement();
    if (document.visibilityState !== "hidden" || isBlocked || isUndecided || sending || sameAs(said) === known) return;
    post(words.item, said, Number(fields.base_revision.value), true).catch(() => null);
    unsure = said;
  });

  // --- what an earlier page could not send ---

  async function resume() {
    const all = kept.get(shelf) || {};
    const mine = all[words.item];
    if (mine && sameAs(mine.judgement) === known) shelve(null);
    else if (mine) {
      fill(mine.judgement);
      isUndecided = mine.base !== Number(fields.base_revision.value);
      if (isUndecided) tell(words.unsent, true);
      else save();
    }
    for (const [item, left] of Object.entries(all)) {
      if (item === words.item) continue;
      const answer = left.isRefused ? null : await post(item, left.judgement, left.base).catch(() => null);
      if (!left.isRefused && (!answer || answer.status >= 500 || [401, 403, 429].includes(answer.status))) return;
      const rest = kept.get(shelf) || {};
      if (answer && (answer.ok || answer.status === 404)) delete rest[item];
      else {
        rest[item] = { ...left, isRefused: true }; // never thrown away unseen: its own page shows it
        if (!isUndecided) tellOf(item);
      }
      kept.set(shelf, Object.keys(rest).length ? rest : null);
    }
  }
  resume();

  // --- going on: only with everything saved ---

  let isGoing = false;
  async function leaveBy(go) {
    if (isGoing) return;
    isGoing = true;
    const isSaved = await save();
    isGoing = false;
    if (isSaved) go();
    else if (!isBlocked) tell(navigator.onLine ? words.failed : words.wait, true);
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const to = event.submitter ? event.submitter.value : byId("go-on").value;
    const here = new URL(form.action);
    leaveBy(() => location.assign(to === "list" ? "/review/" : `/review/items/${to}${here.search}`));
  });
  for (const link of document.querySelectorAll("a[data-go]")) {
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      leaveBy(() => location.assign(link.href));
    });
  }

  // --- keys ---

  const help = byId("help");
  const keysOn = byId("keys-on");
  byId("help-open").hidden = false;
  byId("help-open").addEventListener("click", () => help.showModal());
  keysOn.checked = kept.get("simsa.review.keys") !== false;
  const showKeys = () => form.classList.toggle("with-keys", keysOn.checked);
  keysOn.addEventListener("change", () => {
    kept.set("simsa.review.keys", keysOn.checked);
    showKeys();
  });
  showKeys();

  const choices = { 1: "a", 2: "b", 3: "tie", 4: "both_bad" };
  const isTyping = (target) => target.closest("textarea, select, input:not([type=radio]):not([type=checkbox])");

  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter") {
      if ((event.ctrlKey || event.metaKey) && !help.open) {
        event.preventDefault();
        form.requestSubmit(byId("go-on"));
      }
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || help.open || !keysOn.checked || isTyping(event.target)) return;
    if (choices[event.key]) {
      const radio = form.querySelector(`input[name=choice][value=${choices[event.key]}]`);
      radio.checked = true;
      radio.focus();
      saveSoon(0);
    } else if (event.key === "?") help.showModal();
    else if (event.key === "j" || event.key === "ㅓ") form.requestSubmit(byId("go-on"));
    else if ((event.key === "k" || event.key === "ㅏ") && byId("go-back")) form.requestSubmit(byId("go-back"));
    else return;
    event.preventDefault();
  });

  // --- a reminder to take a break ---

  const BREAK_MS = 45 * 60 * 1000;
  const begun = visit.get("simsa.review.begun") || Date.now();
  visit.set("simsa.review.begun", begun);
  const pause = byId("break");
  let rest = setTimeout(() => (pause.hidden = false), Math.max(0, begun + BREAK_MS - Date.now()));
  byId("break-over").addEventListener("click", () => {
    visit.set("simsa.review.begun", Date.now());
    pause.hidden = true;
    clearTimeout(rest);
    rest = setTimeout(() => (pause.hidden = false), BREAK_MS);
    document.querySelector("h1").focus();
  });

  // --- the reason is asked for where there is one to give ---

  const reason = byId("reason-field");
  const askReason = () => (reason.hidden = fields.choice.value !== "cannot_judge" && !fields.reason.value);
  form.addEventListener("change", askReason);
  askReason();
})();
