// Light or dark: as the system says, unless a person has chosen.

import { Store } from "./store";

export const THEMES = ["system", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];
const KEPT_AS = "fanfare-theme";

const kept = localStorage.getItem(KEPT_AS);
export const theme = new Store<Theme>(THEMES.find((name) => name === kept) ?? "system");

function apply(): void {
  const chosen = theme.get();
  if (chosen === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = chosen;
}
apply();
theme.watch(() => {
  localStorage.setItem(KEPT_AS, theme.get());
  apply();
});
