"use strict";
// The parts that pages are made of. Whatever a journal holds is set as text, never as markup.
((page) => {
  page.make = (name, facts, ...children) => {
    const element = document.createElement(name);
    for (const [fact, value] of Object.entries(facts || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") element.addEventListener(fact, value);
      else element.setAttribute(fact, value === true ? "" : value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
  };
  const make = page.make;

  page.seconds = (value) => `${Number(value.toFixed(1))} s`;
  page.cost = (row) => (row.cost === "unknown" ? "cost unknown" : row.cost);
  page.time = (text) => new Date(text).toLocaleString();
  page.bytes = (count) => {
    const units = ["bytes", "kB", "MB", "GB", "TB"];
    let unit = 0;
    for (; count >= 1000 && unit < units.length - 1; unit += 1) count /= 1000;
    return `${unit ? count.toFixed(1) : count} ${units[unit]}`;
  };

  function badge(row) {
    const length = row.seconds ? ` ${page.seconds(row.seconds)}` : "";
    const more = row.outputs > 1 ? ` × ${row.outputs}` : "";
    return row.kind ? make("span", { class: "badge" }, `${row.kind}${length}${more}`) : null;
  }

  page.picture = (row) => make(
    "span",
    { class: "picture" },
    row.kind === "audio" ? "sound" : row.outputs ? "no thumbnail" : "no file",
    row.thumbnail ? make("img", { src: page.thumbnail(row.thumbnail), alt: "", loading: "lazy", decoding: "async" }) : null,
    make("span", { class: `state ${row.state}` }, row.state),
    badge(row),
  );

  page.labels = (labels) => Object.entries(labels).map(([name, value]) => make("span", { class: "label" }, `${name}: ${value}`));

  page.tile = (row) => {
    const picture = page.picture(row);
    const tile = make(
      "a",
      { class: "tile", href: `#/job/${row.digest}` },
      picture,
      make(
        "span",
        { class: "said" },
        make("span", { class: "prompt" }, row.prompt || "(no prompt)"),
        make("span", { class: "facts" }, [row.model, row.gateway, row.take > 1 ? `take ${row.take}` : null, page.cost(row)].filter(Boolean).join(" · ")),
        make("span", { class: "facts" }, page.time(row.begun)),
        Object.keys(row.labels).length ? make("span", {}, page.labels(row.labels)) : null,
      ),
    );
    if (row.kind === "video") playsWhilePointedAt(tile, picture, row);
    return tile;
  };

  function playsWhilePointedAt(tile, picture, row) {
    let wanted = false;
    let video = null;
    async function begin() {
      wanted = true;
      // A file that is gone would be asked for in vain.
      const found = await page.job(row.digest).catch(() => ({}));
      const source = found.job && !found.job.files[0].problem && found.job.files[0].shown && page.media(row, 0);
      if (!wanted || video || !source) return;
      video = make("video", { src: source, loop: true, playsinline: true });
      video.muted = true;
      picture.insertBefore(video, picture.querySelector(".state"));
      video.play().catch(() => {});
    }
    function end() {
      wanted = false;
      if (video) {
        video.removeAttribute("src");
        // It lets go of its connection.
        video.load();
        video.remove();
      }
      video = null;
    }
    tile.addEventListener("pointerenter", begin);
    tile.addEventListener("focus", begin);
    tile.addEventListener("pointerleave", end);
    tile.addEventListener("blur", end);
  }

  // A text in which commands stand between backticks.
  page.sentence = (text) => text.split("`").map((part, number) => (number % 2 ? make("code", {}, part) : part));

  page.table = (rows) => make(
    "table",
    {},
    make("tbody", {}, rows.filter(([, value]) => value !== null && value !== undefined && value !== "").map(
      ([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value)),
    )),
  );
})(window.happyhorse);
