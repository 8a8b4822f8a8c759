"use strict";
// The list of jobs, its filters, and which page is shown.
((page) => {
  const make = page.make;
  const at = (id) => document.getElementById(id);
  const FILTERS = { state: "every state", model: "every model", gateway: "every gateway", day: "every day", label: "every label" };
  const SOON_MS = 400;
  const LATER_MS = 3000;
  const TYPING_MS = 250;
  const tiles = new Map();
  let query = new URLSearchParams();
  let shown = { version: null, query: null, job: null };
  let asked = 0;
  let timer = null;
  let scrolled = 0;
  let typing = null;

  page.listAddress = () => (query.size ? `#/?${query}` : "#/");

  function change(name, value) {
    const next = new URLSearchParams(query);
    if (value) next.set(name, value);
    else next.delete(name);
    if (name !== "page") next.delete("page");
    location.hash = next.size ? `#/?${next}` : "#/";
  }

  function fillFilters(facets) {
    for (const [name, every] of Object.entries(FILTERS)) {
      const select = at(name);
      const known = facets[name].map(([value, count]) => [value, `${value} (${count.toLocaleString()})`]);
      const extra = name === "state" ? [["open", "open: paid for, no file yet"]] : [];
      const chosen = query.get(name) || "";
      const options = [["", every], ...extra, ...known];
      if (chosen && !options.some(([value]) => value === chosen)) options.push([chosen, chosen]);
      const key = JSON.stringify(options);
      if (select.dataset.options !== key && document.activeElement !== select) {
        select.dataset.options = key;
        select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
      }
      select.value = chosen;
      select.hidden = name === "label" && !known.length && !chosen;
    }
    if (typing === null && document.activeElement !== at("q")) at("q").value = query.get("q") || "";
  }

  function tileOf(row) {
    const key = JSON.stringify(row);
    const known = tiles.get(row.digest);
    const tile = known && known.key === key ? known.tile : page.tile(row);
    return [row.digest, { key, tile }];
  }

  function nothing(found) {
    if (found.reading) return "The journal is being read …";
    if (found.problems.length && !found.jobs) return "Nothing can be shown.";
    if (!found.jobs) return `No job stands in ${found.store ? `the journal of ${found.store}` : "this gallery"} yet.`;
    return found.unsearched ? "Nothing found so far …" : "No job fits.";
  }

  function showList(found) {
    fillFilters(found.facets);
    const current = new Map(found.rows.map(tileOf));
    tiles.clear();
    current.forEach((one, digest) => tiles.set(digest, one));
    at("grid").replaceChildren(...(found.rows.length ? [...current.values()].map((one) => one.tile) : [make("p", { class: "empty" }, nothing(found))]));
    const jobs = `${found.count.toLocaleString()} ${found.count === 1 ? "job" : "jobs"}`;
    const parts = [found.cost && found.count ? `${jobs} for ${found.cost}` : jobs];
    if (found.reading) parts.push(`reading the journal: ${found.reading.map((count) => count.toLocaleString()).join(" of ")}; the newest of these are shown`);
    if (found.unsearched) parts.push(`${found.unsearched.toLocaleString()} prompts are still to be searched`);
    at("summary").textContent = parts.join("; ");
    at("pager").replaceChildren(...(found.pages < 2 ? [] : [
      make("button", { type: "button", disabled: found.page <= 1, click: () => change("page", found.page - 1) }, "Newer"),
      make("span", {}, `page ${found.page.toLocaleString()} of ${found.pages.toLocaleString()}`),
      make("button", { type: "button", disabled: found.page >= found.pages, click: () => change("page", found.page + 1) }, "Older"),
    ]));
    const problems = at("problems");
    const count = found.problems.length + found.more_problems;
    problems.hidden = !count;
    problems.open = problems.open || !found.jobs;
    problems.querySelector("summary").textContent = count === 1 ? "1 problem" : `${count.toLocaleString()} problems`;
    const more = found.more_problems ? [make("li", {}, `and ${found.more_problems.toLocaleString()} more`)] : [];
    problems.querySelector("ul").replaceChildren(...found.problems.map((text) => make("li", {}, page.sentence(text))), ...more);
    at("store").textContent = found.store || "";
    at("about").textContent = found.about || "";
  }

  function trouble(text) {
    at("trouble").hidden = !text;
    at("trouble").textContent = text || "";
  }

  async function refreshList(mine) {
    const found = await page.jobs(query);
    if (mine !== asked) return LATER_MS;
    trouble(found.error);
    if (found.error) return LATER_MS;
    if (found.version !== shown.version || shown.query !== String(query)) {
      shown = { version: found.version, query: String(query), job: null };
      showList(found);
    }
    return found.reading || found.unsearched ? SOON_MS : LATER_MS;
  }

  async function refreshJob(mine, digest) {
    const found = await page.job(digest);
    if (mine !== asked) return LATER_MS;
    trouble(found.error);
    if (found.error) {
      at("job").replaceChildren(make("p", {}, make("a", { href: page.listAddress() }, "← All jobs")));
      return LATER_MS;
    }
    const key = JSON.stringify(found.job);
    const playing = [...at("job").querySelectorAll("video, audio")].some((one) => !one.paused);
    if (shown.job === null || !shown.job.startsWith(digest) || (shown.job !== digest + key && !playing)) {
      shown.job = digest + key;
      at("job").replaceChildren(...page.jobPage(found.job));
    }
    return found.job.unread ? SOON_MS : LATER_MS;
  }

  async function refresh() {
    clearTimeout(timer);
    asked += 1;
    const mine = asked;
    const job = location.hash.match(/^#\/job\/([0-9a-f]{1,64})$/);
    let pause = LATER_MS;
    try {
      pause = job ? await refreshJob(mine, job[1]) : await refreshList(mine);
    } catch (error) {
      trouble(page.live ? "The gallery's server does not answer; it is asked again." : `This gallery cannot be shown: ${error.message}`);
    }
    if (mine === asked && page.live && document.visibilityState === "visible") timer = setTimeout(refresh, pause);
  }

  function route() {
    const isJob = location.hash.startsWith("#/job/");
    if (!at("list").hidden) scrolled = scrollY;
    if (!isJob) query = new URLSearchParams(location.hash.split("?")[1] || "");
    else at("job").replaceChildren();
    shown.job = null;
    const back = at("list").hidden && !isJob;
    at("list").hidden = isJob;
    at("job").hidden = !isJob;
    scrollTo(0, back ? scrolled : 0);
    refresh();
  }

  at("q").addEventListener("input", () => {
    clearTimeout(typing);
    const words = at("q").value.trim();
    typing = setTimeout(() => {
      typing = null;
      change("q", words);
    }, TYPING_MS);
  });
  for (const name of Object.keys(FILTERS)) at(name).addEventListener("change", () => change(name, at(name).value));
  addEventListener("hashchange", route);
  document.addEventListener("visibilitychange", () => page.live && document.visibilityState === "visible" && refresh());
  route();
})(window.happyhorse);
