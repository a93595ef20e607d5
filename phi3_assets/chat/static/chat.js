// The chat page of `phi3 web`. All that was asked and answered is put in as text, never as markup, and kept in this
// page alone: the server forgets every question when it is answered.
"use strict";

const byId = (id) => document.getElementById(id);
const talk = byId("talk"), question = byId("question"), status = byId("status");
const ENDS = { end: "ended by itself", limit: "cut off at the longest answer", context: "cut off: the context is full" };
const STATES = { waiting: "Waits until another answer of this model is done …", loading: "Is being loaded …", answering: "" };

let turns = []; // {text, answers: {variant: text so far}}
let which = {}; // product and release: they are named with every question, so that the page never changes its mind
let stopping = null; // AbortController while answers are coming

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

async function setUp() {
  const setup = await (await fetch(`setup${location.search}`)).json();
  if (setup.error) {
    status.textContent = setup.error;
    byId("send").disabled = true;
    return;
  }
  which = setup.which;
  byId("told").textContent = setup.told;
  byId("system").value = setup.system_prompt;
  byId("length").value = setup.max_new_tokens;
  for (const { name, label, problem } of setup.variants) {
    const choice = make("label", name), box = make("input");
    box.type = "checkbox";
    box.value = name;
    box.dataset.label = label;
    box.disabled = Boolean(problem);
    box.checked = name === setup.variant && !problem;
    choice.append(box, make("span", "mark"), make("span", "", label));
    byId("variants").append(choice);
    if (problem) {
      choice.classList.add("missing");
      const why = make("p", "missing-why", problem);
      why.id = `why-${name}`;
      box.setAttribute("aria-describedby", why.id);
      byId("variants").append(why);
    }
  }
  // Reasons stand below all the choices.
  byId("variants").append(...byId("variants").querySelectorAll(".missing-why"));
}

const chosen = () => [...byId("variants").querySelectorAll("input:checked")];

async function ask() {
  const who = chosen(), text = question.value.trim();
  if (stopping || !text) return;
  if (!who.length) {
    status.textContent = "Choose who answers.";
    return;
  }
  byId("empty").hidden = true;
  stopping = new AbortController();
  const turn = { text, answers: {} }, section = make("section", "turn"), answers = make("div", "answers");
  section.append(make("h2", "", text), answers);
  const cards = who.map((box) => card(box.value, box.dataset.label));
  answers.append(...cards.map((each) => each.node));
  talk.append(section);
  turns.push(turn);
  question.value = "";
  showBusy(true);
  section.scrollIntoView({ block: "start" });
  const { signal } = stopping;
  try {
    // The fast one first: it is read while the others still answer.
    for (const each of cards.toSorted((a, b) => (b.variant === "int4") - (a.variant === "int4"))) {
      if (signal.aborted) each.note("Not asked: you stopped.");
      else await answer(each, turn, signal);
    }
  } finally {
    stopping = null;
    showBusy(false);
  }
}

function card(variant, label) {
  const node = make("article", `answer ${variant}`), text = make("div", "text"), note = make("p", "note", "Waits for the others …");
  const figures = make("ul", "figures");
  node.append(make("h3", "", label), figures, text, note);
  node.setAttribute("aria-label", label);
  return {
    variant, label, node,
    note: (words, isError) => {
      note.textContent = words;
      note.classList.toggle("error", Boolean(isError));
      note.hidden = !words;
    },
    add: (piece) => {
      text.append(piece); // a string becomes a text node
      if (text.scrollHeight > text.clientHeight) text.tabIndex = 0; // so that the keyboard can scroll it
    },
    figures: (words) => figures.replaceChildren(...words.map((each) => make("li", "", each))),
  };
}

async function answer(card, turn, signal) {
  card.node.setAttribute("aria-busy", "true");
  card.note("Is asked …");
  turn.answers[card.variant] = "";
  let last = null;
  try {
    const response = await fetch("answer", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        ...which,
        variant: card.variant,
        turns: conversation(card.variant),
        system_prompt: byId("system").value.trim(),
        max_new_tokens: byId("length").valueAsNumber,
      }),
      signal,
    });
    if (!response.ok) throw new Error(`The server refused: ${await response.text()}`);
    for await (const event of lines(response)) {
      if (event.error) throw new Error(event.error);
      if (event.state) card.note(event.forgotten ? forgot(event.forgotten) : STATES[event.state]);
      if (event.text) {
        turn.answers[card.variant] += event.text;
        card.add(event.text);
      }
      if ("tokens" in event) {
        last = event;
        card.figures(figures(event, ENDS[event.stop]));
      }
    }
    if (!last?.stop) throw new Error("The server ended in the midst of the answer.");
    status.textContent = `${card.label} has answered: ${last.tokens} tokens, ${ENDS[last.stop]}.`;
  } catch (error) {
    if (signal.aborted) {
      card.note("");
      card.figures(last ? figures(last, "stopped by you") : ["stopped by you"]);
      status.textContent = "Stopped.";
    } else {
      const words = error instanceof TypeError ? "The server does not answer: is `phi3 web` still running?" : error.message;
      card.note(words, true);
      status.textContent = `${card.label} gave no answer.`;
    }
  }
  card.node.removeAttribute("aria-busy");
}

const forgot = (count) => `Left out, for want of room: the ${count === 1 ? "oldest question" : `${count} oldest questions`}.`;

// What one variant is asked: the question alone, or after what it was asked and said itself; never the others' answers.
function conversation(variant) {
  const said = byId("follow").checked ? turns.slice(0, -1).filter((turn) => turn.answers[variant]) : [];
  const past = said.flatMap((turn) => [{ role: "user", content: turn.text }, { role: "assistant", content: turn.answers[variant] }]);
  return [...past, { role: "user", content: turns.at(-1).text }];
}

function figures({ tokens, tokens_per_s: speed, first_token_s: first }, end) {
  const found = [`${tokens} tokens`, `first after ${first.toFixed(2)} s`];
  if (speed) found.splice(0, 0, `${speed.toFixed(1)} tokens/s`);
  return end ? [...found, end] : found;
}

async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

function showBusy(isBusy) {
  byId("send").disabled = byId("clear").disabled = isBusy;
  byId("stop").hidden = !isBusy;
  if (!isBusy) question.focus();
}

const stop = () => stopping?.abort();

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    byId("ask").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});
byId("stop").addEventListener("click", stop);
byId("length").addEventListener("invalid", () => { document.querySelector("details").open = true; });
byId("clear").addEventListener("click", () => {
  turns = [];
  talk.querySelectorAll(".turn").forEach((section) => section.remove());
  byId("empty").hidden = false;
  status.textContent = "Cleared.";
  question.focus();
});
setUp().catch(() => { status.textContent = "The server does not answer: is `phi3 web` still running?"; });
