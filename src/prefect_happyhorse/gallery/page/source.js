"use strict";
// Where the jobs come from: the server that serves this page, or, where it was exported, the files beside it.
window.happyhorse = (() => {
  const exported = window.happyhorseExport || null;
  const rowsPerPage = 60;
  const chunks = new Map();
  const scripts = new Map();

  async function ask(address) {
    const answer = await fetch(address, { cache: "no-cache" });
    return answer.json();
  }

  function matches(row, query, words) {
    const state = query.get("state");
    const text = row.prompt.toLowerCase();
    return (
      (state ? (state === "open" ? row.open : row.state === state) : row.state !== "released") &&
      (!query.get("gateway") || row.gateway === query.get("gateway")) &&
      (!query.get("model") || row.model === query.get("model")) &&
      (!query.get("day") || row.begun.startsWith(query.get("day"))) &&
      (!query.get("label") || Object.entries(row.labels).some(([name, value]) => `${name}=${value}` === query.get("label"))) &&
      words.every((word) => text.includes(word) || word === (row.task || "").toLowerCase() || (word.length >= 6 && row.digest.startsWith(word)))
    );
  }

  function exportedJobs(query) {
    const words = (query.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
    const found = exported.rows.filter((row) => matches(row, query, words));
    const page = Number(query.get("page") || 1);
    return {
      ...exported,
      rows: found.slice((page - 1) * rowsPerPage, page * rowsPerPage),
      count: found.length,
      cost: null,
      page,
      pages: Math.max(1, Math.ceil(found.length / rowsPerPage)),
      jobs: exported.rows.filter((row) => row.state !== "released").length,
      reading: null,
      unsearched: 0,
    };
  }

  // A page that was opened from a disk may not fetch, but it may load a script.
  function loadChunk(name) {
    if (!scripts.has(name)) {
      scripts.set(name, new Promise((resolve) => {
        const script = document.createElement("script");
        script.src = `jobs/${name}.js`;
        script.addEventListener("load", () => resolve(chunks.get(name) || {}));
        script.addEventListener("error", () => resolve({}));
        document.head.append(script);
      }));
    }
    return scripts.get(name);
  }

  async function exportedJob(digest) {
    const rows = new Map(exported.rows.map((row) => [row.digest, row]));
    if (!rows.has(digest)) return { error: `No job ${digest.slice(0, 12)} is in this gallery.` };
    const job = (await loadChunk(digest.slice(0, 2)))[digest];
    if (!job) return { error: `jobs/${digest.slice(0, 2)}.js is missing or damaged: export the gallery once more.` };
    const related = (name) => job[name].map((one) => rows.get(one)).filter(Boolean);
    return { job: { ...job, takes: related("takes"), made_of_it: related("made_of_it"), bought_besides: related("bought_besides") } };
  }

  return {
    live: !exported,
    chunk: (name, jobs) => chunks.set(name, jobs),
    jobs: async (query) => (exported ? exportedJobs(query) : ask(`api/jobs?${query}`)),
    job: async (digest) => (exported ? exportedJob(digest) : ask(`api/jobs/${encodeURIComponent(digest)}`)),
    thumbnail: (sha256) => `thumbnails/${encodeURIComponent(sha256)}.jpg`,
    // Of a job or a row; null where the file is not in an export.
    media: (one, number) => (exported ? one.sources[number] || null : `media/${encodeURIComponent(one.digest)}/${number}`),
  };
})();
