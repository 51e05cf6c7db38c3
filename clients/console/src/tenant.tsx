// Which tenant a view shows.

import type { TenantInfo } from "./gen/fanfare/v1/admin_pb";
import { Code } from "@connectrpc/connect";
import { useEffect } from "preact/hooks";
import { access, claimsOf } from "./access";
import { admin, useAsked, type Asked } from "./api";
import { place, refine } from "./router";
import { useStore } from "./store";
import { many } from "./format";
import { Select } from "./ui";

const TENANTS_EVERY_MS = 4000;

export interface Tenants {
  list: TenantInfo[];
  more: boolean;
  known: boolean;
  asked: Asked<unknown>;
}

export function useTenants(): Tenants {
  const asked = useAsked((signal) => admin.listTenants({}, { signal }), [], TENANTS_EVERY_MS);
  return { list: asked.value?.tenants ?? [], more: asked.value?.more ?? false, known: asked.value !== undefined || asked.problem?.code === Code.PermissionDenied, asked };
}

/** The token's own tenant, unless it is for all. */
export function ownTenant(): string {
  const now = access.get();
  if (now.state !== "signed-in") return "";
  const claims = claimsOf(now.token) ?? {};
  const tenant = claims["organizationId"] ?? claims["tenant"];
  return typeof tenant === "string" || typeof tenant === "number" ? String(tenant).replace(/^\*$/, "") : "";
}

/** The tenant of the view: as chosen, else the one with the most sessions. */
export function useTenant(tenants: Tenants): string {
  const { params } = useStore(place);
  const busiest = tenants.list.reduce<TenantInfo | undefined>((best, t) => (!best || t.sessions > best.sessions ? t : best), undefined);
  const chosen = params["tenant"] ?? (ownTenant() || busiest?.tenant || "");
  useEffect(() => {
    if (!params["tenant"] && chosen) refine({ tenant: chosen });
  }, [chosen, params["tenant"]]);
  return chosen;
}

export function TenantPicker({ tenants, value, all = false, onValue }: { tenants: Tenants; value: string; all?: boolean; onValue: (tenant: string) => void }) {
  const choices = tenants.list.map((t) => ({ value: t.tenant, text: `${t.tenant} (${many(t.sessions, "session")})` }));
  if (value && !choices.some((choice) => choice.value === value)) choices.unshift({ value, text: value });
  if (all) choices.unshift({ value: "", text: "All tenants" });
  if (choices.length === 0) choices.push({ value: "", text: "No tenant yet" });
  return <Select label="Tenant" value={value} choices={choices} onValue={onValue} class="tenant" {...(tenants.more ? { hint: "The first 1000." } : {})} />;
}
