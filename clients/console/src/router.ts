// Where one is: `#/sessions?tenant=1&room=chat:7`. Filters live here, so that a view can be linked to and reloaded.

import { Store } from "./store";

export const VIEWS = ["overview", "sessions", "events", "catalogs", "playground"] as const;
export type View = (typeof VIEWS)[number];
export interface Place {
  view: View;
  params: Readonly<Record<string, string>>;
}

function read(hash: string): Place {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const view = VIEWS.find((name) => name === path) ?? "overview";
  return { view, params: Object.fromEntries(new URLSearchParams(query)) };
}

export const place = new Store<Place>(read(location.hash));
addEventListener("hashchange", () => place.set(read(location.hash)));

export function href(view: View, params: Record<string, string | undefined> = {}): string {
  const query = new URLSearchParams(Object.entries(params).filter((entry): entry is [string, string] => Boolean(entry[1])));
  const text = query.toString();
  return text ? `#/${view}?${text}` : `#/${view}`;
}

export function go(view: View, params: Record<string, string | undefined> = {}): void {
  location.hash = href(view, params);
}

/** Changes filters of the view one is in, without a step in the history. */
export function refine(changes: Record<string, string | undefined>): void {
  const { view, params } = place.get();
  history.replaceState(null, "", href(view, { ...params, ...changes }));
  place.set(read(location.hash));
}
