"use strict";
// The page of one job: its files, what it was made of, its takes side by side, its costs and times, and what to do.
((page) => {
  const make = page.make;

  function file(job, one, number) {
    const source = one.problem ? null : page.media(job, number);
    const size = one.width && one.height ? `${one.width} × ${one.height}` : null;
    const length = one.seconds ? page.seconds(one.seconds) : null;
    const rate = one.fps ? `${Number(one.fps.toFixed(2))} frames a second` : null;
    const facts = [one.kind, size, length, rate, page.bytes(one.bytes), one.media_type, one.c2pa ? "C2PA data" : null].filter(Boolean).join(", ");
    const poster = one.thumbnail ? page.thumbnail(one.thumbnail) : null;
    let shown = null;
    if (source && one.shown && one.kind === "video") shown = make("video", { src: source, controls: true, loop: true, playsinline: true, preload: "metadata", poster });
    else if (source && one.shown && one.kind === "image") shown = make("img", { src: source, alt: job.prompt.slice(0, 200) });
    else if (source && one.shown) shown = make("audio", { src: source, controls: true, preload: "metadata" });
    else if (poster) shown = make("img", { src: poster, alt: "" });
    const open = source ? make("a", { href: source, download: true }, "Save the file") : null;
    return make("figure", {}, shown, make(
      "figcaption", {}, facts, open ? [make("br"), open] : null,
      (one.warnings || []).flatMap((warning) => [make("br"), make("strong", {}, `Warning: ${warning}`)]),
      one.problem ? [make("br"), make("strong", {}, one.problem)] : null,
      one.uri ? [make("br"), one.uri] : null, make("br"), `SHA-256 ${one.sha256}`,
    ));
  }

  function input(one) {
    const picture = one.thumbnail ? make("img", { src: page.thumbnail(one.thumbnail), alt: "" }) : null;
    const made = one.job ? make("a", { href: `#/job/${one.job.digest}` }, `Made by ${one.job.model}: ${one.job.prompt.slice(0, 120)}`) : null;
    return make("figure", {}, picture, make("figcaption", {}, make("strong", {}, one.field), make("br"), one.text, made ? [make("br"), made] : null));
  }

  function take(row, job) {
    const here = row.digest === job.digest;
    const source = row.kind === "video" ? page.media(row, 0) : null;
    const poster = row.thumbnail ? page.thumbnail(row.thumbnail) : null;
    const shown = source
      ? make("video", { src: source, controls: true, loop: true, playsinline: true, preload: "none", poster })
      : page.picture(row);
    const name = `Take ${row.take}${here ? ", this one" : ""}`;
    return make("figure", { class: here ? "here" : null }, shown, make(
      "figcaption", {}, make("a", { href: `#/job/${row.digest}` }, name), make("br"),
      [row.state, row.gateway, page.cost(row), page.time(row.begun)].join(" · "),
    ));
  }

  function takes(job) {
    if (job.takes.length < 2) return [];
    const side = make("div", { class: "side" }, job.takes.map((row) => take(row, job)));
    const videos = [...side.querySelectorAll("video")];
    videos.forEach((video) => { video.muted = true; });
    const together = make("button", { type: "button", click: () => videos.forEach((video) => {
      video.currentTime = 0;
      video.play().catch(() => {});
    }) }, "Play all from the start");
    return [make("h2", {}, `${job.takes.length} takes of this request, side by side`), videos.length > 1 ? make("p", {}, together) : null, side];
  }

  function tiles(title, rows) {
    return rows.length ? [make("h2", {}, title), make("div", { class: "tiles" }, rows.map(page.tile))] : [];
  }

  function costs(job) {
    const { estimated, reckoned, billed, by_maker: byMaker } = job.costs;
    const usage = job.usage ? Object.entries(job.usage).map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`) : [];
    return page.table([
      ["estimated", `${estimated}${byMaker ? ", by the list of the model's maker, not your contract" : ""}`],
      ["reckoned", reckoned],
      ["billed", billed === null ? "not told in seconds" : `${billed}, by the seconds that the provider counted`],
      ["counted by the provider", usage.join(", ")],
    ]);
  }

  function times(job) {
    const first = Date.parse(job.history[0][1]);
    return page.table([
      ...job.history.map(([what, at]) => {
        const later = (Date.parse(at) - first) / 1000;
        return [what, `${page.time(at)}${later > 0 ? `, ${page.seconds(later)} after the start` : ""}`];
      }),
      ["polls", job.polls],
    ]);
  }

  page.jobPage = (job) => [
    make("p", {}, make("a", { href: page.listAddress() }, "← All jobs")),
    make("h2", {}, `${job.capability.replaceAll("_", " ")} with ${job.model}`),
    make("p", { class: "words" }, job.prompt || "(no prompt)"),
    make("p", { class: "words now" }, make("strong", {}, `${job.state}. `), page.sentence(job.what_now)),
    job.waits_here ? make("p", { class: "problem" }, "Its store could not be written: it stands on this machine until it can.") : null,
    job.reason.length ? page.table(job.reason) : null,
    job.files.length ? make("div", { class: "files" }, job.files.map((one, number) => file(job, one, number))) : null,
    takes(job),
    job.inputs.length ? [make("h2", {}, "Made from"), make("div", { class: "tiles" }, job.inputs.map(input))] : null,
    tiles("What was made of it", job.made_of_it),
    tiles("Further jobs that were bought for this request", job.bought_besides),
    job.unread ? make("p", { class: "facts" }, `Other jobs are still being read for takes and for what was made of it: ${job.unread.toLocaleString()} are left.`) : null,
    make("div", { class: "columns" },
      make("div", {}, make("h2", {}, "Request"), page.table([
        ["model", job.model], ["take", String(job.take)], ...job.request,
        ["labels", Object.keys(job.labels).length ? make("span", {}, page.labels(job.labels)) : null],
      ])),
      make("div", {}, make("h2", {}, "Job"), page.table([
        ["state", job.state], ["gateway", job.gateway], ["account", job.account], ["task id", job.task],
        ["request id", job.request_id], ["flow run", job.flow_run], ["digest", job.digest],
      ])),
      make("div", {}, make("h2", {}, "Cost"), costs(job)),
      make("div", {}, make("h2", {}, "Times"), times(job)),
    ),
  ].flat(2).filter(Boolean);
})(window.happyhorse);
