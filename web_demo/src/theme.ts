/** Light or dark: as the system has it, until the reader chooses. */

import { button } from "./dom";

const THEME = "nemostream.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

export function theme(): void {
  apply();
  dark.addEventListener("change", apply);
  button("theme").addEventListener("click", () => {
    const other = current() === "dark" ? "light" : "dark";
    const system = dark.matches ? "dark" : "light";
    // Back at the system's choice the page follows the system again.
    if (other === system) localStorage.removeItem(THEME);
    else localStorage.setItem(THEME, other);
    apply();
  });
}

function current(): string {
  return localStorage.getItem(THEME) ?? (dark.matches ? "dark" : "light");
}

function apply(): void {
  const now = current();
  document.documentElement.dataset.theme = now;
  const toggle = button("theme");
  const label = now === "dark" ? "Light colours" : "Dark colours";
  toggle.setAttribute("aria-label", label);
  toggle.title = label;
}
