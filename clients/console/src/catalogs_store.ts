// The catalogs, asked for once and kept; asked for again when the server has come back.

import { admin, contact, failed, heard, type Problem } from "./api";
import { readCatalogs, type CatalogEvent, type Catalogs } from "./catalog";
import { Store } from "./store";

export const catalogs = new Store<{ value?: Catalogs; problem?: Problem }>({});

export async function loadCatalogs(): Promise<void> {
  try {
    const value = readCatalogs(await admin.listCatalogs({}));
    heard();
    catalogs.set({ value });
  } catch (cause) {
    catalogs.update((old) => ({ ...old, problem: failed(cause) }));
  }
}

let wasUp = true;
contact.watch(() => {
  const { up } = contact.get();
  if (up && !wasUp) void loadCatalogs();
  wasUp = up;
});

export const eventOfType = (all: Catalogs | undefined, typeName: string): CatalogEvent | undefined =>
  all?.list.flatMap((catalog) => catalog.events).find((event) => event.type.typeName === typeName);
