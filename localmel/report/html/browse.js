// The browser of disagreements: filters, and a few mentions at a time.  Without it every mention stands there.
"use strict";
{
  const form = document.getElementById("filters");
  const more = document.getElementById("more");
  if (form && more) {
    const AT_ONCE = 20;
    const count = document.getElementById("count");
    const cases = [...document.querySelectorAll("#cases > .case")];
    const words = cases.map((one) => one.textContent.toLowerCase());
    let shown = AT_ONCE;

    const value = (name) => (form.elements[name] ? form.elements[name].value : "");
    const holds = (list, wanted) => wanted === "" || list.includes(` ${wanted} `);

    const show = () => {
      const wanted = value("words").trim().toLowerCase();
      let found = 0;
      let last = null;
      cases.forEach((one, place) => {
        const data = one.dataset;
        const fits =
          (value("dataset") === "" || data.dataset === value("dataset")) &&
          holds(data.right, value("right")) &&
          holds(data.wrong, value("wrong")) &&
          holds(data.slices, value("slice")) &&
          (wanted === "" || words[place].includes(wanted));
        found += fits ? 1 : 0;
        one.hidden = !fits || found > shown;
        if (!one.hidden) last = one;
      });
      const visible = Math.min(found, shown);
      count.textContent = found ? `${visible} of ${found} shown` : "no mention fits";
      more.hidden = visible === found;
      return last;
    };

    form.addEventListener("input", () => {
      shown = AT_ONCE;
      show();
    });
    form.addEventListener("reset", () => setTimeout(() => { shown = AT_ONCE; show(); }));
    form.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", () => {
      const before = show();
      shown += AT_ONCE;
      show();
      const next = before ? before.nextElementSibling : null;
      let target = next;
      while (target && target.hidden) target = target.nextElementSibling;
      if (target) {
        target.tabIndex = -1;
        target.focus();
      }
    });
    form.hidden = false;
    show();
  }
}
