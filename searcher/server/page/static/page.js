// The page works without this; with it an image can be dropped or pasted, more comes in place, and links are copied.
"use strict";
{
  const root = document.documentElement;
  const form = document.querySelector("form.image");
  const file = document.querySelector("#image");
  const words = document.querySelector("#q");
  const where = document.querySelector("#where");
  const say = (text) => { document.querySelector("#copied").textContent = text; };
  root.classList.add("js");

  const send = () => {
    root.classList.add("busy");
    say("Looking at the image");
    form.requestSubmit();
  };
  const take = (files) => {
    const image = [...(files || [])].find((one) => one.type.startsWith("image/")) || (files || [])[0];
    if (!image || !form) return false;
    const chosen = new DataTransfer();
    chosen.items.add(image);
    file.files = chosen.files;
    send();
    return true;
  };
  if (form) {
    file.addEventListener("change", () => { if (file.files.length) send(); });
    addEventListener("dragover", (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      root.classList.add("over");
    });
    addEventListener("dragleave", (event) => { if (!event.relatedTarget) root.classList.remove("over"); });
    addEventListener("drop", (event) => {
      root.classList.remove("over");
      if (event.dataTransfer.files.length) {
        event.preventDefault();
        take(event.dataTransfer.files);
      }
    });
    addEventListener("paste", (event) => { if (take(event.clipboardData.files)) event.preventDefault(); });
    // Back from the results: the form is as it was sent, the page must not look busy.
    addEventListener("pageshow", () => { root.classList.remove("busy"); });
  }

  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.closest("input, textarea, select") || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    words.focus();
    words.select();
  });

  for (const code of document.querySelectorAll("#where-help tbody th code")) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "put it into the filter";
    code.replaceWith(button);
    button.append(code);
    button.addEventListener("click", () => {
      const name = /^[A-Za-z_][A-Za-z0-9_]*$/.test(code.textContent) ? code.textContent : `"${code.textContent.replaceAll('"', '""')}"`;
      where.value = where.value.trim() ? `${where.value.trim()} AND ${name} ` : `${name} `;
      where.focus();
    });
  }

  const broken = (image) => {
    const frame = image.closest(".frame");
    if (!frame) return;
    frame.classList.add("broken");
    frame.textContent = `No image to show: ${image.alt}`;
  };
  for (const image of document.querySelectorAll(".frame img")) {
    if (image.complete && !image.naturalWidth && image.loading !== "lazy") broken(image);
  }
  // An error does not bubble, but it can be caught on its way down; so those that come later are seen too.
  document.addEventListener("error", (event) => { if (event.target.matches?.(".frame img")) broken(event.target); }, true);

  // The next page goes under what is there, in its order; the address then shows others the same.
  const showMore = async (link) => {
    const section = link.closest("section");
    const heading = section.getAttribute("aria-labelledby");
    const list = section.querySelector("ol");
    const answer = await fetch(link.href, {headers: {Accept: "text/html"}});
    if (!answer.ok) throw new Error(answer.status);
    // Its style has a nonce of its own, which this page does not know.
    const text = (await answer.text()).replace(/<style[^]*?<\/style>/, "");
    const page = new DOMParser().parseFromString(text, "text/html");
    const next = page.querySelector(`section[aria-labelledby="${heading}"]`);
    const shown = new Set([...list.children].map((one) => one.dataset.item));
    const fresh = [...next.querySelectorAll("ol:not(.facts ol) > li")].filter((one) => one.dataset.item ? !shown.has(one.dataset.item) : !list.querySelector(".below"));
    list.append(...fresh);
    for (const one of fresh) if (one.dataset.ratio) one.style.setProperty("--r", one.dataset.ratio);
    if (link.dataset.longer) history.replaceState(null, "", link.dataset.longer);
    const title = section.querySelector("h2");
    title.textContent = title.textContent.replace(/^\d+/, list.querySelectorAll("[data-item]").length);
    const following = next.querySelector(".more .next");
    if (following) link.replaceWith(following); else link.remove();
    const items = fresh.filter((one) => one.dataset.item);
    say(`${items.length} more`);
    items[0]?.querySelector("a").focus();
  };
  document.addEventListener("click", async (event) => {
    const link = event.target.closest?.(".more .next");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || link.ariaBusy) return;
    event.preventDefault();
    link.ariaBusy = "true";
    try {
      await showMore(link);
    } catch {
      location.href = link.href;
    }
  });

  const said = document.querySelector(".head.first");
  if (said && navigator.clipboard) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy link";
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(location.href);
        button.textContent = "Copied";
        say("The link to these results was copied");
      } catch {
        say("The browser did not allow copying; the address bar has the link");
      }
      setTimeout(() => { button.textContent = "Copy link"; }, 2000);
    });
    said.append(button);
  }
}
